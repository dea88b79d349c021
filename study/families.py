"""
The rows of numbers.csv of the first study: each measure of each condition, and the tests of study/widths.md, a
function a family. A family's p-values are corrected together by Holm's method.
"""

import pandas as pd

from study.inference import family, mean_row, page, sign_flips, sign_test
from study.runs import CONDITION, CONTROL_WIDTHS, PERCENT_HELD_OUT, PLANNED, RUN, SPLITS, WIDTHS

COLUMNS = ['name', *CONDITION, 'value', 'low', 'high', 'n', 'p', 'p_holm', 'test', 'added']  # added to the plan?
ADDED = ['chance_acc', 'chance_off_by_one', 'inner_acc', 'edge_acc', 'inner_minus_edge', 'fit_iter', 'fit_minus_end',
         'last_line_acc', 'same_acc']  # measures that were added to the plan
PERCENTS = [*PERCENT_HELD_OUT.values()]


def measure_rows(runs):
    """How many runs there are of each kind (value) of those planned (n); then each measure of each condition."""
    numbers = []
    conditions = pd.DataFrame(PLANNED + runs[CONDITION].values.tolist(), columns=CONDITION).drop_duplicates()
    for study, planned in conditions.groupby('study', sort=False):
        numbers.append(dict(name='runs', study=study, value=(runs.study == study).sum(), n=SPLITS * len(planned),
                            added=False))
    for name in [name for name in runs if name not in RUN]:
        there = runs[runs.study != 'random'] if name == 'above_90' else runs
        numbers += [mean_row(name, values, added=name in ADDED, **dict(zip(CONDITION, condition)))
                    for condition, values in there.dropna(subset=name).groupby(CONDITION)[name]]
    return numbers


def main_at(runs, percent):
    """The main runs with so much held out."""
    return runs[(runs.study == 'main') & (runs.share == percent)]


def blocks(runs, measure, column, values):
    """A measure as DataFrame (splits, values of a column), which is n_embd or share."""
    return runs.pivot(index='split', columns=column, values=measure).reindex(columns=pd.Index(values, name=column))


def fitting_widths(runs):
    """The widths of which more than half of the runs fit, the widest first."""
    return [width for width in WIDTHS[::-1] if runs.fits[runs.n_embd == width].mean() > 0.5]


def page_row(name, table, **condition):
    """Page's test that values grow from the first column of `blocks` to the last, over the splits without a gap."""
    table = table.dropna()
    value, p = page(table.to_numpy(float))
    order = ' < '.join(map(str, table.columns)) if table.shape[1] >= 3 else '(less than three)'
    column = {'n_embd': 'width'}.get(table.columns.name, table.columns.name)
    return dict(name=name, value=value, n=len(table), p=p, test=f'Page, {column} {order}', study='main') | condition


def width_family(runs):
    """Question 1: does held-out accuracy fall with width, and does the gap grow with it?"""
    falls = [page_row('accuracy falls with width', blocks(main_at(runs, percent), 'heldout_acc', 'n_embd',
                      fitting_widths(main_at(runs, percent))), share=percent) for percent in PERCENTS]
    gaps = [page_row('gap grows with width', blocks(main_at(runs, percent), 'gap', 'n_embd', WIDTHS), share=percent)
            for percent in PERCENTS]
    return family(falls + gaps)


def by_percent_family(runs, name, measure, percents):
    """Question 2: does held-out accuracy fall as more is held out?"""
    main = runs[runs.study == 'main']
    return family([page_row(name, blocks(main[main.n_embd == width], measure, 'share', percents), n_embd=width)
                   for width in WIDTHS])


def matched_fit_family(runs):
    """Question 3: is the fall with width there at matched fit as well?"""
    return family([page_row('accuracy at matched fit falls with width', blocks(
        main_at(runs, percent), 'fit_heldout_acc', 'n_embd', fitting_widths(main_at(runs, percent))), share=percent)
        for percent in PERCENTS])


def forgetting_family(runs):
    """Question 3: or do models forget afterwards? Each split counts once, by its mean over the widths that fit."""
    tests = []
    for percent in PERCENTS:
        falls = blocks(main_at(runs, percent), 'fall_after_peak', 'n_embd', fitting_widths(main_at(runs, percent)))
        falls = falls.dropna().mean(axis=1).dropna()
        tests.append(mean_row('probability falls after its peak', falls, study='main', share=percent,
                              p=sign_test(falls), test='signs'))
    return family(tests)


def control_families(runs):
    """Question 4: do the order, weight decay or the pair decide the result? A family for each control."""
    main, tests = main_at(runs, 20).set_index(['n_embd', 'split']).heldout_acc, []
    for control in ('orders', 'decay 0.1', 'decay 1.0', 'pair'):
        controls = main_at(runs, 2) if control == 'pair' else runs[runs.study == control]
        differences = (controls.set_index(['n_embd', 'split']).heldout_acc - main).dropna()
        widths = differences.index.get_level_values('n_embd')
        of_width = {width: differences[widths == width] for width in CONTROL_WIDTHS}
        tests += family([mean_row(f'{control} minus main', values, study='main', share=20, n_embd=width,
                                  p=sign_flips(values), test='sign flips') for width, values in of_width.items()])
    return tests


def steps(runs):
    """Added to the plan: how much held-out accuracy differs between neighbouring widths. None of it is tested."""
    differences = []
    for percent in PERCENTS:
        accuracy = blocks(main_at(runs, percent), 'heldout_acc', 'n_embd', WIDTHS)
        differences += [mean_row(f'width {a} minus {b}', (accuracy[a] - accuracy[b]).dropna(), study='main',
                                 share=percent, test='bootstrap') for a, b in zip(WIDTHS, WIDTHS[1:])]
    return differences


def run_tests(runs):
    """All families, those of the plan first; `added` tells them apart."""
    planned = (width_family(runs)
               + by_percent_family(runs, 'accuracy falls with the share', 'heldout_acc', PERCENTS[::-1])
               + matched_fit_family(runs) + forgetting_family(runs) + control_families(runs))
    added = by_percent_family(runs, 'accuracy on the same questions falls with the share', 'same_acc',
                              PERCENTS[:0:-1]) + steps(runs)
    return [test | {'added': False} for test in planned] + [test | {'added': True} for test in added]


def all_numbers(runs):
    """numbers.csv as a DataFrame."""
    return pd.DataFrame(measure_rows(runs) + run_tests(runs), columns=COLUMNS)
