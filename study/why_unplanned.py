"""
What was looked for in the data of the second study (study/why.md) and not planned: more rows of numbers.csv.

Does the slope of experiment B depend on one base, split or seed, on how its two widths are defined, or on passes? What
does a load of experiment C change, compared with no load? Do runs of both studies with the same settings agree? And
does weight decay help in experiment D?
"""

from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from study import why_base, why_load
from study.curves import accuracy_at, width_of_fall, width_of_memory
from study.datasets import BASES
from study.families import main_at
from study.inference import mean_row
from study.runs import add_numbers
from study.why_runs import SWEEPS, measure_each
from study.why_time import DECAYS, READ, WIDTHS, accuracies


def fall_to(level, widths, curves):
    """Where held-out accuracy comes down to a level, instead of a fraction of its maximum: a width for each curve."""
    maximum = np.max(curves, axis=-1)
    return width_of_fall(widths, curves, least_maximum=level, fraction=level / np.maximum(maximum, level))


DEFINITIONS = {f'fall to {percent}% of the maximum': dict(fall=partial(width_of_fall, fraction=percent / 100))
               for percent in (30, 40, 60, 70)}
DEFINITIONS |= {f'memory at {percent}%': dict(memorised=partial(width_of_memory, level=percent / 100))
                for percent in (60, 70, 90)}
DEFINITIONS['fall to 20% right'] = dict(fall=partial(fall_to, 0.2))
DEFINITIONS_FROM_12 = {f'fall to {percent}% right, bases 12 to 24': dict(fall=partial(fall_to, percent / 100))
                       for percent in (20, 30, 40, 50)}  # base 8 never has more than 27%


def slope_row(condition, curves, fall=width_of_fall, memorised=width_of_memory):
    """The row of numbers.csv of a slope. curves: of why_base.curves_of; fall, memorised: how the widths are defined."""
    widths = ({base: width(why_base.WIDTHS, curve) for base, curve in of_bases.items()}
              for width, of_bases in zip((fall, memorised), curves))
    values, bases = why_base.slope_of(*widths)
    return why_base.percentile_row('slope (not planned)', values, condition=condition, unit='slope', n=bases,
                                   test='bootstrap')


def slope_rows(runs, shuffled):
    """Rows of numbers.csv: the slope without each base, split and seed, and with other definitions of its widths."""
    whole, smallest = why_base.curves_of(runs, shuffled), min(BASES)
    from_12 = why_base.curves_of(runs[runs.base > smallest], shuffled[shuffled.base > smallest])
    parts = {f'without base {base}': (runs[runs.base != base], shuffled) for base in BASES}
    parts |= {f'without split {split}': (runs[runs.split != split], shuffled) for split in sorted({*runs.split})}
    parts |= {f'without seed {seed} of the shuffled answers': (runs, shuffled[shuffled.split != seed])
                for seed in sorted({*shuffled.split})}
    return [*(slope_row(condition, why_base.curves_of(*tables)) for condition, tables in parts.items()),
            *(slope_row(condition, whole, **definitions) for condition, definitions in DEFINITIONS.items()),
            *(slope_row(condition, from_12, **definitions) for condition, definitions in DEFINITIONS_FROM_12.items())]


def at_equal_passes(results):
    """When the lines of a run have been trained on as often as those of the largest base in the end: its accuracies.

    results: read_results. Returns a row for each run, with the columns base, n_embd, split and those two measures of
    why_base.measure_runs of which slopes are made; here, they are the fractions of samples that are right,
    interpolated linearly between evaluations.
    """
    rows = []
    for (dataset, n_embd, split), run in results.groupby(['dataset', 'n_embd', 'split']):
        base = int(dataset.split('_')[1])
        iters = SWEEPS['why_base'].iters * (base / max(BASES)) ** 2  # a table has its base squared times as many lines
        rows.append(dict(base=base, n_embd=n_embd, split=split) | {
            measure: np.interp(iters, run.iter, run[column]) for measure, column in (
                ('held-out accuracy', 'heldout_acc'), ('accuracy on shuffled answers', 'seen_acc'))})
    return pd.DataFrame(rows)


def equal_passes_rows(results):
    """Rows of numbers.csv: the slope at equal passes, and the maximum over the widths there. results: {sweep: rows}."""
    runs, shuffled = (at_equal_passes(results[name]) for name in ('why_base', 'why_shuffled'))
    curves = why_base.curves_of(runs, shuffled)
    return [slope_row('at equal passes', curves),
            *why_base.maximum_rows('maximum over the widths at equal passes (not planned)', runs, curves[0])]


