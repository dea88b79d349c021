"""
The authors' learning curves against those of our seeds: where are theirs outside?

$ python paper/authors.py

Reads results/authors_curves.csv, which says for each of their evaluations what the CSV files in their repository say,
and our runs in results/paper, results/weight_decay and results/mlt. Draws authors.png into each of these folders, with
the range of our seeds as a band, and results/replay.png from paper/replay.py's losses. Writes
results/authors_against_ours.csv and the same as a table in authors_against_ours.md. Runs are compared at the iterations
that both have, up to the last of ours.
"""

import sys
from pathlib import Path

REPO = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(REPO))
from common.arguments import argument_parser
from common.errors import explained, report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
import pandas as pd
from scipy import stats

from common.pictures import ITERATIONS, plt, run_label, save, seeds_label
from common.results import accuracy
from common.sweeps import read_sweep
from common.files import write_file
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

RESULTS = REPO / 'results'
STYLES = {'loss': ('#555555', 'training loss'), 'sums': ('#0072B2', 'arithmetic, held-out questions included'),
          'facts': ('#009E73', 'capitals')}  # colours, and names in the legend
# our sweep: what authors_curves.csv calls theirs
SWEEPS = {'paper': 'paper', 'weight_decay': 'weight_decay', 'mlt': 'paper'}


def curves(results):
    """What is compared, by iteration: the training loss, and the accuracies of arithmetic and of facts in per cent."""
    by_iter = results.set_index('iter')
    table = pd.DataFrame({'loss': by_iter.train_loss, 'sums': 100 * accuracy(by_iter, 'add', 'sub'),
                          'facts': 100 * accuracy(by_iter, 'facts')})
    return table.dropna(axis=1, how='all')


def compare(theirs, ours):
    """One run of the authors against our seeds, at the iterations that both have: a dict.

    iter: the last of these. loss, our_loss: the loss there, ours as the mean. low, high: where one more seed of ours
    would lie in 95% of cases, by Student's t. outside: the fraction of evaluations at which their loss is below or
    above that of all our seeds, and outside_by_chance the fraction to be expected. wrong_sums, our_wrong_sums and so
    on: questions that are answered wrongly there, ours from the lowest to the highest seed. A single seed of ours has
    NaN for the four that need several.
    """
    theirs = theirs[theirs.iter.isin(ours[0].iter)]
    ours = [run[run.iter.isin(theirs.iter)] for run in ours]
    authors, loss = curves(theirs).loss, pd.DataFrame([curves(run).loss for run in ours])
    n, end, stop = len(loss), loss.iloc[:, -1], loss.columns[-1]
    half = stats.t.ppf(0.975, n - 1) * end.std() * (1 + 1 / n) ** 0.5
    outside = (authors < loss.min()) | (authors > loss.max())
    row = {'seeds': n, 'iter': stop, 'loss': authors.iloc[-1], 'our_loss': end.mean(), 'low': end.mean() - half,
           'high': end.mean() + half, 'outside': outside.mean() if n > 1 else np.nan,
           'outside_by_chance': 2 / (n + 1) if n > 1 else np.nan}
    for task, parts in (('sums', ['add', 'sub']), ('facts', ['facts'])):
        wrong = [sum(run[f'{part}_total'].iloc[-1] - run[f'{part}_correct'].iloc[-1] for part in parts) / 10
                 for run in (theirs, *ours)]
        if task in curves(theirs):
            low, high = min(wrong[1:]), max(wrong[1:])
            row |= {f'wrong_{task}': wrong[0], f'our_wrong_{task}': f'{low:g} to {high:g}' if n > 1 else f'{low:g}'}
    return row


def markdown(table):
    """The rows of authors_against_ours.csv as the table authors_against_ours.md."""
    lines = ['| sweep | config | seeds | iteration | loss, theirs | ours, mean | 95% prediction | theirs outside our '
             'seeds | expected for one more seed | arithmetic wrong, theirs; ours | capitals wrong, theirs; ours |',
             '|---' * 11 + '|']
    for r in table.itertuples():
        wrong = [f'{n:g}; {ours}' if pd.notna(n) else '' for n, ours in ((r.wrong_sums, r.our_wrong_sums),
                                                                         (r.wrong_facts, r.our_wrong_facts))]
        spread = ('', '', '') if r.seeds == 1 else (f'{r.low:.4f} to {r.high:.4f}', f'{r.outside:.0%}',
                                                    f'{r.outside_by_chance:.0%}')
        cells = (r.sweep, r.config, r.seeds, f'{r.iter:,.0f}', f'{r.loss:.4f}', f'{r.our_loss:.4f}', *spread, *wrong)
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    return '\n'.join(lines)


