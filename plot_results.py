"""
Plot what a run learnt, and when: from results.csv and answers.csv.gz of model folders.

$ python plot_results.py --model_folder math_mini_14
$ python plot_results.py --model_folder math_mini_14 math_mini_28 math_mini_56
$ python plot_results.py --overlay --model_folder math_mini_14 math_mini_28 math_mini_56
$ python plot_results.py --answers --model_folder math_mini_14 math_mini_28
$ python plot_results.py --film --model_folder math_mini_14 math_mini_28
$ python plot_results.py --sweep sweeps/main

One folder gives plot.png in it, also during training: accuracies and loss over the iterations. Several give one grid,
comparison.png in the current folder, or with --overlay overlay.png, which has a panel for each measure. A folder of
seed_N folders, as sweep.py makes it, is drawn as the mean over its finished seeds. --sweep draws curves.png, a grid of
all configs, and capacity.png, final accuracies against the number of parameters, into the sweep's folder.

--answers draws answers.png: every question's probability at each evaluation, or for folders of seeds, how many of them
are finally right on each question. --film draws film.gif, the predictions during training, and film.png, its first
frame.
"""

import math
import re
from pathlib import Path

from common.arguments import add_model_folders, argument_parser, model_folders
from common.errors import UserError, printable, report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
import pandas as pd

from common.answers import read_answers
from common.pictures import (DATASETS, draw_answers, film, fitted, log_axis, model_figure, plt, run_label, save,
                             seeds_label, set_iterations)
from common.results import other_tasks, read_results, samples_drawn, samples_right
from common.sweeps import read_seeds, read_sweep, seed_folders, summarize, tell_apart

TRAINING, HELD_OUT, LOSS = 'training accuracy', 'held-out accuracy', 'validation loss'
PROBABILITY = 'probability of the right answer, held-out questions'
# colour, dashes and width of each curve, in the order of the legend: Okabe & Ito's colours, which colour-blind readers
# tell apart. Wide and light ones lie below dark and narrow ones, so that one sees those that coincide, in grey as well.
STYLES = {'arithmetic': ('#56B4E9', '-', 3.5), TRAINING: ('#AAAAAA', '-', 4), 'addition': ('#56B4E9', '-', 3.5),
          'subtraction': ('#E69F00', (0, (3, 1.5)), 2.5), 'capitals': ('#009E73', (0, (2, 1)), 2.5),
          HELD_OUT: ('#D55E00', '', 0), PROBABILITY: ('#D55E00', '-', 1.3), LOSS: ('#444444', ':', 1.4)}
OTHER_COLOURS = ['#0072B2', '#8C564B', '#CC79A7', '#999999']  # for tasks that are not the paper's


def curves_of(results, operation):
    """The curves of a run in per cent, and its loss: a DataFrame by iteration.

    Held-out questions are taken out of a task's curve if they can only be this task's; if not, the curve's name says
    so, and operation 'both' has one more curve, of all training questions.
    """
    results = results.set_index('iter')

    def counts(task):  # of samples that are right and of all samples, at each evaluation
        return results.reindex(columns=[f'{task}_correct', f'{task}_total'], fill_value=0).to_numpy()
    held_out, others = counts('heldout'), {task: counts(task) for task in other_tasks(results)}
    tasks = {'addition': counts('add'), 'subtraction': counts('sub'), **others}
    # facts_correct counts every answer that is a text; the paper's are those that no other task has
    everything = np.stack([samples_right(results), samples_drawn(results)], axis=1)
    capitals = everything - sum(tasks.values())
    if held_out.any() and operation != 'math':
        tasks = {'arithmetic': tasks.pop('addition') + tasks.pop('subtraction'), **tasks}
    tasks = {task: samples for task, samples in tasks.items() if samples.any()}
    curves = {}
    if 'heldout_total' not in results:  # the paper's own files do not tell
        what = 'accuracy'
    elif held_out.any() and len(tasks) > 1:
        what = 'training and held-out accuracy'
        curves = {TRAINING: everything - held_out} if operation == 'both' else {}
    else:
        what, tasks = TRAINING, {task: samples - held_out for task, samples in tasks.items()}
    curves |= {f'{what}: {task}': samples for task, samples in tasks.items() if task in others or operation != 'facts'}
    if operation != 'math':
        curves[f'{TRAINING}: capitals'] = capitals
    if operation != 'facts' or others:
        curves[HELD_OUT] = held_out
    curves = {name: 100 * samples[:, 0] / samples[:, 1] for name, samples in curves.items() if samples[:, 1].any()}
    if HELD_OUT in curves:
        curves[PROBABILITY] = 100 * results.heldout_prob
    return pd.DataFrame({**curves, LOSS: results.val_loss}, index=results.index)


