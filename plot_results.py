"""
Plot what a run learnt, and when: from results.csv and answers.csv.gz of model folders.

$ python plot_results.py --model_folder math_mini_14
$ python plot_results.py --model_folder math_mini_14 math_mini_28 math_mini_56 --output=widths.png
$ python plot_results.py --answers --model_folder math_mini_14 math_mini_28
$ python plot_results.py --film --model_folder math_mini_14 math_mini_28
$ python plot_results.py --sweep sweeps/main

One folder gives plot.png in that folder, also while it is still training: accuracies and loss over the iterations. Several
folders give one grid with shared axes, comparison.png in the current folder. A folder of seed_N folders, as sweep.py makes
it, is drawn as the mean over its finished seeds with a band, and the seeds as thin lines. --sweep draws curves.png, a grid of
all configs of a sweep, and capacity.png, accuracies against the number of parameters. Both go into the sweep's folder.

--answers draws answers.png instead: every question's probability at each evaluation. --film draws film.gif, what the model
says to every question through the training, and film.png, the first frame. Several folders are drawn side by side.
"""

import argparse
import math
from pathlib import Path

from common.errors import UserError, report_errors, shown, wrapped

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import pandas as pd

from common.answers import read_answers
from common.pictures import draw_answers, film, plt, save, seeds_label, set_iterations
from common.results import own_tasks, read_results, read_seeds, read_sweep, seed_folders, summarize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

# colour, dashes and width of each curve, in the order of the legend: Okabe & Ito's colours, which colour-blind readers tell
# apart. Wide and light ones lie below dark and narrow ones, so that curves that coincide stay tellable, in grey as well.
STYLES = {'addition': ('#56B4E9', '-', 3.5), 'subtraction': ('#E69F00', (0, (3, 1.5)), 2.5), 'seen sums': ('#56B4E9', '-', 3.5),
          'facts': ('#009E73', (0, (2, 1)), 2.5), 'held out': ('#D55E00', '', 0),
          'held out, probability': ('#D55E00', '-', 1.3)}
OWN_COLOURS = ['#0072B2', '#8C564B', '#CC79A7', '#999999']  # for tasks that are not the paper's


def own_styles(tables):
    """The styles of the tasks in these DataFrames that are not the paper's."""
    tasks = dict.fromkeys(task for results in tables for task in own_tasks(results))
    return {task: (OWN_COLOURS[i % len(OWN_COLOURS)], '-', 1.8) for i, task in enumerate(tasks)}


def curves_of(results, operation):
    """The curves of a run, in per cent: a DataFrame with a column for each, and the iteration as its index."""
    results = results.set_index('iter')
    own = own_tasks(results)
    columns = {'addition': 'add', 'subtraction': 'sub', 'held out': 'heldout', 'facts': 'facts', **dict(zip(own, own))}
    asked = {name: task for name, task in columns.items() if f'{task}_total' in results and results[f'{task}_total'].max() > 0}
    curves = {name: results[f'{task}_correct'] / results[f'{task}_total'] for name, task in asked.items()}
    if 'held out' in curves:
        curves['held out, probability'] = results.heldout_prob
    if 'addition' in curves and 'held out' in curves and not own and operation != 'math':  # then all that is held out is sums
        correct, total = (results[f'add_{what}'] + results[f'sub_{what}'] - results[f'heldout_{what}']
                          for what in ('correct', 'total'))
        curves = {'seen sums': correct / total, **curves}
        del curves['addition'], curves['subtraction']
    if 'facts' in curves and all((results[f'facts_{what}'] == sum(results[f'{task}_{what}'] for task in own)).all()
                                 for what in ('correct', 'total')):
        del curves['facts']  # all facts are of tasks with curves of their own
    left_out = {'math': ['facts'], 'both': [],
                'facts': ['seen sums', 'addition', 'subtraction', 'held out', 'held out, probability']}[operation]
    return 100 * pd.DataFrame({name: curve for name, curve in curves.items() if name not in left_out})


def draw(ax, runs, title, operation, styles, logx):
    """The curves of runs on `ax`, the validation loss on a second axis; returns that axis.

    runs: DataFrames of read_results. If there are several seeds, their mean, their standard deviation and a thin line for
    each are drawn.
    """
    curves = pd.concat({i: curves_of(run, operation) for i, run in enumerate(runs)}, names=['run'])
    for label, (colour, dashes, width) in styles.items():
        if label not in curves:
            continue
        by_run = curves[label].unstack('run')
        mean = by_run.mean(axis=1)
        ax.plot(mean, color=colour, linestyle=dashes, linewidth=width, label=label, zorder=3, markersize=2.5,
                marker='o' if len(mean) < 3 or not dashes else None)
        if len(runs) > 1 and dashes:
            ax.plot(by_run, color=colour, linewidth=0.4, alpha=0.35, zorder=1)
            std = by_run.std(axis=1)
            ax.fill_between(mean.index, (mean - std).clip(0), (mean + std).clip(upper=100), color=colour, alpha=0.15,
                            linewidth=0, zorder=2)
    ax.set_ylim(-4, 104)
    ax.set_title(title.replace(' (', '\n('), fontsize=10, parse_math=False)
    ax.grid(alpha=0.25)
    loss = pd.concat(runs).groupby('iter').val_loss.mean()
    set_iterations(ax, loss.index, logx)
    loss_ax = ax.twinx()
    loss_ax.plot(loss, color='#444444', linestyle=':', linewidth=1.4, label='validation loss')
    ax.set_zorder(loss_ax.get_zorder() + 1)  # accuracies above the loss
    ax.patch.set_visible(False)
    return loss_ax


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
    n_params, name = runs[0].n_params.iloc[-1], shown(name)
    known = [f'{n_params:,.0f} parameters'] * pd.notna(n_params) + [seeds_label(n_seeds)] * bool(n_seeds)
    return name + ('\n' if len(name) > 16 else ' ') + f"({', '.join(known)})" if known else name


