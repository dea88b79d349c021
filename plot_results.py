"""
Plot what a run learnt: accuracies and loss over the iterations, from the results.csv of a model folder.

$ python plot_results.py --model_folder math_mini_14
$ python plot_results.py --model_folder math_mini_14 math_mini_28 math_mini_56 --output=widths.png
$ python plot_results.py --sweep sweeps/main

One folder gives plot.png in that folder, also while it is still training. Several folders give one grid with shared axes,
comparison.png in the current folder. A folder of seed_N folders, as sweep.py makes it, is drawn as the mean over its
finished seeds with a band, and the seeds as thin lines. --sweep draws curves.png, a grid of all configs of a sweep, and
capacity.png, accuracies against the number of parameters. Both go into the sweep's folder.
"""

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use('Agg')  # this draws into files and needs no screen
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from common.errors import UserError
from common.results import own_tasks, read_results, read_seeds, read_sweep, seed_folders, summarize
from common.run_folder import atomic_open

# label, task (prefix of the columns _correct and _total), colour and dashes: Okabe & Ito's colours, which colour-blind
# readers tell apart, and dashes for those who print in grey
CURVES = {
    'math': [('addition', 'add', '#0072B2', '-'), ('subtraction', 'sub', '#E69F00', '--'),
             ('held out', 'heldout', '#D55E00', '-.')],
    'facts': [('facts', 'facts', '#009E73', (0, (5, 1, 1, 1, 1, 1)))],
}
CURVES['both'] = CURVES['math'] + CURVES['facts']
OWN_COLOURS = ['#56B4E9', '#8C564B', '#CC79A7', '#999999']  # for tasks that are not the paper's


def own_curves(tables):
    """The curves of the tasks in these DataFrames that are not the paper's, under their own names."""
    tasks = dict.fromkeys(task for results in tables for task in own_tasks(results))
    return [(task, task, OWN_COLOURS[i % len(OWN_COLOURS)], '-') for i, task in enumerate(tasks)]


def draw(ax, runs, title, curves):
    """Accuracies of the curves on `ax`, the validation loss on a second axis; returns that axis.

    runs: DataFrames of read_results. If there are several seeds, their mean, their standard deviation and a thin line for
    each are drawn.
    """
    everything = pd.concat(runs)
    own_facts = everything.facts_total.max() == sum(everything[f'{task}_total'].max() for task in own_tasks(everything)) > 0
    for label, task, colour, dashes in curves:
        if f'{task}_total' not in everything or everything[f'{task}_total'].max() == 0 or task == 'facts' and own_facts:
            continue  # nothing is asked, or all facts are of tasks with curves of their own
        by_iter = [run.set_index('iter') for run in runs]
        accuracy = pd.concat([100 * run[f'{task}_correct'] / run[f'{task}_total'] for run in by_iter], axis=1)
        mean = accuracy.mean(axis=1)
        ax.plot(mean.index, mean, color=colour, linestyle=dashes, linewidth=1.8, label=label, zorder=3,
                marker='o' if len(mean) < 3 else None)
        if len(runs) > 1:
            ax.plot(accuracy.index, accuracy, color=colour, linewidth=0.4, alpha=0.35, zorder=1)
            std = accuracy.std(axis=1)
            ax.fill_between(mean.index, (mean - std).clip(0), (mean + std).clip(upper=100), color=colour, alpha=0.15,
                            linewidth=0, zorder=2)
    all_right = everything.iter[everything.math_acc == 1.0]
    if len(runs) == 1 and len(all_right) and curves != CURVES['facts']:
        ax.scatter(all_right, [100] * len(all_right), s=70, facecolors='none', edgecolors='#CC79A7', linewidths=1.5,
                   zorder=4, clip_on=False, label='all sums right')
    ax.set(ylim=(-3, 103), title=title.replace('$', r'\$'))  # otherwise matplotlib reads mathematics
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x / 1000:g}k' if x >= 1000 else f'{x:g}'))
    ax.grid(alpha=0.25)
    loss = everything.groupby('iter').val_loss.mean()
    loss_ax = ax.twinx()
    loss_ax.plot(loss.index, loss, color='#555555', linestyle=':', linewidth=1.4, label='validation loss')
    loss_ax.set_ylim(bottom=0)
    ax.set_zorder(loss_ax.get_zorder() + 1)  # accuracies above the loss
    ax.patch.set_visible(False)
    return loss_ax