def read_curves(panels, operation):
    """The curves of each panel, by (run, iter), and the style of each curve, in the order of the legend."""
    curves = [pd.concat({i: curves_of(run, operation) for i, run in enumerate(runs)}, names=['run'])
              for _, runs, _ in panels]
    task_of = {name: name.split('accuracy: ')[-1] for table in curves for name in table}
    if len(task_of) == 1 and operation != 'both':
        raise UserError(f"no run has {operation} questions: omit --operation")
    others = [name for name, task in task_of.items() if task not in STYLES]
    styles = {name: STYLES[task] for task in STYLES for name in task_of if task_of[name] == task}
    return curves, styles | {name: (OTHER_COLOURS[i % len(OTHER_COLOURS)], '-', 1.8) for i, name in enumerate(others)}


def read_panels(folders):
    """What to draw of model folders, or of folders of seed_N folders: a list of (title, runs, the runs' folders)."""
    panels = []
    for folder, name in zip(folders, tell_apart(folders)):
        seeds = seed_folders(folder)
        runs = read_seeds(folder) if seeds else {None: read_results(folder)}
        if not runs:
            raise UserError(f"no seed of {folder} has finished: wait, or plot one of them: {folder}/seed_N")
        title = title_of(name, runs, Path(folder, 'temp.csv').exists())
        panels.append((title, list(runs.values()), [seeds.get(seed, folder) for seed in runs]))
    return panels


def title_of(name, runs, unfinished=False):
    """'arithmetic, width 14\n(1,582 parameters, 3 seeds)', as far as known. runs: of read_seeds, or {None: run}."""
    n_params, known = next(iter(runs.values())).n_params.iloc[-1], []
    if pd.notna(n_params):
        known.append(f'{n_params:,.0f} parameters')
    if None not in runs:
        known.append(seeds_label(len(runs)))
    if unfinished:
        known.append('unfinished')
    name = printable(run_label(name))
    return f"{name}\n({', '.join(known)})" if known else name


def axes_over_iterations(n, columns, size, iters, logx, **shared):
    """A figure with n axes in so many columns, the lowest of each labelled: (figure, list of axes)."""
    figure, axes = plt.subplots(math.ceil(n / columns), columns, figsize=size, sharex=True, squeeze=False,
                                layout='constrained', **shared)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < n)
        ax.grid(alpha=0.25)
        set_iterations(ax, iters, logx)
        if i + columns >= n:
            ax.set_xlabel('iteration')
            ax.tick_params(labelbottom=True)
    return figure, axes.flat[:n]