def without_load(first, time_runs):
    """Held-out accuracy after 30,000 iterations without a load, of experiment C's split and otherwise its settings.

    Returns {where the runs are from: {width: a Series over the splits}}. first: answers of read_study; time_runs: of
    experiment D's runs, of which those without weight decay are meant; None for no runs.
    """
    sources = {}
    if first is not None:
        last = main_at(first, 20)
        last = last[(last.when == 'last') & (last.group == 'held out')]
        sources['the first study'] = {width: last[last.n_embd == width].groupby('split').right.mean()
                                      for width in why_load.LOADS}
    if time_runs is not None:
        sources['experiment D'] = {width: accuracies(time_runs, width, 0, '30000') for width in why_load.LOADS}
    return sources


def load_rows(measured, without):
    """Rows of numbers.csv: held-out accuracy with each load minus that without any, in the splits of both.

    measured: {sweep: why_load.measure_runs}, None for no runs. without: as without_load gives it.
    """
    numbers = []
    for (source, none), width in product(without.items(), why_load.LOADS):
        runs = measured[f'why_load_{width}']
        for kind in () if runs is None else ('random', 'regular'):
            difference = (runs[runs.kind == kind].set_index('split')['held-out accuracy'] - none[width]).dropna()
            numbers.append(mean_row(f'held-out accuracy minus that without a load in {source} (not planned)',
                                    difference, experiment='C', condition=f'{kind} load, width {width}', unit='%'))
    return numbers


def repeated_rows(without):
    """Rows of numbers.csv: experiment D's runs without weight decay at 30,000 iterations minus the first study's.

    Their settings are the same, but the training step has been rewritten in between. without: as of without_load.
    """
    if not {'experiment D', 'the first study'} <= without.keys():
        return []
    differences = {width: (without['experiment D'][width] - without['the first study'][width]).dropna()
                   for width in why_load.LOADS}
    return [mean_row('held-out accuracy at 30,000 minus that of the first study (not planned)', values, experiment='D',
                     condition=f'width {width}, decay 0', unit='%') for width, values in differences.items()
            if len(values)]


def decay_rows(time_runs):
    """Rows of numbers.csv: what weight decay changes in experiment D's held-out predictions, at 30,000 and at the end.

    How many are off by one, and of this and of accuracy the difference between each weight decay and none.
    """
    times, run_of = ('30000', 'last'), ['when', 'n_embd', 'weight_decay', 'split']
    runs = add_numbers(time_runs[time_runs.when.isin(times)])
    measured = measure_each(runs, run_of, why_load.measure_run)
    numbers = []
    for when, width, decay in product(times, WIDTHS, DECAYS):
        of_width = measured[(measured.when == when) & (measured.n_embd == width)].set_index('split')
        one, none = (of_width[of_width.weight_decay == x] for x in (decay, 0))
        same = dict(experiment='D', condition=f'width {width}, decay {decay:g}, {READ[when]:,} iterations', unit='%')
        if len(one):
            numbers += [mean_row(f'{name} (not planned)', one[name], **same)
                        for name in ('off by one', 'off by one, answers dealt anew')]
        if decay and len(one) and len(none):
            numbers += [mean_row(f'{name} minus that without weight decay (not planned)',
                                 (one[name] - none[name]).dropna(), **same)
                        for name in ('held-out accuracy', 'off by one')]
    return numbers


def expected_rows(measured):
    """Rows of numbers.csv: what experiment B lets expect of experiment C, its held-out accuracy where as much is
    memorised.

    That is at the width at which models of a base learn as large a fraction of the shuffled answers as with the load.
    """
    numbers = []
    for width in why_load.LOADS:
        loads = measured[f'why_load_{width}']
        if loads is None:
            continue
        learnt = loads.loc[loads.kind == 'shuffled', 'training accuracy, all lines'].mean()
        for base in BASES:
            accuracy = why_base.table_of(measured['why_base'], 'held-out accuracy', base)
            memory = why_base.table_of(measured['why_shuffled'], 'accuracy on shuffled answers', base)
            if len(accuracy) and len(memory):
                as_much = width_of_memory(why_base.WIDTHS, memory.mean(axis=0), learnt)
                numbers.append(dict(experiment='C', name='held-out accuracy where as much is memorised (not planned)',
                                    unit='%', n=len(accuracy),
                                    condition=f'base {base}, as with the load of width {width}',
                                    value=accuracy_at(as_much, why_base.WIDTHS, accuracy.mean(axis=0))))
    return numbers


def unplanned_numbers(measured, results, first, time_runs):
    """The rows of numbers.csv that were not planned.

    measured: {sweep: measure_runs} of experiments B and C; results: {sweep: read_results}; None for no runs. first,
    time_runs: as without_load takes them.
    """
    numbers, without = [], without_load(first, time_runs)
    if measured['why_base'] is not None and measured['why_shuffled'] is not None:
        numbers += slope_rows(measured['why_base'], measured['why_shuffled'])
        numbers += equal_passes_rows(results)
        numbers += expected_rows(measured)
    numbers += load_rows(measured, without) + repeated_rows(without)
    return numbers + ([] if time_runs is None else decay_rows(time_runs))
