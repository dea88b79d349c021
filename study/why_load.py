"""
Experiment C of study/why.md: a load that is not arithmetic. Does a wide model generalise if it has other things to
memorise?
"""

import numpy as np

from study.inference import dealt_anew_within, family, mean_row, sign_flips
from study.runs import add_numbers
from study.why_runs import measure_each

LOADS = {20: 200, 28: 400}  # width to lines of load
EFFECT, NO_EFFECT, LEVEL = 0.15, 0.1, 0.05
MOST_LEARNT, FITTED = 0.8, 0.99  # what the manipulation check asks of the shuffled and the regular runs
HOLDS, HOLDS_NOT = 'holds', 'does not hold'
CAUSES, REFUTED, UNDECIDED = 'capacity causes the fall', 'refuted in this form', 'undecided'
COMPETITION = 'competition: with the random load the arithmetic training questions are not fitted'
NO_COMPETITION = 'no competition: the arithmetic training questions are fitted with the random load, too'


def measure_run(answers):
    """The measures of one run: dict of name to number, NaN where nothing was asked."""
    arithmetic = answers[answers.task != 'load']
    seen, held_out = arithmetic[arithmetic.group == 'seen'], arithmetic[arithmetic.group == 'held out']
    measures = {'held-out accuracy': held_out.right.mean(), 'training accuracy, arithmetic': seen.right.mean(),
                'accuracy on the load': answers.right[answers.task == 'load'].mean(),
                'training accuracy, all lines': answers.right[answers.group == 'seen'].mean(),
                'off by one': np.nan, 'off by one, answers dealt anew': np.nan}
    if len(held_out):
        measures |= {'off by one': (held_out.error.abs() == 1).mean(),
                     'off by one, answers dealt anew': (np.abs(dealt_anew_within(held_out, 'task')) == 1).mean()}
    return measures


def measure_runs(answers):
    """A row for each run, with the columns kind (of load), split and its measures."""
    last = add_numbers(answers[answers.when == 'last'])
    last = last.assign(kind=last.dataset.str.split('_').str[1])
    return measure_each(last, ['kind', 'split'], measure_run)


def decide(differences, highs, p_holm, check):
    """The verdict of the plan. All but check are lists, one of each width; check: whether the manipulation worked."""
    if all(round(value, 9) >= EFFECT for value in differences) and all(p < LEVEL for p in p_holm):
        return CAUSES
    return REFUTED if check and all(round(high, 9) < NO_EFFECT for high in highs) else UNDECIDED


def verdict_rows(experiment, tests, check, fitted):
    """The rows of numbers.csv with the verdicts. fitted: whether the arithmetic is, with the load."""
    verdict = decide(*([test[key] for test in tests] for key in ('value', 'high', 'p_holm')), check)
    verdicts = {'verdict': verdict, 'manipulation check': HOLDS if check else HOLDS_NOT,
                'competition': NO_COMPETITION if fitted else COMPETITION}
    return [dict(experiment=experiment, name=name, verdict=text) for name, text in verdicts.items()]


def load_numbers(measured):
    """The rows of numbers.csv of experiment C. measured: {sweep: measure_runs} of its two sweeps, None for no runs."""
    tests, numbers, checks, fitted = [], [], [], []
    for width in LOADS:
        runs = measured[f'why_load_{width}']
        if runs is None:
            continue
        numbers += [mean_row(name, values.dropna(), experiment='C', condition=kind, n_embd=width, unit='%')
                    for name in runs.columns[2:] for kind, values in runs.groupby('kind')[name] if values.notna().any()]
        by_kind = {kind: runs[runs.kind == kind].set_index('split') for kind in ('random', 'regular', 'shuffled')}
        difference = (by_kind['random']['held-out accuracy'] - by_kind['regular']['held-out accuracy']).dropna()
        tests.append(mean_row('random minus regular, held-out accuracy', difference, experiment='C', unit='%',
                              condition=f'width {width}', p=sign_flips(difference, 'greater'),
                              test='sign flips, one-sided'))
        checks.append(by_kind['shuffled']['training accuracy, all lines'].mean() <= MOST_LEARNT
                      and by_kind['regular']['training accuracy, arithmetic'].mean() >= FITTED)
        fitted.append(by_kind['random']['training accuracy, arithmetic'].mean() >= FITTED)
    if not tests:
        return []
    tests = family(tests)
    return [*verdict_rows('C', tests, all(checks), all(fitted)), *tests, *numbers]