def draw_panels(panels, operation, logx=False):
    """A figure with an axis for each panel: its run, or its seeds, their mean and its 95% interval."""
    curves, styles = read_curves(panels, operation)
    columns, handles = min(3, len(panels)), {}
    size = (7, 4.4) if len(panels) == 1 else (3.3 * columns + 1, 2.6 * math.ceil(len(panels) / columns) + 0.8)
    figure, axes = axes_over_iterations(len(panels), columns, size, curves[0].index.unique('iter'), logx, sharey=True)
    highest = max(table[LOSS].max() for table in curves)
    for i, (ax, (title, runs, _), table) in enumerate(zip(axes, panels, curves)):
        loss_ax = ax.twinx()
        for name in [name for name in styles if name in table]:
            handle = draw_curve(loss_ax if name == LOSS else ax, table[name].unstack('run'), styles[name],
                                banded=len(runs) > 1 and name not in (HELD_OUT, LOSS))
            if len(runs) > 1 or name not in handles:
                handles[name] = handle
        ax.set(ylim=(-4, 104), zorder=loss_ax.get_zorder() + 1)  # accuracies above the loss
        ax.patch.set_visible(False)
        ax.set_title(fitted(title, 36 if columns > 1 else 70), fontsize=10, parse_math=False)
        loss_ax.set_ylim(-0.04 * highest, 1.04 * highest)
        if i % columns == 0:
            ax.set_ylabel('accuracy, or probability (%)' if PROBABILITY in styles else 'accuracy (%)')
        if i % columns == columns - 1 or i == len(panels) - 1:
            loss_ax.set_ylabel('loss (nats per character)')
        else:
            loss_ax.tick_params(labelright=False)
    most = max(len(runs) for _, runs, _ in panels)
    band = '; band: its 95% interval' if most > 2 else ''
    add_legend(figure, {name: handles[name] for name in styles}, handlelength=1.8, columnspacing=1.2, title_fontsize=9,
               title=f'mean over the seeds{band}; thin line: one seed' if most > 1 else None)
    return figure


def draw_curve(ax, by_run, style, banded):
    """The mean of runs over the iterations, with its interval and each run if `banded`; returns what a legend shows."""
    (colour, dashes, width), mean = style, by_run.mean(axis=1)
    line, = ax.plot(mean, color=colour, linestyle=dashes, linewidth=width, zorder=3, markersize=2.5,
                    marker='o' if len(mean) < 3 or not dashes else None)
    if not banded:
        return line
    ax.plot(by_run, color=colour, linewidth=0.6, alpha=0.45, zorder=1)
    if by_run.shape[1] < 3:  # the interval of two runs is nearly always everything
        return line
    from scipy import stats  # it takes a second to import, and single runs are plotted without it
    half = stats.t.ppf(0.975, by_run.count(axis=1) - 1) * by_run.sem(axis=1)
    band = ax.fill_between(mean.index, (mean - half).clip(0), (mean + half).clip(upper=100), color=colour, alpha=0.2,
                           linewidth=0, zorder=2)
    return band, line  # the one over the other in the legend, too


def draw_overlay(panels, operation, logx=False):
    """A figure with an axis for each measure and on it a line for each panel: its run, or the mean over its seeds."""
    curves, styles = read_curves(panels, operation)
    columns, handles = min(2, len(styles)), {}
    size = 4.5 * columns, 2.5 * math.ceil(len(styles) / columns) + 0.8
    figure, axes = axes_over_iterations(len(styles), columns, size, curves[0].index.unique('iter'), logx)
    for ax, name in zip(axes, styles):
        for i, ((title, *_), table) in enumerate(zip(panels, curves)):
            if name in table:
                handles[title.replace('\n', ' ')], = ax.plot(  # viridis ends in a yellow that is faint on white
                    table[name].groupby('iter').mean(), color=plt.cm.viridis(0.72 * i / max(1, len(panels) - 1)),
                    linestyle=['-', '--', '-.', ':'][i % 4], linewidth=1.4)
        ax.set_title(f"{name} ({'nats per character' if name == LOSS else '%'})", fontsize=10, parse_math=False)
        # twice the final loss: an untrained model's would hide how the runs differ
        ax.set_ylim((0, 2 * max(table[LOSS].iloc[-1] for table in curves)) if name == LOSS else (-4, 104))
    add_legend(figure, handles)
    return figure


def add_legend(figure, handles, **style):
    """A legend of {label: handle} below the panels, in as few rows as the figure's width allows."""
    for n_rows in range(1, len(handles) + 1):
        legend = figure.legend(handles.values(), handles.keys(), loc='outside lower center', frameon=False, fontsize=9,
                               ncols=math.ceil(len(handles) / n_rows), **style)
        if n_rows == len(handles) or legend.get_window_extent().width < figure.bbox.width:
            return
        legend.remove()


