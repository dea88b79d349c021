"""
Plot what a run learned: accuracies and loss over the iterations, from the results.csv of a model folder.

$ python plot_results.py --model_folder math_mini_14
$ python plot_results.py --model_folder math_mini_14 math_mini_28 math_mini_56 --output=widths.png
$ python plot_results.py --sweep sweeps/main

One folder: plot.png in it. Several: one grid with shared axes, comparison.png here. A folder of seed_N folders, as
sweep.py makes, is drawn as the mean over its finished seeds with a band, the seeds as thin lines. --sweep: curves.png,
a grid of all configs of a sweep, and capacity.png, accuracies against the number of parameters, both in its folder. A
single folder is drawn while its training still runs (temp.csv), and from a results.csv of the eleven classic columns
without any checkpoint.
"""

import argparse
import math
import sys
from pathlib import Path

import matplotlib
matplotlib.use('Agg')  # draws files, needs no screen
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from atomic_io import atomic_open
from summarize import count_parameters, read_results, read_seeds, seed_folders, summarize

# label, columns (prefix of _correct and _total), colour and dashes: Okabe & Ito's colours, which colour-blind readers
# tell apart, and dashes for those who print in grey
CURVES = {
    'math': [('addition', 'add', '#0072B2', '-'), ('subtraction', 'sub', '#E69F00', '--'),
             ('held out', 'heldout', '#D55E00', '-.')],
    'facts': [('facts', 'facts', '#009E73', (0, (5, 1, 1, 1, 1, 1)))],
}
CURVES['both'] = CURVES['math'] + CURVES['facts']


def draw(ax, runs, title, curves):
    """Accuracies of the curves on `ax`, the validation loss on a second axis; returns that axis.

    runs: DataFrames of read_results, one, or several seeds of which mean, standard deviation and thin lines are drawn.
    """
    everything = pd.concat(runs)
    for label, prefix, colour, dashes in curves:
        if f'{prefix}_total' not in everything or everything[f'{prefix}_total'].max() == 0:
            continue
        accuracies = [(100 * run[f'{prefix}_correct'] / run[f'{prefix}_total']).set_axis(run.iter) for run in runs]
        accuracy = pd.concat(accuracies, axis=1)  # by iteration
        mean = accuracy.mean(axis=1)
        ax.plot(mean.index, mean, color=colour, linestyle=dashes, linewidth=1.8, label=label, zorder=3,
                marker='o' if len(mean) < 3 else None)
        if len(runs) > 1:
            ax.plot(accuracy.index, accuracy, color=colour, linewidth=0.4, alpha=0.35, zorder=1)
            std = accuracy.std(axis=1)
            ax.fill_between(mean.index, (mean - std).clip(0), (mean + std).clip(upper=100), color=colour, alpha=0.15,
                            linewidth=0, zorder=2)
    all_sums = (everything.add_total + everything.sub_total > 0) & (everything.math_acc == 1.0)
    if len(runs) == 1 and all_sums.any() and any(prefix == 'add' for _, prefix, _, _ in curves):
        ax.scatter(everything.iter[all_sums], [100] * all_sums.sum(), s=70, facecolors='none', edgecolors='#CC79A7',
                   linewidths=1.5, zorder=4, clip_on=False, label='all sums right')
    ax.set(ylim=(-3, 103), title=title)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x / 1000:g}k' if x >= 1000 else f'{x:g}'))
    ax.grid(alpha=0.25)
    loss = everything.groupby('iter').val_loss.mean()
    loss_ax = ax.twinx()
    loss_ax.plot(loss.index, loss, color='#555555', linestyle=':', linewidth=1.4, label='validation loss')
    loss_ax.set_ylim(bottom=0)
    ax.set_zorder(loss_ax.get_zorder() + 1)  # accuracies above the loss
    ax.patch.set_visible(False)
    return loss_ax


def read_panel(folder, checkpoint=None):
    """What one panel shows: (runs, title). folder: a model folder, or one of seed_N model folders."""
    folder = Path(folder)
    seeds = read_seeds(folder)
    if seed_folders(folder) and not seeds:
        sys.exit(f"error: no seed of {folder} has finished: wait, or plot one of them: {seed_folders(folder)[0]}")
    runs = list(seeds.values()) or [read_results(folder)]
    n_params = count_parameters(next(iter(seeds), folder), checkpoint)
    folder = folder.resolve()
    name = f'{folder.parent.name}/{folder.name}' if folder in seed_folders(folder.parent) else folder.name
    return runs, panel_title(name, n_params, len(seeds))


def seeds_label(n):
    return f'{n} seed' if n == 1 else f'{n} seeds'


def panel_title(name, n_params, n_seeds):
    """'math_mini_14 (1,582 parameters, 3 seeds)', as far as it is known: n_params may be None, n_seeds 0."""
    parameters = f'{n_params:,} parameters' if pd.notna(n_params) else ''
    known = ', '.join(filter(None, [parameters, seeds_label(n_seeds) if n_seeds else '']))
    return name + (f' ({known})' if known else '')


