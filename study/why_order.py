"""
Experiment A of study/why.md: one order of a pair is held out and the other is trained on. Does a model know that 3+8
is 8+3?

It is compared with the first study's runs, which held out both orders, on the very same questions.
"""

import pandas as pd

from common.errors import UserError
from study.inference import family, mean_row, sign_flips
from study.runs import WIDTHS, add_numbers

WIDE, GAIN = (28, 56), 0.3  # "if neither order is shown" is needed if these widths gain so much
NEEDED = 'wide models memorise if neither order is shown'
NOT_NEEDED = 'wide models memorise, also if the other order is shown'


def measures(held_out):
    """A row for each run, (n_embd, split): the fractions of its held-out questions that are right, or predicted b-a."""
    held_out = held_out.assign(other_order=held_out.right_number + held_out.error == -held_out.right_number)
    add, sub = (held_out[held_out.task == task].groupby(['n_embd', 'split']) for task in ('add', 'sub'))
    return pd.DataFrame({'additions': add.right.mean(), 'subtractions': sub.right.mean(),
                         "predicted b-a for a-b": sub.other_order.mean()})


def compare(runs, first, percent, questions):
    """The measures of both kinds of runs: (one order held out, both orders held out), on the same questions.

    first: answers of the first study, of read_study; percent: which of its runs. questions: how many each run must
    share with them, so that a wrong dataset is noticed.
    """
    one = add_numbers(runs[(runs.group == 'held out') & (runs.when == 'last')])
    both = first[(first.study == 'main') & (first.share == percent)]
    both = both[(both.group == 'held out') & (both.when == 'last')]
    run, keys = ['n_embd', 'split'], ['n_embd', 'split', 'prompt']
    in_both = one[run].drop_duplicates().merge(both[run].drop_duplicates())
    one, both = one.merge(both[keys]), both.merge(one[keys])
    if (one.groupby(run).size().reindex(pd.MultiIndex.from_frame(in_both), fill_value=0) != questions).any():
        raise UserError("the runs of why_order do not ask the questions of the first study: train them on the datasets "
                        "that study/datasets.py writes")
    return measures(one), measures(both)


def by_width(one, both, note=''):
    """Rows of numbers.csv: each measure of both kinds of runs and their difference, by width; additions are tested."""
    numbers = []
    for name in one:
        difference = (one[name] - both[name]).dropna()
        conditions = {'one order held out': one[name], 'both orders held out': both[name], 'difference': difference}
        numbers += [mean_row(name + note, values[values.index.get_level_values('n_embd') == width].dropna(),
                             experiment='A', condition=condition, n_embd=width, unit='%')
                    for width in WIDTHS for condition, values in conditions.items()]
    return [number for number in numbers if number['n']]


def decide(gains):
    """The verdict of the plan, from the mean gains in accuracy on additions of the wide widths."""
    return NEEDED if all(round(gain, 9) >= GAIN for gain in gains) else NOT_NEEDED


def order_numbers(runs, first):
    """The rows of numbers.csv of experiment A, from its runs' answers and the first study's."""
    one, both = compare(runs, first, 20, 20)
    numbers = by_width(one, both)
    gains = (one.additions - both.additions).dropna()
    tests = family([mean_row('gain on additions', values, experiment='A', condition=f'width {width}', unit='%',
                             p=sign_flips(values), test='sign flips') for width in WIDTHS
                    for values in [gains[gains.index.get_level_values('n_embd') == width]]])
    final = runs[(runs.when == 'last') & (runs.group == 'seen')].groupby(['n_embd', 'split']).right.mean()
    numbers += [mean_row('training accuracy', values, experiment='A', condition='one order held out', n_embd=width,
                         unit='%')
                for width, values in final.groupby('n_embd')]
    numbers += by_width(*compare(runs, first, 10, 10), note=', 10 % held out in both (not planned)')
    verdict = decide(gains.groupby('n_embd').mean().reindex(WIDE))
    return [dict(experiment='A', name='verdict', verdict=verdict), *tests, *numbers]