def seeds_label(n):
    return f'{n} seed' if n == 1 else f'{n} seeds'


def read_panels(folders):
    """The panels for model folders, or for folders of seed_N model folders: a (runs, title) for each.

    A title has as many of the last parts of the path as are needed to tell the folders apart.
    """
    panels, paths = [], [Path(folder).resolve() for folder in folders]
    for folder, path in zip(folders, paths):
        seeds = read_seeds(folder)
        if seed_folders(folder) and not seeds:
            raise UserError(f"no seed of {folder} has finished: wait, or plot one of them: {folder}/seed_N")
        runs = list(seeds.values()) or [read_results(folder)]
        n = 2 if path in seed_folders(path.parent).values() else 1
        while any(other.parts[-n:] == path.parts[-n:] for other in paths if other != path):
            n += 1
        panels.append((runs, title_of('/'.join(path.parts[-n:]), runs, len(seeds))))
    return panels


def title_of(name, runs, n_seeds):
    """'math_mini_14 (1,582 parameters, 3 seeds)', as far as that is known; n_seeds: 0 if it is a single run."""
    n_params = runs[0].n_params.iloc[-1]
    known = [f'{n_params:,.0f} parameters'] * pd.notna(n_params) + [seeds_label(n_seeds)] * bool(n_seeds)
    return name + ('\n' if len(name) > 16 else ' ') * bool(known) + f"({', '.join(known)})" * bool(known)


def draw_grid(panels, operation):
    """A figure with a panel for each (runs, title), all with the same axes."""
    own = own_curves([run for runs, _ in panels for run in runs]) if operation == 'both' else []
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figsize = (8, 4.8) if len(panels) == 1 else (4.4 * columns + 0.8, 3.3 * rows + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=figsize, sharex=True, sharey=True, squeeze=False,
                                layout='constrained')
    loss_axes = [draw(ax, runs, title, CURVES[operation] + own) for ax, (runs, title) in zip(axes.flat, panels)]
    labels = {label: handle for ax in [a for pair in zip(axes.flat, loss_axes) for a in pair]
              for handle, label in zip(*ax.get_legend_handles_labels())}
    for ax in axes.flat[len(panels):]:
        ax.set_visible(False)
    highest = max(loss_ax.get_ylim()[1] for loss_ax in loss_axes)
    for i, (ax, loss_ax) in enumerate(zip(axes.flat, loss_axes)):
        left, right = i % columns == 0, i % columns == columns - 1 or i == len(panels) - 1
        bottom = i + columns >= len(panels)
        ax.set(xlabel='iteration' if bottom else '', ylabel='accuracy (%)' if left else '')
        ax.tick_params(labelbottom=bottom)
        loss_ax.set(ylim=(0, highest), ylabel='loss (nats per character)' if right else '')
        loss_ax.tick_params(labelright=right)
    if any(len(runs) > 1 for runs, _ in panels):
        labels['one seed'] = Line2D([], [], color='#555555', linewidth=0.6)
        labels['mean ± standard deviation'] = Patch(color='#555555', alpha=0.2, linewidth=0)
    if not set(labels) - {'validation loss', 'one seed', 'mean ± standard deviation'} and operation != 'both':
        raise UserError(f"no run asks questions of {operation}: leave --operation out")
    ncols = len(labels) if len(labels) <= 5 else math.ceil(len(labels) / 2)
    figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=ncols, frameon=False)
    return figure