def draw_grid(panels, curves):
    """A figure with a panel for each (runs, title), all with the same axes."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figsize = (8, 4.8) if len(panels) == 1 else (4.4 * columns + 0.8, 3.3 * rows + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=figsize, sharex=True, sharey=True, squeeze=False,
                                layout='constrained')
    loss_axes, labels = [], {}
    for ax, (runs, title) in zip(axes.flat, panels):
        loss_axes.append(draw(ax, runs, title, curves))
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
    if any(len(runs) > 1 for runs, _ in panels):
        labels['one seed'] = Line2D([], [], color='#555555', linewidth=0.6)
        labels['mean ± standard deviation'] = Patch(color='#555555', alpha=0.2, linewidth=0)
    ncols = len(labels) if len(labels) <= 5 else math.ceil(len(labels) / 2)
    figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=ncols, frameon=False)
    return figure


def draw_capacity(summary, configs):
    """A figure of final accuracies against the number of parameters, a panel for each dataset of the sweep.

    summary: DataFrame of summarize. configs: dict of panel title to the configs in it.
    """
    figure, axes = plt.subplots(1, len(configs), figsize=(4.3 * len(configs) + 0.6, 3.8), sharey=True, squeeze=False,
                                layout='constrained')
    lines = [('seen sums', 'final_seen_sums_acc', '#0072B2', 'o', '-'), ('facts', 'final_facts_acc', '#009E73', 's', '--'),
             ('held out', 'final_heldout_acc', '#D55E00', '^', '-.')]
    labels = {}
    for ax, (title, names) in zip(axes.flat, configs.items()):
        of_panel = summary[summary.config.isin(names)]
        for i, (label, metric, colour, marker, dashes) in enumerate(lines):
            rows = of_panel[of_panel.metric == metric].sort_values('n_params')
            if rows.empty:
                continue
            x = rows.n_params.astype(float) * 1.03 ** (i - 1)  # side by side, so that no interval hides another
            mean, low, high = (100 * rows[column].fillna(rows['mean']) for column in ('mean', 'low', 'high'))
            labels[label] = ax.errorbar(x, mean, yerr=[mean - low, high - mean], color=colour, marker=marker,
                                        linestyle=dashes, linewidth=1.6, capsize=3, elinewidth=1, clip_on=False, zorder=3)
        sizes = of_panel.groupby('config').agg(n_params=('n_params', 'first'), seeds=('seeds', 'max'))
        sizes = sizes.sort_values('n_params')
        ax.set(xscale='log', ylim=(-3, 103), title=title, xlabel='parameters')
        ax.set_xticks(sizes.n_params.astype(float),
                      [f'{size.n_params:,}\n{seeds_label(size.seeds)}' for size in sizes.itertuples()])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(alpha=0.25)
    axes.flat[0].set_ylabel('accuracy at the end (%),\nmean and 95 % interval')
    figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=len(labels), frameon=False,
                  title='no bar: one seed, or all seeds alike', title_fontsize='small')
    return figure


def save(figure, output):
    image_format = output.suffix[1:].lower() or 'png'
    if image_format not in figure.canvas.get_supported_filetypes():
        sys.exit(f"error: cannot write a .{image_format} file: use .png, .pdf or .svg")
    try:
        with atomic_open(output, 'wb') as f:
            figure.savefig(f, format=image_format, dpi=150)
    except OSError as e:
        sys.exit(f"error: cannot write {output}: {e.strerror}")
    print(f"wrote {output}")


def by_size(config):
    """Sorts configs as the paper does: by dataset, then by width, mlt last."""
    kind, _, size = config.rpartition('_')
    datasets = ['math', 'facts', 'both', kind.split('_')[0]]
    return datasets.index(kind.split('_')[0]), kind, int(size) if size.isdecimal() else 10**9, size


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                 allow_abbrev=False)
what = parser.add_mutually_exclusive_group(required=True)
what.add_argument('--model_folder', nargs='+', metavar='F', help='model folders')
what.add_argument('--sweep', metavar='F', help='the folder of a sweep')
parser.add_argument('--operation', choices=list(CURVES), default='both', help='curves to draw (default: all there are)')
parser.add_argument('--checkpoint', help='file in the folder whose parameters the title counts (default: any)')
parser.add_argument('--output', metavar='FILE', help='where to save (default: plot.png in the folder, or comparison.png)')
args = parser.parse_args()

if args.sweep:
    if args.output or args.checkpoint:
        parser.error("--sweep draws curves.png and capacity.png in the folder of the sweep: leave the other option out")
    folder = Path(args.sweep)
    summary = summarize(folder)
    names = sorted(summary.config.unique(), key=by_size)
    n_params = summary.groupby('config').n_params.first()
    panels = []
    for name in names:
        runs = list(read_seeds(folder / name).values())
        panels.append((runs, panel_title(name, n_params[name], len(runs))))
    save(draw_grid(panels, CURVES[args.operation]), folder / 'curves.png')
    if n_params.isna().any():
        sys.exit(f"error: capacity.png cannot be drawn: {n_params.index[n_params.isna()][0]} has no checkpoint that tells "
                 "its number of parameters, nor has summary.csv")
    kinds = dict.fromkeys(name.rpartition('_')[0] for name in names)
    save(draw_capacity(summary, {kind: [name for name in names if name.rpartition('_')[0] == kind] for kind in kinds}),
         folder / 'capacity.png')
else:
    panels = [read_panel(folder, args.checkpoint) for folder in args.model_folder]
    output = Path(args.output or 'comparison.png')
    if len(panels) == 1 and not args.output:
        output = Path(args.model_folder[0]) / 'plot.png'
    save(draw_grid(panels, CURVES[args.operation]), output)
