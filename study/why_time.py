"""
Experiment D of study/why.md: time and decay. Does held-out accuracy rise if training goes on for ten times as long?
"""

from itertools import product

from study.inference import family, mean_row, sign_flips

READ = {'30000': 30_000, '100000': 100_000, 'last': 300_000}  # the evaluations that are read
WIDTHS, DECAYS = (20, 28), (0.0, 0.1, 1.0)
EFFECT, LEVEL = 0.15, 0.05
FOUND, NOT_FOUND = 'delayed generalisation', 'ten times as long does not help'


def decide(gains, p_holm):
    """The verdict of the plan, from the gains of the six conditions and their corrected p-values."""
    return FOUND if any(round(gain, 9) >= EFFECT and p < LEVEL for gain, p in zip(gains, p_holm)) else NOT_FOUND


def accuracies(answers, width, decay, when, group='held out'):
    """The accuracy of each split in one condition at one evaluation: a Series, empty if there are no runs."""
    there = answers[(answers.n_embd == width) & (answers.weight_decay == decay) & (answers.when == when)]
    return there[there.group == group].groupby('split').right.mean()


def time_numbers(answers):
    """The rows of numbers.csv of experiment D, from its runs' answers."""
    numbers, tests = [], []
    for width, decay in product(WIDTHS, DECAYS):
        for name, group in (('held-out accuracy', 'held out'), ('training accuracy', 'seen')):
            by_time = {iters: accuracies(answers, width, decay, when, group) for when, iters in READ.items()}
            numbers += [mean_row(f'{name}, decay {decay:g}', values, experiment='D', condition=f'{iters:,} iterations',
                                 n_embd=width, unit='%') for iters, values in by_time.items() if len(values)]
        gain = (accuracies(answers, width, decay, 'last') - accuracies(answers, width, decay, '30000')).dropna()
        tests.append(mean_row('held-out accuracy at 300,000 minus 30,000', gain, experiment='D', unit='%',
                              p=sign_flips(gain), condition=f'width {width}, decay {decay:g}', test='sign flips'))
    tests = family(tests)
    verdict = decide(*([test[key] for test in tests] for key in ('value', 'p_holm')))
    return [dict(experiment='D', name='verdict', verdict=verdict), *tests, *numbers]