def draw_capacity(sweep):
    """A figure of final accuracies against the number of parameters, an axis for each dataset of the sweep."""
    summary, handles = summarize(sweep), {}
    for config in summary.config[summary.n_params.isna()]:
        raise UserError(f"capacity.png cannot be drawn: no results.csv of {config} has a column n_params")
    datasets = summary.config.str.replace(r',n_embd=\d+|^([^,]*)_[^,_]*$', r'\1', regex=True)
    figure, axes = plt.subplots(1, datasets.nunique(), figsize=(4.3 * datasets.nunique() + 0.6, 3.8), sharey=True,
                                squeeze=False, layout='constrained')
    for ax, dataset in zip(axes.flat, datasets.unique()):
        of_dataset = summary[datasets == dataset]
        lines = [('training accuracy: arithmetic', 'final_seen_sums_acc', '#0072B2', 'o', '-'),
                 ('training accuracy: capitals', 'final_facts_acc', '#009E73', 's', '--')]
        if any(other_tasks(run) for run in sweep[of_dataset.config.iloc[0]].values()):
            # their own accuracies may have what is held out in them
            lines = [('training accuracy', 'final_seen_acc', '#0072B2', 'o', '-')]
        for i, (name, metric, colour, marker, dashes) in enumerate(
                [*lines, (HELD_OUT, 'final_heldout_acc', '#D55E00', '^', '-.')]):
            found = of_dataset[of_dataset.metric == metric].sort_values('n_params')
            if found.empty:
                continue
            x = found.n_params.astype(float) * 1.03 ** (i - 1)  # side by side, so that no interval hides another
            mean, low, high = (100 * found[column].fillna(found['mean']) for column in ('mean', 'low', 'high'))
            handles[name] = ax.errorbar(x, mean, yerr=[mean - low, high - mean], color=colour, marker=marker, capsize=3,
                                        linestyle=dashes, linewidth=1.6, elinewidth=1, clip_on=False, zorder=3)
        label_sizes(ax, dataset, of_dataset.groupby('config')[['n_params', 'seeds']].max().sort_values('n_params'))
    axes.flat[0].set_ylabel('final accuracy (%),\nmean and 95% interval')
    add_legend(figure, handles, title='no interval: a single seed, or all seeds agree', title_fontsize=9)
    return figure


def label_sizes(ax, dataset, sizes):
    """The title and the x axis of a panel of capacity.png. sizes: n_params and seeds by config."""
    fewest, most = sizes.seeds.min(), sizes.seeds.max()
    seeds = seeds_label(most) if fewest == most else f'{fewest} to {most} seeds'
    title = f"{DATASETS.get(dataset.removesuffix('_mini'), dataset)} ({seeds})"
    ax.set_title(fitted(title, 42), parse_math=False)
    widths = [re.search(r'(?:_|n_embd=)(\d+)', config) for config in sizes.index]
    labels = [f'{n:,}\nwidth {width[1]}' if width else f'{n:,}' for n, width in zip(sizes.n_params, widths)]
    log_axis(ax, sizes.n_params.astype(float), labels, 'parameters')
    ax.set(xlim=(0.75 * sizes.n_params.min(), 1.35 * sizes.n_params.max()), ylim=(-3, 103))
    ax.grid(alpha=0.25)


def read_alike(folders):
    """The answers of each model folder; no question of theirs may be held out in one folder and trained on in another.

    Pictures that draw a question once for all of them would show the others' training questions as held out.
    """
    tables, known = [read_answers(folder) for folder in folders], {}
    for folder, table in zip(folders, tables):
        for task, prompt, group in table[['task', 'prompt', 'group']].drop_duplicates().itertuples(index=False):
            other, its_group = known.setdefault((task, prompt), (folder, group))
            if group != its_group:
                raise UserError(f"{other} and {folder} hold out different questions, {prompt!r} for one: draw them one "
                                "at a time")
    return tables


