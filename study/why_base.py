"""
Experiment B of study/why.md: how much there is to learn. Does the width at which held-out accuracy falls move with the
base of the tables, as the width that can memorise as many shuffled answers does?
"""

import numpy as np
import pandas as pd

from study.curves import resampled_means, width_of_fall, width_of_memory
from study.datasets import BASES, LETTERS
from study.families import blocks
from study.inference import dealt_anew_within, family, mean_row, page
from study.why_runs import measure_each

WIDTHS, CONTROL_WIDTHS = [8, 10, 12, 14, 20, 28, 40, 56], [14, 20, 28]
PARTS = {'': ['a+b', 'a-b'], ', additions': ['a+b'], ', subtractions': ['a-b']}  # how names end: tasks
LEAST_BASES = 3
CAPACITY, WIDTH = 'capacity decides', 'width decides'
BETWEEN = 'capacity moves the fall, but not in proportion'
AGAINST, UNDECIDED = 'the fall moves against capacity, which the plan did not foresee', 'undecided'


def from_letters(text, base):
    """The number that letters mean in a base, e.g. -11 for '-bd' in base 8; NaN if it is none."""
    digits = [LETTERS[:base].find(letter) for letter in text.removeprefix('-')]
    if not digits or min(digits) < 0:
        return np.nan
    number = sum(digit * base ** i for i, digit in enumerate(reversed(digits)))
    return float(-number if text.startswith('-') else number)


def add_letter_numbers(answers, base=None):
    """Answers in letters with three more columns: base, right_number, and error, the predicted number minus that.

    base: of all of them; None: their datasets say it.
    """
    base = base or answers.dataset.str.extract(r'^base_(\d+)')[0].astype(int)
    answers = answers.assign(base=base)
    numbers = {}
    for column in ('answer', 'said'):
        texts = answers[column].str.partition('\n')[0].str.strip()  # a newline ends an answer, too
        pairs = [*zip(texts, answers.base)]
        known = {pair: from_letters(*pair) for pair in {*pairs}}
        numbers[column] = np.array([known[pair] for pair in pairs])
    return answers.assign(right_number=numbers['answer'], error=numbers['said'] - numbers['answer'])


def measure_run(answers):
    """The measures of one run, of each part of its questions: dict of name to number."""
    measures = {}
    for ending, tasks in PARTS.items():
        part = answers[answers.task.isin(tasks)]
        held_out, seen = part[part.group == 'held out'], part[part.group == 'seen']
        if held_out.empty:
            measures |= {f'accuracy on shuffled answers{ending}': seen.right.mean()}
            continue
        dealt_anew = dealt_anew_within(held_out, 'task')
        measures |= {f'held-out accuracy{ending}': held_out.right.mean(),
                     f'training accuracy{ending}': seen.right.mean(),
                     f'right or off by one{ending}': (held_out.error.abs() <= 1).mean(),
                     f'right or off by one, answers dealt anew{ending}': (np.abs(dealt_anew) <= 1).mean()}
    return measures


def measure_runs(answers):
    """A row for each run, with the columns base, n_embd, split and its measures."""
    last = add_letter_numbers(answers[answers.when == 'last'])
    return measure_each(last, ['base', 'n_embd', 'split'], measure_run)


def table_of(runs, measure, base):
    """A measure of a base, array (splits, WIDTHS), of the splits of which every width is there."""
    return blocks(runs[runs.base == base], measure, 'n_embd', WIDTHS).dropna().to_numpy(float)


def slopes(falls, memories):
    """Least-squares slopes of log width of the fall on log width of memory: NaN where fewer than three bases have both.

    falls, memories: arrays (..., bases), NaN where undefined.
    """
    there = np.isfinite(falls) & np.isfinite(memories)
    n = there.sum(axis=-1)
    x, y = (np.where(there, np.log(np.where(there, widths, 1)), 0) for widths in (memories, falls))
    with np.errstate(divide='ignore', invalid='ignore'):
        x, y = (np.where(there, v - (v.sum(axis=-1) / n)[..., None], 0) for v in (x, y))
        return np.where(n >= LEAST_BASES, (x * y).sum(axis=-1) / (x * x).sum(axis=-1), np.nan)


def slope_of(falls, memories):
    """The slope of the data and, after it, those of bootstrap samples: (array, how many bases have both widths).

    falls, memories: {base: width of the data and, after it, of bootstrap samples}; no base in both gives no samples.
    """
    both = [base for base in falls if base in memories]
    if not both:
        return np.array([np.nan]), 0
    falls, memories = (np.stack([widths[base] for base in both], axis=-1) for widths in (falls, memories))
    return slopes(falls, memories), int(np.isfinite(falls[0] * memories[0]).sum())


def decide(low, high, bases):
    """The verdict of the plan, from the interval of the slope and how many bases have both widths."""
    if bases < LEAST_BASES or not np.isfinite([low, high]).all() or low <= 0 <= 1 <= high:
        return UNDECIDED
    if low <= 1 <= high:
        return CAPACITY
    if low <= 0 <= high:
        return WIDTH
    return BETWEEN if low > 0 else AGAINST


def percentile_row(name, values, **columns):
    """A row of numbers.csv from the value of the data and, after it, those of bootstrap samples, as far as defined."""
    there = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(there, [2.5, 97.5]) if len(there) and np.isfinite(values[0]) else (np.nan, np.nan)
    return dict(experiment='B', name=name, value=values[0], low=low, high=high) | columns