def draw_panels(panels, operation, logx=False):
    """A figure with a panel for each (runs, title), all with the same axes."""
    styles = STYLES | own_styles([run for runs, _ in panels for run in runs])
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figsize = (7, 4.4) if len(panels) == 1 else (3.3 * columns + 1, 2.6 * rows + 0.8)
    figure, axes = plt.subplots(rows, columns, figsize=figsize, sharex=True, sharey=True, squeeze=False,
                                layout='constrained')
    loss_axes = [draw(ax, runs, title, operation, styles, logx) for ax, (runs, title) in zip(axes.flat, panels)]
    labels = {label: handle for ax in [*axes.flat, *loss_axes] for handle, label in zip(*ax.get_legend_handles_labels())}
    labels = {label: labels[label] for label in [*styles, 'validation loss'] if label in labels}
    if len(labels) == 1 and operation != 'both':
        raise UserError(f"no run asks questions of {operation}: leave --operation out")
    for ax in axes.flat[len(panels):]:
        ax.set_visible(False)
    highest = max(run.val_loss.max() for runs, _ in panels for run in runs)
    for i, (ax, loss_ax) in enumerate(zip(axes.flat, loss_axes)):
        left, right = i % columns == 0, i % columns == columns - 1 or i == len(panels) - 1
        bottom = i + columns >= len(panels)
        ax.set(xlabel='iteration' if bottom else '', ylabel='right, or probability (%)' if left else '')
        ax.tick_params(labelbottom=bottom)
        loss_ax.set(ylim=(-0.04 * highest, 1.04 * highest), ylabel='loss (nats per character)' if right else '')
        loss_ax.tick_params(labelright=right)
    if any(len(runs) > 1 for runs, _ in panels):
        labels['one seed'] = Line2D([], [], color='#555555', linewidth=0.6)
        labels['mean ± standard deviation'] = Patch(color='#555555', alpha=0.2, linewidth=0)
    add_legend(figure, labels, handlelength=1.8, columnspacing=1.2, fontsize=9)
    return figure


def add_legend(figure, labels, **style):
    """A legend of {label: handle} below the panels, in as few rows as the figure's width allows."""
    for ncols in range(len(labels), 0, -1):
        legend = figure.legend(labels.values(), labels.keys(), loc='outside lower center', ncols=ncols, frameon=False, **style)
        if ncols == 1 or legend.get_window_extent().width < figure.bbox.width:
            return
        legend.remove()


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
    lines += [(task, f'final_{task}_acc', colour, 'D', dashes) for task, (colour, dashes, _) in
              own_styles([run for runs in sweep.values() for run in runs.values()]).items()]
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
    add_legend(figure, labels, title='no bar: one seed, or all seeds alike', title_fontsize='small')
    return figure


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=wrapped(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--model_folder', nargs='+', metavar='F', help='model folders')
    what.add_argument('--sweep', metavar='F', help='the folder of a sweep')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--answers', action='store_true', help="draw every question's probability at each evaluation")
    kind.add_argument('--film', action='store_true', help='draw what the model says to every question, as a .gif or .mp4')
    parser.add_argument('--operation', choices=['math', 'facts', 'both'], default='both', help='curves to draw (default: all); '
                        'tasks of your own are always drawn')
    parser.add_argument('--logx', action='store_true', help='draw the iterations on a logarithmic scale')
    parser.add_argument('--output', metavar='FILE', help='where to save (default: see above)')
    args = parser.parse_args()
    if args.operation != 'both' and (args.answers or args.film) or args.film and args.logx:
        parser.error("--operation is for curves, and --logx for curves and --answers: leave it out")
    elif args.sweep and (args.output or args.answers or args.film):
        parser.error("--sweep draws curves.png and capacity.png in the folder of the sweep: leave --output, --answers and "
                     "--film out")
    elif args.sweep:
        sweep = read_sweep(args.sweep)
        panels = [(list(runs.values()), title_of(config, [*runs.values()], len(runs))) for config, runs in sweep.items()]
        save(draw_panels(panels, args.operation, args.logx), Path(args.sweep, 'curves.png'))
        save(draw_capacity(sweep), Path(args.sweep, 'capacity.png'))
    else:
        one, panels = len(args.model_folder) == 1, read_panels(args.model_folder)
        name = 'answers.png' if args.answers else 'film.gif' if args.film else 'plot.png' if one else 'comparison.png'
        output = Path(args.output or Path(args.model_folder[0] if one else '', name))
        if args.answers or args.film:
            models = [(title, read_answers(folder)) for folder, (_, title) in zip(args.model_folder, panels)]
        if args.film:
            film(models, output)
        else:
            save(draw_answers(models, args.logx) if args.answers else draw_panels(panels, args.operation, args.logx), output)
