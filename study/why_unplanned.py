"""
What was looked for in the data of the second study (study/why.md) and not planned: more rows of numbers.csv.

Does the slope of experiment B depend on one base, split or seed, or on how its two widths are defined? And what does a
load of experiment C change, compared with no load?
"""

from functools import partial

import numpy as np

from study import why_base, why_load
from study.curves import width_of_fall, width_of_memory
from study.datasets import BASES
from study.families import main_at
from study.inference import mean_row


def fall_to(level, widths, curves):
    """Where held-out accuracy comes down to a level, instead of a fraction of its maximum: a width for each curve."""
    return width_of_fall(widths, curves, least_maximum=level, fraction=level / curves.max(axis=-1))


DEFINITIONS = {f'fall to {percent}% of the maximum': dict(fall=partial(width_of_fall, fraction=percent / 100))
               for percent in (30, 40, 60, 70)}
DEFINITIONS |= {f'memory at {percent}%': dict(memorised=partial(width_of_memory, level=percent / 100))
                for percent in (60, 70, 90)}
DEFINITIONS['fall to 20% right'] = dict(fall=partial(fall_to, 0.2))
DEFINITIONS_FROM_12 = {f'fall to {percent}% right, bases 12 to 24': dict(fall=partial(fall_to, percent / 100))
                       for percent in (20, 30, 40, 50)}  # base 8 never has more than 27%


def slope_rows(runs, shuffled):
    """The slope without each base, split and seed, and with other definitions of its widths: rows of numbers.csv.

    runs, shuffled: why_base.measure_runs of both.
    """
    def curves_of(runs, shuffled):
        return (why_base.bootstrapped_curves(runs, 'held-out accuracy', 0),
                why_base.bootstrapped_curves(shuffled, 'accuracy on shuffled answers', 1))

    def row(condition, curves, fall=width_of_fall, memorised=width_of_memory):
        widths = ({base: width(why_base.WIDTHS, curve) for base, curve in of_bases.items()}
                  for width, of_bases in zip((fall, memorised), curves))
        values, bases = why_base.slope_of(*widths)
        return why_base.percentile_row('slope (not planned)', values, condition=condition, unit='slope', n=bases,
                                       test='bootstrap')

    whole, smallest = curves_of(runs, shuffled), min(BASES)
    from_12 = curves_of(runs[runs.base > smallest], shuffled[shuffled.base > smallest])
    without = {f'without base {base}': (runs[runs.base != base], shuffled) for base in BASES}
    without |= {f'without split {split}': (runs[runs.split != split], shuffled) for split in sorted({*runs.split})}
    without |= {f'without seed {seed} of the shuffled answers': (runs, shuffled[shuffled.split != seed])
                for seed in sorted({*shuffled.split})}
    return [*(row(condition, curves_of(*tables)) for condition, tables in without.items()),
            *(row(condition, whole, **definitions) for condition, definitions in DEFINITIONS.items()),
            *(row(condition, from_12, **definitions) for condition, definitions in DEFINITIONS_FROM_12.items())]


def load_rows(answers, first):
    """Held-out accuracy with each load minus that of the first study's runs without any, in the splits of both.

    answers: as load_numbers takes them. first: answers of read_study.
    """
    numbers = []
    for width in why_load.LOADS:
        if answers[f'why_load_{width}'] is None:
            continue
        runs, without = why_load.measure_runs(answers[f'why_load_{width}']), main_at(first, 20)
        without = without[(without.n_embd == width) & (without.when == 'last') & (without.group == 'held out')]
        none = without.groupby('split').right.mean()
        for kind in ('random', 'regular'):
            difference = (runs[runs.kind == kind].set_index('split')['held-out accuracy'] - none).dropna()
            numbers.append(mean_row('held-out accuracy minus that without a load (not planned)', difference,
                                    experiment='C', condition=f'{kind} load, width {width}', unit='%'))
    return numbers


def expected_rows(runs, shuffled, answers):
    """What experiment B lets expect of experiment C: the held-out accuracy in each base where as much is memorised.

    That is where models learn as large a fraction of the shuffled answers as with the load; interpolated linearly.
    """
    numbers = []
    for width in why_load.LOADS:
        if answers[f'why_load_{width}'] is None:
            continue
        loads = why_load.measure_runs(answers[f'why_load_{width}'])
        learnt = loads.loc[loads.kind == 'shuffled', 'training accuracy, all lines'].mean()
        for base in BASES:
            accuracy = why_base.table_of(runs, 'held-out accuracy', base)
            memory = why_base.table_of(shuffled, 'accuracy on shuffled answers', base)
            if len(accuracy) and len(memory):
                expected = np.interp(learnt, memory.mean(axis=0), accuracy.mean(axis=0))
                numbers.append(dict(experiment='C', name='held-out accuracy where as much is memorised (not planned)',
                                    condition=f'base {base}, as with the load of width {width}', unit='%',
                                    value=expected, n=len(accuracy)))
    return numbers


def unplanned_numbers(answers, first):
    """The rows of numbers.csv that were not planned. answers: {sweep: read_runs}; first: answers of read_study,
    which only experiment C needs.
    """
    numbers = []
    if answers['why_base'] is not None and answers['why_shuffled'] is not None:
        runs, shuffled = (why_base.measure_runs(answers[name]) for name in ('why_base', 'why_shuffled'))
        numbers += slope_rows(runs, shuffled) + expected_rows(runs, shuffled, answers)
    return numbers + load_rows(answers, first)
