"""
Experiment E of study/why.md: fewer examples among as many lines. Does width 20 answer held-out questions in a large
table because there is more to memorise, or because there are more examples of the rule?
"""

import pandas as pd

from study.datasets import ALL_EXAMPLES, BASES, EXAMPLES, MORE_EXAMPLES
from study.inference import family, mean_row, sign_flips
from study.why_base import add_letter_numbers
from study.why_load import EFFECT, FITTED, HOLDS, HOLDS_NOT, MOST_LEARNT, measure_run, verdict_rows
from study.why_runs import measure_each

PRIMARY_WIDTH = 20
KINDS = {'random': 'random load', 'regular': 'regular load', 'none': 'no load'}  # in a dataset's name: how it is called
WHOLE_TABLE = f'{ALL_EXAMPLES} examples'  # the condition of experiment B's runs of base 24
DIFFERENCES = {  # of held-out accuracies: how they are called; all: all examples, as many: as many examples per digit
    ('random', 'regular'): 'random minus regular load', ('random', 'none'): 'random minus no load',
    ('all', 'random'): 'all examples minus these with the random load',
    ('none', 'as many'): 'no load minus the base with as many examples per digit'}
MEASURES = ['held-out accuracy', 'training accuracy, arithmetic', 'accuracy on the load', 'off by one',
            'off by one, answers dealt anew']


def measure_runs(answers):
    """A row for each run, with the columns examples, kind (of load), n_embd, split and its measures."""
    last = add_letter_numbers(answers[answers.when == 'last'], BASES[-1])
    parts = last.dataset.str.split('_')
    last = last.assign(examples=parts.str[1].astype(int), kind=parts.str[2])
    return measure_each(last, ['examples', 'kind', 'n_embd', 'split'], measure_run)


def base_with_as_many(n):
    """The base whose training questions are as many per digit as n examples of the largest base."""
    return n * BASES[-1] // ALL_EXAMPLES


def difference_rows(runs, bases):
    """How held-out accuracy differs between loads, and from experiment B's, for each number of examples and width.

    runs: measure_runs of all. bases: why_base.measure_runs of experiment B, or None. Returns rows of numbers.csv, by
    (examples, width, *key of DIFFERENCES).
    """
    rows = {}
    for (n, width), table in runs.groupby(['examples', 'n_embd']):
        held_out = {kind: part.set_index('split')['held-out accuracy'] for kind, part in table.groupby('kind')}
        for key, base in () if bases is None else (('all', BASES[-1]), ('as many', base_with_as_many(n))):
            part = bases[(bases.base == base) & (bases.n_embd == width)]
            held_out |= {key: part.set_index('split')['held-out accuracy']} if len(part) else {}
        for pair, name in DIFFERENCES.items():
            if {*pair} <= held_out.keys():
                difference = (held_out[pair[0]] - held_out[pair[1]]).dropna()
                row = mean_row(f'held-out accuracy, {name}', difference, experiment='E', unit='%',
                               condition=f'{n} examples, width {width}')
                if (width, *pair) == (PRIMARY_WIDTH, 'random', 'regular'):
                    row |= dict(p=sign_flips(difference, 'greater'), test='sign flips, one-sided')
                rows[(n, width, *pair)] = row
    return rows


def prediction_rows(rows):
    """The row with the verdict on what was predicted for more examples, if they are there. rows: difference_rows."""
    predicted = [(n, PRIMARY_WIDTH, 'none', 'as many') for n in MORE_EXAMPLES]
    if not {*predicted} <= rows.keys():
        return []
    holds = all(abs(round(rows[key]['value'], 9)) <= EFFECT for key in predicted)
    return [dict(experiment='E', name='prediction', verdict=HOLDS if holds else HOLDS_NOT)]


def example_verdicts(runs, shuffled, tests):
    """The rows with the plan's verdicts; [] without the runs that they need.

    runs: measure_runs of the primary width. shuffled: why_base.measure_runs of shuffled answers, or None. tests: rows.
    """
    if shuffled is None or len(tests) < len(EXAMPLES):
        return []
    learnt = shuffled[(shuffled.base == BASES[-1]) & (shuffled.n_embd == PRIMARY_WIDTH)]['accuracy on shuffled answers']
    fits = runs.groupby(['kind', 'examples'])['training accuracy, arithmetic'].mean() >= FITTED
    return verdict_rows('E', tests, learnt.mean() <= MOST_LEARNT and fits['regular'].all(), fits['random'].all())


def example_numbers(measured):
    """The rows of numbers.csv of experiment E. measured: {sweep: measure_runs}, of B's sweeps and its own."""
    tables = [measured[name] for name in measured if name.startswith('why_examples') and measured[name] is not None]
    if not tables:
        return []
    runs, bases = pd.concat(tables, ignore_index=True), measured['why_base']
    rows = difference_rows(runs, bases)
    tests = family([row for row in rows.values() if 'p' in row])
    numbers = [mean_row(name, part[name], experiment='E', n_embd=width, unit='%',
                        condition=f'{n} examples, {KINDS[kind]}')
               for name in MEASURES for (n, kind, width), part in runs.groupby(['examples', 'kind', 'n_embd'])
               if part[name].notna().any()]
    if bases is not None:
        whole = bases[(bases.base == BASES[-1]) & bases.n_embd.isin(runs.n_embd)]
        numbers += [mean_row('held-out accuracy', part, experiment='E', condition=WHOLE_TABLE, n_embd=width, unit='%')
                    for width, part in whole.groupby('n_embd')['held-out accuracy']]
    verdicts = example_verdicts(runs[runs.n_embd == PRIMARY_WIDTH], measured['why_shuffled'], tests)
    return [*verdicts, *prediction_rows(rows), *tests, *(row for row in rows.values() if 'p' not in row), *numbers]
