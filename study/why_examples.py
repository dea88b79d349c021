"""
Experiment E of study/why.md: fewer examples among as many lines. Does width 20 answer held-out questions in a large
table because there is more to memorise, or because there are more examples of the rule?
"""

import pandas as pd

from study.datasets import BASES, EXAMPLES
from study.inference import family, mean_row, sign_flips
from study.why_base import add_letter_numbers
from study.why_load import (COMPETITION, FITTED, HOLDS, HOLDS_NOT, MOST_LEARNT, NO_COMPETITION, decide, measure_run)

PRIMARY_WIDTH = 20
KINDS = {'random': 'random load', 'regular': 'regular load', 'none': 'no load'}  # in a dataset's name: how it is called
ALL_EXAMPLES = '864 examples'  # experiment B's runs of base 24
MEASURES = ['held-out accuracy', 'training accuracy, arithmetic', 'accuracy on the load', 'off by one',
            'off by one, answers dealt anew']


def measure_runs(answers):
    """A row for each run, with the columns examples, kind (of load), n_embd, split and its measures."""
    last = add_letter_numbers(answers[answers.when == 'last'])
    parts = last.dataset.str.split('_')
    last = last.assign(examples=parts.str[1].astype(int), kind=parts.str[2])
    index = ['examples', 'kind', 'n_embd', 'split']
    return pd.DataFrame([dict(zip(index, run)) | measure_run(table) for run, table in last.groupby(index)])


def difference_rows(runs, all_examples):
    """How held-out accuracy differs between loads, and between few and all examples, at each number and width: rows.

    runs: measure_runs of all. all_examples: why_base.measure_runs of the largest base, or an empty DataFrame.
    """
    rows = []
    for (n, width), table in runs.groupby(['examples', 'n_embd']):
        held_out = {kind: part.set_index('split')['held-out accuracy'] for kind, part in table.groupby('kind')}
        if len(all_examples):
            held_out['all'] = all_examples[all_examples.n_embd == width].set_index('split')['held-out accuracy']
        for first, second, name in (('random', 'regular', 'random minus regular load'),
                                    ('random', 'none', 'random minus no load'),
                                    ('all', 'random', 'all examples minus these with the random load')):
            if {first, second} <= held_out.keys():
                difference = (held_out[first] - held_out[second]).dropna()
                rows.append(mean_row(f'held-out accuracy, {name}', difference, experiment='E', unit='%',
                                     condition=f'{n} examples, width {width}'))
                if width == PRIMARY_WIDTH and second == 'regular':
                    rows[-1] |= dict(p=sign_flips(difference, 'greater'), test='sign flips, one-sided')
    return rows


def check_holds(runs, shuffled):
    """The manipulation check of the plan. runs: of the primary width; shuffled: why_base.measure_runs, or None."""
    if shuffled is None:
        return False
    there = shuffled[(shuffled.base == BASES[-1]) & (shuffled.n_embd == PRIMARY_WIDTH)]
    regular = runs[runs.kind == 'regular'].groupby('examples')['training accuracy, arithmetic'].mean()
    return bool(there['accuracy on shuffled answers'].mean() <= MOST_LEARNT and (regular >= FITTED).all())


def example_numbers(measured):
    """The rows of numbers.csv of experiment E. measured: {sweep: measure_runs}, of B's sweeps and its own three."""
    tables = [measured[name] for name in measured if name.startswith('why_examples') and measured[name] is not None]
    if not tables:
        return []
    runs, base = pd.concat(tables, ignore_index=True), measured['why_base']
    all_examples = pd.DataFrame() if base is None else base[(base.base == BASES[-1]) & base.n_embd.isin(runs.n_embd)]
    rows = difference_rows(runs, all_examples)
    tests = family([row for row in rows if 'p' in row])
    numbers = [mean_row(name, part[name], experiment='E', n_embd=width, unit='%',
                        condition=f'{n} examples, {KINDS[kind]}')
               for name in MEASURES for (n, kind, width), part in runs.groupby(['examples', 'kind', 'n_embd'])
               if part[name].notna().any()]
    if len(all_examples):
        numbers += [mean_row('held-out accuracy', part, experiment='E', condition=ALL_EXAMPLES, n_embd=width, unit='%')
                    for width, part in all_examples.groupby('n_embd')['held-out accuracy']]
    primary = runs[runs.n_embd == PRIMARY_WIDTH]
    holds = check_holds(primary, measured['why_shuffled'])
    fitted = primary[primary.kind == 'random'].groupby('examples')['training accuracy, arithmetic'].mean() >= FITTED
    verdicts = {'manipulation check': HOLDS if holds else HOLDS_NOT,
                'competition': NO_COMPETITION if fitted.all() else COMPETITION}
    if len(tests) == len(EXAMPLES):
        verdicts['verdict'] = decide(*([test[key] for test in tests] for key in ('value', 'high', 'p_holm')), holds)
    return [*(dict(experiment='E', name=name, verdict=text) for name, text in verdicts.items()), *tests,
            *(row for row in rows if 'p' not in row), *numbers]
