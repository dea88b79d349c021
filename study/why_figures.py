"""
The figures of the second study (study/why.md): one for each experiment, from the rows of numbers.csv, and two whole
tables of experiment B. Only those whose runs are there are drawn.
"""

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from common.pictures import WRONG, plt, log_axis
from common.questions import operands
from study.datasets import ALL_EXAMPLES, BASES, EXAMPLES, MORE_EXAMPLES
from study.why_examples import KINDS, WHOLE_TABLE, base_with_as_many
from study.why_load import LOADS, MOST_LEARNT
from study.why_time import DECAYS, READ
from study.why_time import WIDTHS as TIME_WIDTHS

BLUE, ORANGE, GREY = '#0072B2', '#E69F00', '#777777'  # Okabe & Ito's colours, which colour-blind readers tell apart
NOTE = 'mean over splits, 95% interval'
TABLES = (12, 24)  # the bases of which one run is shown whole


def draw_means(ax, x, means, **style):
    """The means of some rows and their intervals, in per cent, at the places x."""
    value, low, high = (100 * means[column].fillna(means.value).to_numpy() for column in ('value', 'low', 'high'))
    ax.errorbar(x, value, yerr=[value - low, high - value], capsize=2.5, markersize=5, linewidth=1.4, **style)
    ax.set(ylim=(-3, 103))
    ax.grid(alpha=0.25)


def draw_order(numbers):
    """Experiment A: accuracy over the width if one order or both are held out, for additions and for subtractions."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout='constrained')
    styles = {'one order held out': dict(color=BLUE, marker='o'),
              'both orders held out': dict(color=ORANGE, marker='^', linestyle='--')}
    for ax, name in zip(axes, ('additions', 'subtractions')):
        for condition, style in styles.items():
            means = numbers[(numbers.name == name) & (numbers.condition == condition)].sort_values('n_embd')
            aside = 1.025 if condition == 'one order held out' else 1 / 1.025  # intervals side by side
            draw_means(ax, aside * means.n_embd, means, label=f'{condition}, right', **style)
        splits = sorted({*numbers[(numbers.name == name)].n.astype(int)})
        ax.set(title=f"Ten held-out {name} ({' to '.join(map(str, dict.fromkeys([splits[0], splits[-1]])))} splits)")
        log_axis(ax, sorted(means.n_embd.astype(int)))
    other = numbers[(numbers.name == 'predicted b-a for a-b') & (numbers.condition == 'one order held out')]
    draw_means(axes[1], other.n_embd, other, label='one order held out, predicted b-a for a-b', color=GREY, marker='s',
               linestyle=':')
    axes[0].set_ylabel(f'per cent of the ten questions\n{NOTE}')
    figure.legend(*axes[1].get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return figure


def draw_base(numbers):
    """Experiment B: held-out accuracy against the width, a line for each base, and against what it memorises."""
    figure, axes = plt.subplots(1, 2, figsize=(10.4, 4.4), sharey=True, layout='constrained')
    for i, base in enumerate(BASES):
        of_base = numbers[numbers.condition == f'base {base}'].set_index('n_embd').sort_index()
        means, memory = (of_base[of_base.name == name]
                         for name in ('held-out accuracy', 'accuracy on shuffled answers'))
        style = dict(color=plt.get_cmap('viridis')(i / len(BASES)), marker='o^svD'[i], label=f'{base}')
        draw_means(axes[0], means.index, means, **style)
        both = means.index.intersection(memory.index)
        if len(both):
            x, low, high = (100 * memory[column][both] for column in ('value', 'low', 'high'))
            draw_means(axes[1], x, means.loc[both], xerr=[x - low, high - x], **style)
    log_axis(axes[0], sorted(numbers[numbers.name == 'held-out accuracy'].n_embd.dropna().unique().astype(int)))
    axes[0].set(ylabel=f'held-out accuracy (%)\n{NOTE}', title='against the width')
    axes[1].set(xlabel='accuracy on shuffled answers at this width (%)', title='against what this width memorises')
    figure.legend(*axes[0].get_legend_handles_labels(), title='base of\nthe table', loc='outside right center',
                  frameon=False)
    return figure


def draw_tables(answers):
    """Experiment B: which additions of a small and of a large table width 20 answers right, in the first split.

    answers: those of one run for each of the two bases, as read_runs gives them.
    """
    cases = {('seen', True): ('in the training text, right', '#e4e4e4'), ('held out', True): ('held out, right', BLUE),
             ('held out', False): ('held out, wrong', WRONG), ('seen', False): ('in the training text, wrong', GREY)}
    colours = ListedColormap([colour for _, colour in cases.values()])
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 5.3), layout='constrained')
    for ax, base in zip(axes, TABLES):
        table = answers[answers.dataset == f'base_{base}']
        grid = np.full((base, base), np.nan)
        for pair, *case in zip(operands(table.prompt), table.group, table.right):
            grid[pair] = [*cases].index(tuple(case))
        ax.imshow(grid, cmap=colours, vmin=-0.5, vmax=len(cases) - 0.5)
        ax.set_xticks(np.arange(-0.5, base), [])
        ax.set_yticks(np.arange(-0.5, base), [])
        ax.grid(color='white', linewidth=12 / base)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        held_out = table.right[table.group == 'held out']
        ax.set(title=f'base {base}: {held_out.sum()} of {len(held_out)} held-out additions right', xlabel='b',
               ylabel='a')
    shown = {*zip(answers.group, answers.right)}
    figure.legend(handles=[Patch(color=colour, label=label) for case, (label, colour) in cases.items()
                           if case in shown],
                  loc='outside lower center', ncols=4, frameon=False)
    return figure


def draw_load(numbers):
    """Experiment C: accuracies with a random and with a regular load, a panel for each width."""
    measures = {'held-out accuracy': 'held out,\nright', 'off by one': 'held out,\noff by one',
                'training accuracy, arithmetic': 'arithmetic,\ntraining', 'accuracy on the load': 'load'}
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout='constrained')
    for ax, (width, lines) in zip(axes, LOADS.items()):
        for shift, kind, style in ((-0.1, 'random', dict(color=BLUE, marker='o')),
                                   (0.1, 'regular', dict(color=ORANGE, marker='^'))):
            means = numbers[(numbers.n_embd == width) & (numbers.condition == kind)].set_index('name').reindex(measures)
            draw_means(ax, np.arange(len(measures)) + shift, means, linestyle='', label=f'{kind} load', **style)
        shuffled = numbers[(numbers.n_embd == width) & (numbers.condition == 'shuffled')
                           & (numbers.name == 'training accuracy, all lines')]
        draw_means(ax, [len(measures)] * len(shuffled), shuffled, linestyle='', color=GREY, marker='s',
                   label='random load and shuffled answers')
        ax.plot([len(measures) - 0.3, len(measures) + 0.3], [100 * MOST_LEARNT] * 2, color=GREY, linestyle=':')
        ax.set_xticks(range(len(measures) + 1), [*measures.values(), 'all lines,\nshuffled'], fontsize=9)
        ax.set(title=f'width {width}, {lines} lines of load')
    axes[0].set_ylabel(f'questions (%)\n{NOTE}')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3, frameon=False)
    return figure


def draw_time(numbers):
    """Experiment D: held-out accuracy at three iterations, a panel for each width and a line for each weight decay."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout='constrained')
    for ax, width in zip(axes, TIME_WIDTHS):
        for decay, aside, colour, marker in zip(DECAYS, (0.96, 1, 1.04), (BLUE, ORANGE, GREY), 'o^s'):
            means = numbers[(numbers.name == f'held-out accuracy, decay {decay:g}') & (numbers.n_embd == width)]
            iters = means.condition.str.replace(',', '').str.split().str[0].astype(int)
            draw_means(ax, aside * iters, means, color=colour, marker=marker, label=f'{decay:g}')  # side by side
        ax.set(title=f'width {width}')
        log_axis(ax, [*READ.values()], xlabel='iteration')
    axes[0].set_ylabel(f'held-out accuracy (%)\n{NOTE}')
    figure.legend(*axes[0].get_legend_handles_labels(), title='weight\ndecay', loc='outside right center',
                  frameon=False)
    return figure