def bootstrapped_curves(runs, measure, seed):
    """The mean curve of each base, and after it those of bootstrap samples: dict of base to (1 + samples, widths).

    All bases draw the same splits, as far as they have them. A base without a complete split has no curve.
    """
    tables = {base: table_of(runs, measure, base) for base in BASES}
    return {base: np.vstack([table.mean(axis=0), resampled_means(table, np.random.default_rng(seed))])
            for base, table in tables.items() if len(table)}


def curves_of(runs, shuffled, ending=''):
    """The bootstrapped curves of held-out accuracy and of accuracy on shuffled answers."""
    return (bootstrapped_curves(runs, f'held-out accuracy{ending}', 0),
            bootstrapped_curves(shuffled, f'accuracy on shuffled answers{ending}', 1))


def maximum_rows(name, runs, curves, ending=''):
    """Rows of numbers.csv: the maximum over the widths of held-out accuracy in each base. curves: those of the runs."""
    return [percentile_row(name, curve.max(axis=1), condition=f'base {base}', unit='%',
                           n=len(table_of(runs, f'held-out accuracy{ending}', base))) for base, curve in curves.items()]


def primary(runs, shuffled, ending=''):
    """The widths of the fall and of memory of each base, the slope and the verdict: rows of numbers.csv."""
    accuracy, memory = curves_of(runs, shuffled, ending)
    falls = {base: width_of_fall(WIDTHS, curve) for base, curve in accuracy.items()}
    memories = {base: width_of_memory(WIDTHS, curve) for base, curve in memory.items()}
    numbers = [percentile_row(name + ending, values, condition=f'base {base}', unit='width',
                              n=len(table_of(*table, base)))
               for name, widths, table in (
                   ('width of the fall', falls, (runs, f'held-out accuracy{ending}')),
                   ('width of memory', memories, (shuffled, f'accuracy on shuffled answers{ending}')))
               for base, values in widths.items()]
    numbers += maximum_rows(f'maximum over the widths{ending}', runs, accuracy, ending)
    values, bases = slope_of(falls, memories)
    if len(values) == 1:
        return [dict(experiment='B', name=f'verdict{ending}', verdict=UNDECIDED), *numbers]
    slope = percentile_row(f'slope{ending}', values, unit='slope', n=bases, test='bootstrap')
    lost = dict(experiment='B', name=f'bootstrap samples without a slope{ending}', unit='%',
                value=np.isnan(values[1:]).mean(), n=len(values) - 1)
    verdict = decide(slope['low'], slope['high'], bases)
    return [dict(experiment='B', name=f'verdict{ending}', verdict=verdict), slope, lost, *numbers]


def trends(runs):
    """Page's tests, one family: accuracy of width 14 over the base, and over widths 28, 40, 56 at bases 20 and 24."""
    tests = []
    for ending in PARTS:
        measure = f'held-out accuracy{ending}'
        tables = {'width 14 grows with the base': blocks(runs[runs.n_embd == 14], measure, 'base', BASES)}
        tables |= {f'rises again at base {base}': blocks(runs[runs.base == base], measure, 'n_embd', [28, 40, 56])
                   for base in (20, 24)}
        for name, table in tables.items():
            table = table.dropna()
            value, p = page(table.to_numpy(float))
            tests.append(dict(experiment='B', name=name + ending, value=value, n=len(table), p=p,
                              unit='rank correlation', test='Page, ' + ' < '.join(map(str, table.columns))))
    return family(tests)


def by_width(runs):
    """Every measure of every base and width: rows of numbers.csv."""
    return [mean_row(name, values, experiment='B', condition=f'base {base}', n_embd=width, unit='%')
            for name in runs.columns[3:] for (base, width), values in runs.groupby(['base', 'n_embd'])[name]]


def control_numbers(runs, controls, name, base, others):
    """A control's accuracies, and its held-out accuracy minus that of main runs: rows of numbers.csv.

    base: that of the control. others: the bases of the main runs that it is compared with, split by split.
    """
    numbers = [mean_row(f'{measure}, {name}', values, experiment='B', condition=f'base {base}', n_embd=width, unit='%')
               for measure in ('held-out accuracy', 'training accuracy')
               for width, values in controls.groupby('n_embd')[measure]]
    accuracy = controls.set_index(['n_embd', 'split'])['held-out accuracy']
    for other in others:
        main = runs[runs.base == other].set_index(['n_embd', 'split'])['held-out accuracy']
        numbers += [mean_row(f'held-out accuracy, {name}', values, experiment='B', condition=f'minus base {other}',
                             n_embd=width, unit='%')
                    for width, values in (accuracy - main).dropna().groupby('n_embd')]
    return numbers


def base_numbers(measured):
    """The rows of numbers.csv of experiment B. measured: {sweep: measure_runs} of its four sweeps, None for no runs."""
    none = pd.DataFrame(columns=['base', 'n_embd', 'split'])
    main, shuffled, fewer, more = (none if measured[name] is None else measured[name] for name in (
        'why_base', 'why_shuffled', 'why_fewer_passes', 'why_more_passes'))
    numbers = []
    if len(main) and len(shuffled):
        numbers += [number for ending in PARTS for number in primary(main, shuffled, ending)]
    numbers += (trends(main) if len(main) else []) + by_width(main) + by_width(shuffled)
    if len(main) and len(fewer):
        numbers += control_numbers(main, fewer, '4,800 iterations', 8, [8, 20])
    if len(main) and len(more):
        numbers += control_numbers(main, more, '60,000 iterations', 20, [20])
    return numbers