def draw_seeds(panels):
    """A figure of how many seeds of each panel are finally right on each question; prints a summary of it."""
    tables, titles = [], [title for title, *_ in panels]
    for title, _, folders in panels:
        answers = pd.concat([table[table.iter == table.iter.max()] for table in read_alike(folders)])
        seeds = answers.groupby(['task', 'prompt', 'answer', 'group'], sort=False).right.agg(n='sum', of='size')
        table = seeds.reset_index().assign(prob=list(seeds.n / seeds.of), said=list(seeds.n.astype(str)))
        tables.append(table.assign(right=table.n == table.of))
        verdict = np.select([table.n == table.of, table.n == 0], ['always right', 'never'], 'sometimes')
        counts = pd.crosstab([table.task, table.group.replace('seen', 'training')], verdict, rownames=['', ''],
                             colnames=[''])
        print(title.replace('\n', ' '), counts, sep='\n', end='\n\n')
    figure, draw = model_figure(list(zip(titles, tables)), dict(
        scale='fraction of the seeds that are right', number='seeds right', right='always right', wrong='not all'))
    draw(tables, titles)
    return figure


def parse_arguments():
    """The options, and the model folders among them: (args, list of str)."""
    parser = argument_parser(__doc__)
    add_model_folders(parser)
    parser.add_argument('--sweep', metavar='F', help='the folder of a sweep')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--overlay', action='store_true', help='draw the folders over one another')
    what.add_argument('--answers', action='store_true', help='draw every question: its probability, or the seeds right')
    what.add_argument('--film', action='store_true', help='draw the predictions during training, a .gif or .mp4')
    parser.add_argument('--operation', choices=['math', 'facts', 'both'], default='both',
                        help='curves to draw (default: both); tasks of your own are always drawn')
    parser.add_argument('--logx', action='store_true', help='draw the iterations on a logarithmic scale')
    parser.add_argument('--output', metavar='FILE', help='file to write (default: plot.png, comparison.png and so on)')
    args = parser.parse_args()
    folders = model_folders(args)
    if bool(folders) == bool(args.sweep):
        parser.error("name model folders, or a sweep with --sweep")
    if args.operation != 'both' and (args.answers or args.film):
        parser.error("--operation is for curves: omit it")
    if args.logx and args.film:
        parser.error("--logx is for curves and --answers: omit it")
    if args.sweep and (args.output or args.answers or args.film or args.overlay):
        parser.error("--sweep draws curves.png and capacity.png, and takes no --output, --overlay, --answers or --film")
    return args, folders


if __name__ == '__main__':
    args, folders = parse_arguments()
    if args.sweep:
        sweep = read_sweep(args.sweep)
        panels = [(title_of(config, runs), list(runs.values()), []) for config, runs in sweep.items()]
        save(draw_panels(panels, args.operation, args.logx), Path(args.sweep, 'curves.png'))
        save(draw_capacity(sweep), Path(args.sweep, 'capacity.png'))
    else:
        panels, one = read_panels(folders), len(folders) == 1
        of_seeds = [folder for folder in folders if seed_folders(folder)]
        name = ('film.gif' if args.film else 'answers.png' if args.answers else 'overlay.png' if args.overlay else
                'plot.png' if one else 'comparison.png')
        output = Path(args.output or Path(folders[0] if one else '', name))
        if args.film and of_seeds:
            raise UserError(f"a film shows single runs: choose a seed of {of_seeds[0]}")
        if args.film:
            film([(title.split('\n')[0], read_answers(run)) for title, _, (run,) in panels], output)
        elif args.answers and of_seeds:
            save(draw_seeds(panels), output)
        elif args.answers:
            tables = read_alike([run for _, _, (run,) in panels])
            save(draw_answers([(title, table) for (title, *_), table in zip(panels, tables)], args.logx), output)
        else:
            save((draw_overlay if args.overlay else draw_panels)(panels, args.operation, args.logx), output)
