"""
Plot what a run learned: accuracies and loss over the iterations, from the results.csv of a model folder.

$ python plot_results.py --model_folder math_mini_14
$ python plot_results.py --model_folder math_mini_14 math_mini_28 math_mini_56 --output=widths.png

One folder: plot.png in it. Several: one grid with shared axes, comparison.png here. Works while training still runs
(temp.csv), and on a results.csv of the eleven classic columns without any checkpoint.
"""

import argparse
import math
import sys
from pathlib import Path

import matplotlib
matplotlib.use('Agg')  # draws files, needs no screen
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import FuncFormatter

from atomic_io import atomic_open

CLASSIC_COLUMNS = ['iter', 'add_correct', 'add_total', 'sub_correct', 'sub_total', 'math_acc',
                   'facts_correct', 'facts_total', 'facts_acc', 'train_loss', 'val_loss']
# label, columns (prefix of _correct and _total), colour and dashes: Okabe & Ito's colours, which colour-blind readers
# tell apart, and dashes for those who print in grey
CURVES = {
    'math': [('addition', 'add', '#0072B2', '-'), ('subtraction', 'sub', '#E69F00', '--'),
             ('held out', 'heldout', '#D55E00', '-.')],
    'facts': [('facts', 'facts', '#009E73', (0, (5, 1, 1, 1, 1, 1)))],
}
CURVES['both'] = CURVES['math'] + CURVES['facts']


def read_results(folder):
    """The rows of a model folder as a DataFrame: of temp.csv while the run goes on, else of results.csv."""
    folder = Path(folder)
    if not folder.is_dir():
        sys.exit(f"error: model folder {folder} not found: check its name, or train it with train_with_eval.py first")
    path = next((folder / name for name in ('temp.csv', 'results.csv') if (folder / name).exists()), None)
    if path is None:
        sys.exit(f"error: no results.csv in {folder}: train it with train_with_eval.py first")
    try:
        results = pd.read_csv(path)
        missing = [column for column in CLASSIC_COLUMNS if column not in results]
        if missing:
            sys.exit(f"error: {path} has no column {missing[0]}: it is no results.csv of train_with_eval.py")
        results = results.astype(float)
    except (ValueError, OSError) as e:  # pandas' parser errors are ValueErrors
        reason = 'it is empty' if isinstance(e, pd.errors.EmptyDataError) else str(e).splitlines()[0]
        sys.exit(f"error: {path} cannot be read ({reason}): train again, or wait for the first evaluation")
    if results.empty:
        sys.exit(f"error: {path} has no rows: train again, or wait for the first evaluation")
    return results


def count_parameters(folder, name):
    """Number of parameters of the model in checkpoint `name` of a folder (default: whichever is there), or None."""
    names = [name] if name else ['ckpt.pt', 'ckpt_last.pt', 'ckpt_best_math.pt', 'ckpt_best_facts.pt']
    path = next((Path(folder) / n for n in names if (Path(folder) / n).exists()), None)
    if path is None:
        if name:
            sys.exit(f"error: checkpoint {Path(folder) / name} not found: leave --checkpoint out")
        return None
    from eval_utils import load_checkpoint, model_from_checkpoint  # torch takes seconds to import: only where needed
    try:
        return model_from_checkpoint(load_checkpoint(path), path).get_num_params(non_embedding=False)
    except SystemExit:
        if name:
            raise
        return None  # a damaged checkpoint is no reason not to draw the curves


def draw(ax, results, title, curves):
    """Accuracies of the curves on `ax`, the validation loss on a second axis; returns that axis."""
    all_sums = (results.add_total + results.sub_total > 0) & (results.add_correct + results.sub_correct
                                                              == results.add_total + results.sub_total)
    if all_sums.any() and any(prefix == 'add' for _, prefix, _, _ in curves):
        ax.scatter(results.iter[all_sums], [100] * all_sums.sum(), s=70, facecolors='none', edgecolors='#CC79A7',
                   linewidths=1.5, zorder=4, clip_on=False, label='all sums right')
    for label, prefix, colour, dashes in curves:
        if f'{prefix}_total' in results and results[f'{prefix}_total'].max() > 0:
            accuracy = 100 * results[f'{prefix}_correct'] / results[f'{prefix}_total']
            ax.plot(results.iter, accuracy, color=colour, linestyle=dashes, linewidth=1.8, label=label, zorder=3,
                    marker='o' if len(results) < 3 else None)
    ax.set(ylim=(-3, 103), title=title)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x / 1000:g}k' if x >= 1000 else f'{x:g}'))
    ax.grid(alpha=0.25)
    loss_ax = ax.twinx()
    loss_ax.plot(results.iter, results.val_loss, color='#555555', linestyle=':', linewidth=1.4, label='validation loss')
    loss_ax.set_ylim(bottom=0)
    ax.set_zorder(loss_ax.get_zorder() + 1)  # accuracies above the loss
    ax.patch.set_visible(False)
    return loss_ax


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                 allow_abbrev=False)
parser.add_argument('--model_folder', nargs='+', required=True, metavar='F', help='model folders')
parser.add_argument('--operation', choices=list(CURVES), default='both', help='curves to draw (default: all there are)')
parser.add_argument('--checkpoint', help='file in the folder whose parameters the title counts (default: any)')
parser.add_argument('--output', metavar='FILE', help='where to save (default: plot.png in the folder, or comparison.png)')
args = parser.parse_args()

panels = [(Path(folder), read_results(folder)) for folder in args.model_folder]
columns = min(3, len(panels))
rows = math.ceil(len(panels) / columns)
figsize = (8, 4.8) if len(panels) == 1 else (4.4 * columns + 0.8, 3.3 * rows + 0.9)
figure, axes = plt.subplots(rows, columns, figsize=figsize, sharex=True, sharey=True, squeeze=False, layout='constrained')
loss_axes, labels = [], {}
for ax, (folder, results) in zip(axes.flat, panels):
    n_params = count_parameters(folder, args.checkpoint)
    title = folder.resolve().name + (f' ({n_params:,} parameters)' if n_params else '')
    loss_axes.append(draw(ax, results, title, CURVES[args.operation]))
    for a in (ax, loss_axes[-1]):
        labels.update({label: handle for handle, label in zip(*a.get_legend_handles_labels())})
for ax in axes.flat[len(panels):]:
    ax.set_visible(False)
highest = max(loss_ax.get_ylim()[1] for loss_ax in loss_axes)
for i, loss_ax in enumerate(loss_axes):
    loss_ax.set_ylim(0, highest)
    last_in_row = i % columns == columns - 1 or i == len(panels) - 1
    loss_ax.tick_params(labelright=last_in_row)
    if last_in_row:
        loss_ax.set_ylabel('loss (nats per character)')
    if i + columns >= len(panels):
        axes.flat[i].set_xlabel('iteration')
        axes.flat[i].tick_params(labelbottom=True)
    if i % columns == 0:
        axes.flat[i].set_ylabel('accuracy (%)')
figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=min(6, len(labels)), frameon=False)

output = Path(args.output) if args.output else panels[0][0] / 'plot.png' if len(panels) == 1 else Path('comparison.png')
image_format = output.suffix[1:].lower() or 'png'
if image_format not in figure.canvas.get_supported_filetypes():
    sys.exit(f"error: cannot write a .{image_format} file: use .png, .pdf or .svg")
try:
    with atomic_open(output, 'wb') as f:
        figure.savefig(f, format=image_format, dpi=150)
except OSError as e:
    sys.exit(f"error: cannot write {output}: {e.strerror}")
print(f"wrote {output}")