def draw(panels):
    """A figure with accuracies above the loss for each panel: (config, the authors' run, our runs)."""
    n_columns = min(3, len(panels))
    n_rows, width = -(-len(panels) // 3), max(6.5, 4 * n_columns)
    figure, axes = plt.subplots(2 * n_rows, n_columns, figsize=(width, 5 * n_rows), sharex=True, squeeze=False,
                                layout='constrained')
    for i, (config, theirs, ours) in enumerate(panels):
        top, bottom = axes[2 * (i // 3):2 * (i // 3) + 2, i % 3]
        stop = ours[0].iter.iloc[-1]
        theirs = theirs[theirs.iter <= 2 * stop]  # if ours stopped early, theirs go on for as long again
        for measure, theirs_curve in curves(theirs).items():
            ax = bottom if measure == 'loss' else top
            seeds = pd.DataFrame([curves(run)[measure] for run in ours])
            colour, _ = STYLES[measure]
            if len(ours) > 1:
                ax.fill_between(seeds.columns, seeds.min(), seeds.max(), color=colour, alpha=0.35, linewidth=0)
            else:
                ax.plot(seeds.T, color=colour, alpha=0.35, linewidth=4)
            ax.plot(theirs_curve, color=colour, linewidth=1.2)
            if measure == 'loss':  # the fall from the loss of an untrained model would hide the rest
                ax.set_ylim(0.95 * min(theirs_curve.min(), seeds.min().min()), 1.1 * theirs_curve.loc[:1000].iloc[-1])
        stopped = f', {stop:,.0f} iterations' if stop < theirs.iter.max() else ''
        top.set(title=f'{run_label(config)} ({seeds_label(len(ours))}{stopped})', ylim=(-3, 103))
        if i % 3 == 0:
            top.set_ylabel('accuracy (%)')
            bottom.set_ylabel('training loss\n(nats per character)')
        bottom.xaxis.set_major_formatter(ITERATIONS)
        for ax in (top, bottom):
            ax.grid(alpha=0.25)
    for ax in axes.flat:
        ax.set_visible(ax.has_data())
    for ax in axes[-1]:
        ax.set_xlabel('iteration')
    handles = [Line2D([], [], color=colour, label=name) for measure, (colour, name) in STYLES.items()
               if any(measure in curves(theirs) for _, theirs, _ in panels)]
    one = all(len(ours) == 1 for _, _, ours in panels)
    handles += [Line2D([], [], color='black', linewidth=1.2, label="the authors' run"),
                Line2D([], [], color='#aaaaaa', linewidth=4, label='our seed') if one else
                Patch(color='#bbbbbb', label='our seeds, from the lowest to the highest')]
    figure.legend(handles=handles, loc='outside lower center', ncols=3, frameon=False)
    return figure


def draw_replay(theirs, ours):
    """The losses of paper/replay.py, with the authors' and with those of our seeds."""
    with explained("results/replay.csv cannot be read ({}): run paper/replay.py"):
        table = pd.read_csv(RESULTS / 'replay.csv')
    figure, ax = plt.subplots(figsize=(7, 4.2), layout='constrained')
    for i, run in enumerate(ours):
        ax.plot(run.iter, run.train_loss, color='#999999', linewidth=0.8, label='our seeds' if i == 0 else None)
    ax.plot(theirs.iter, theirs.train_loss, color='black', linewidth=1.8, label="the authors' run")
    for (batches, dtype), run in table.groupby(['batches', 'dtype'], sort=False):
        ax.plot(run.iter, run.train_loss, color={'theirs': '#D55E00', 'other': '#0072B2'}[batches], linewidth=1.8,
                linestyle='--' if dtype == 'bfloat16' else '-',
                label=f"our model, {batches.removesuffix('s')} batches, {dtype}")
    ax.set(xlim=(400, table.iter.max()), ylim=(0.75, 1.7), xlabel='iteration',
           ylabel='training loss (nats per character)',
           title="capitals, width 14, replayed from the authors' initial weights")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    return figure


if __name__ == '__main__':
    argument_parser(__doc__).parse_args()
    with explained("results/authors_curves.csv cannot be read ({}): take the committed one"):
        authors, rows = pd.read_csv(RESULTS / 'authors_curves.csv'), []
    for name, source in SWEEPS.items():
        panels = []
        for config, runs in read_sweep(RESULTS / name).items():
            theirs, ours = authors[(authors.sweep == source) & (authors.config == config)], list(runs.values())
            panels.append((config, theirs, ours))
            rows.append({'sweep': name, 'config': config, **compare(theirs, ours)})
            if (name, config) == ('paper', 'facts_mini_14'):
                save(draw_replay(theirs, ours), RESULTS / 'replay.png')
        save(draw(panels), RESULTS / name / 'authors.png')
    write_file(RESULTS / 'authors_against_ours.csv', pd.DataFrame(rows).to_csv(index=False, float_format='%.6g'))
    write_file(RESULTS / 'authors_against_ours.md', markdown(pd.read_csv(RESULTS / 'authors_against_ours.csv')) + '\n')
    for task, sign in (('add', '+'), ('sub', '-')):
        few = authors[authors[f'{task}_total'] - authors[f'{task}_correct'] < 20].query(f'{task}_total > 0')
        print("\nevaluations of the authors with fewer than 20 of 910 samples wrong, so\n"
              f"5{sign}7 or 7{sign}5 was answered:")
        for (name, config), iters in few.groupby(['sweep', 'config']).iter:
            listed = f": {', '.join(map(str, iters))}" if len(iters) < 9 else ''
            print(f"{name} {config}: {len(iters)} of 121{listed}")