def draw_examples(numbers):
    """Experiment E: held-out accuracy against the number of examples with each load, a panel for each width.

    Beside it are experiment B's tables with as many examples per digit.
    """
    numbers, counts = numbers[numbers.name == 'held-out accuracy'], [*EXAMPLES, *MORE_EXAMPLES, ALL_EXAMPLES]
    series = {label: {n: f'{n} examples, {label}' for n in counts[:-1]} for label in KINDS.values()}
    series['no load'][ALL_EXAMPLES] = WHOLE_TABLE
    series['smaller bases, as many examples per digit'] = {n: f'base {base_with_as_many(n)}' for n in counts}
    styles = (dict(color=BLUE, marker='o', linestyle='--'), dict(color=ORANGE, marker='^', linestyle='--'),
              dict(color='black', marker='s'), dict(color=GREY, marker='D', linestyle=':'))
    widths = sorted(numbers[numbers.experiment == 'E'].n_embd.unique().astype(int))
    figure, axes = plt.subplots(1, len(widths), figsize=(10.4, 4.2), sharey=True, layout='constrained', squeeze=False)
    for ax, width in zip(axes[0], widths):
        of_width = numbers[numbers.n_embd == width].set_index('condition')
        for i, ((label, conditions), style) in enumerate(zip(series.items(), styles)):
            there = {n: condition for n, condition in conditions.items() if condition in of_width.index}
            draw_means(ax, np.array([*there]) + 8 * (i - 1.5), of_width.loc[there.values()], label=label, **style)
        ax.set(title=f'width {width}', xlabel='examples in base 24\n(per digit)')
        ax.set_xticks(counts, [f'{n}\n({n // BASES[-1]})' for n in counts])
    axes[0, 0].set_ylabel(f'held-out accuracy (%)\n{NOTE}')
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False)
    return figure


def figures(numbers, base_answers):
    """The figures by name. base_answers: read_runs of why_base, or None."""
    drawers = {'order': ('A', draw_order), 'base': ('B', draw_base), 'load': ('C', draw_load), 'time': ('D', draw_time),
               'examples': ('EB', draw_examples)}  # which also draws some of experiment B
    measures = numbers[numbers.n_embd.notna()]
    drawn = {name: draw(measures[measures.experiment.isin([*experiments])])
             for name, (experiments, draw) in drawers.items() if (measures.experiment == experiments[0]).any()}
    if base_answers is not None:
        first = base_answers[(base_answers.n_embd == 20) & (base_answers.split == 0) & (base_answers.task == 'a+b')
                             & base_answers.dataset.isin([f'base_{base}' for base in TABLES])]
        drawn |= {'tables': draw_tables(first)} if first.dataset.nunique() == len(TABLES) else {}
    return drawn