def draw_capacity(sweep):
    """A figure of final accuracies against the number of parameters, a panel for each dataset of the sweep."""
    summary = summarize(sweep)
    for config in summary.config[summary.n_params.isna()]:
        raise UserError(f"capacity.png cannot be drawn: no results.csv of {config} has a column n_params")
    kinds = summary.config.str.replace(r',n_embd=\d+|^([^,]*)_[^,_]*$', r'\1', regex=True)  # without the width
    figure, axes = plt.subplots(1, kinds.nunique(), figsize=(4.3 * kinds.nunique() + 0.6, 3.8), sharey=True,
                                squeeze=False, layout='constrained')
    lines = [('seen sums', 'final_seen_sums_acc', '#0072B2', 'o', '-'),
             ('facts', 'final_facts_acc', '#009E73', 's', '--'),
             ('held out', 'final_heldout_acc', '#D55E00', '^', '-.')]
    lines += [(label, f'final_{task}_acc', colour, 'D', dashes) for label, task, colour, dashes in
              own_curves([run for runs in sweep.values() for run in runs.values()])]
    labels = {}
    for ax, kind in zip(axes.flat, kinds.unique()):
        panel = summary[kinds == kind]
        for i, (label, metric, colour, marker, dashes) in enumerate(lines):
            rows = panel[panel.metric == metric].sort_values('n_params')
            if rows.empty:
                continue
            x = rows.n_params.astype(float) * 1.03 ** (i - 1)  # side by side, so that no interval hides another
            mean, low, high = (100 * rows[column].fillna(rows['mean']) for column in ('mean', 'low', 'high'))
            labels[label] = ax.errorbar(x, mean, yerr=[mean - low, high - mean], color=colour, marker=marker,
                                        linestyle=dashes, linewidth=1.6, capsize=3, elinewidth=1, clip_on=False,
                                        zorder=3)
        sizes = panel.groupby('config')[['n_params', 'seeds']].max().sort_values('n_params')
        ax.set(xscale='log', ylim=(-3, 103), title=kind, xlabel='parameters')
        if len(sizes) == 1:  # otherwise matplotlib puts the only tick at the edge
            ax.set_xlim(sizes.n_params.iloc[0] / 2, sizes.n_params.iloc[0] * 2)
        ax.set_xticks(sizes.n_params.astype(float), [f'{n:,}\n{seeds_label(seeds)}' for n, seeds in sizes.to_numpy()])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(alpha=0.25)
    axes.flat[0].set_ylabel('accuracy at the end (%),\nmean and 95 % interval')
    figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=len(labels), frameon=False,
                  title='no bar: one seed, or all seeds alike', title_fontsize='small')
    return figure


def save(figure, output):
    image_format = output.suffix[1:].lower() or 'png'
    if image_format not in figure.canvas.get_supported_filetypes():
        raise UserError(f"cannot write a .{image_format} file: use .png, .pdf or .svg")
    with atomic_open(output, 'wb') as f:
        figure.savefig(f, format=image_format, dpi=150)
    print(f"wrote {output}")


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--model_folder', nargs='+', metavar='F', help='model folders')
    what.add_argument('--sweep', metavar='F', help='the folder of a sweep')
    parser.add_argument('--operation', choices=list(CURVES), default='both', help='curves to draw (default: all)')
    parser.add_argument('--output', metavar='FILE', help='where to save (default: plot.png or comparison.png)')
    args = parser.parse_args()
    if args.sweep and args.output:
        parser.error("--sweep draws curves.png and capacity.png in the folder of the sweep: leave --output out")
    elif args.sweep:
        sweep = read_sweep(args.sweep)
        panels = [(list(runs.values()), title_of(config, [*runs.values()], len(runs))) for config, runs in sweep.items()]
        save(draw_grid(panels, args.operation), Path(args.sweep, 'curves.png'))
        save(draw_capacity(sweep), Path(args.sweep, 'capacity.png'))
    else:
        default = Path(args.model_folder[0], 'plot.png') if len(args.model_folder) == 1 else 'comparison.png'
        save(draw_grid(read_panels(args.model_folder), args.operation), Path(args.output or default))
