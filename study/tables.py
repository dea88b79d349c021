"""
Tables in Markdown: how both studies write numbers, and all tables of the first one, study/widths_tables.md.
"""

import numpy as np
import pandas as pd

from study.runs import CONTROL_WIDTHS, CONTROLS, SPLITS

LABELS = {'n_embd': 'width', 'share': 'held out', 'study': 'runs', 'heldout_acc': 'held-out accuracy',
          'seen_acc': 'training accuracy', 'bits': 'bits per answer', 'abs_error': 'mean error',
          'off_by_one': 'off by one', 'no_number': 'no number',
          'add_acc': 'additions', 'sub_acc': 'subtractions', 'near_acc': 'neighbours all seen', 'far_acc': 'others',
          'near_minus_far': 'difference of these two', 'peak_prob': 'probability, peak',
          'end_prob': 'probability, final', 'fall_after_peak': "fall from the others' peak",
          'n_params': 'parameters', 'bits_memorised': 'bits memorised',
          'bits_per_param': 'bits per parameter', 'bits_last': 'of which the last line', 'fits': 'runs that fit',
          'chance_acc': 'right, answers dealt anew', 'chance_off_by_one': 'off by one, answers dealt anew',
          'inner_acc': 'without 0 and 9', 'edge_acc': 'with 0 or 9', 'inner_minus_edge': 'difference of the last two',
          'fit_iter': 'iteration of fit', 'fit_minus_end': 'at fit minus final', 'last_line_acc': 'last line',
          'same_acc': 'those held out at 10%', 'width_of_fall': 'width of the fall',
          'shuffled_acc_at_fall': 'accuracy on shuffled answers there',
          'bits minus main': 'bits per answer, minus main',
          'heldout_acc minus main': 'held-out accuracy, minus main',
          'nine_minus_zero_narrow': 'with a 9 minus with a 0 (%), widths 8 to 14'}
DECIMALS = {'bits': 2, 'abs_error': 2, 'n_params': 0, 'bits_memorised': 0, 'bits_per_param': 3, 'bits_last': 1,
            'fit_iter': 0, 'best_iter': 0, 'width_of_fall': 1, 'bits minus main': 1}  # all others are in per cent
BY_FRACTION = {'heldout_acc': 'Final held-out accuracy (%)', 'seen_acc': 'Final training accuracy (%)',
               'gap': 'Gap: final training accuracy minus held-out accuracy (%)', 'fits': 'Runs that fit',
               'fit_heldout_acc': 'Held-out accuracy at matched fit (%)',
               'above_90': 'Runs with a final held-out accuracy of at least 90%'}
UNPLANNED = {
    'same_mirrored': 'a+b and b+a get the same prediction (% of held-out additions)',
    'same_equal_sum': 'Two other held-out additions of equal sum get the same prediction (%)',
    'same_mirrored_minus_same_equal_sum': 'Difference of these two (%)',
    'sign_right': 'The prediction for a held-out subtraction has the right sign (%; 0 and no number count as wrong)',
    'near': 'Held-out questions right or off by one (%)',
    'near_dealt_anew': 'Right or off by one, answers dealt anew (%)',
    'near_minus_near_dealt_anew': 'Difference of these two (%)',
    'right_minus_dealt_anew': 'Held-out accuracy minus that of answers dealt anew (%)',
    'copied': 'Predictions that are the answer to a training question with a digit in common at its place (%)',
    'copied_dealt_anew': 'The same, answers dealt anew (%)',
    'copied_minus_copied_dealt_anew': 'Difference of these two (%)',
    'nine_minus_zero': 'Held-out accuracy of questions with a 9 and no 0, minus those with a 0 and no 9 (%)',
    'stopped_acc': 'Held-out accuracy if training stops where the mean of the other splits is highest (%)',
    'stopped_minus_final': 'That minus the final one (%)',
    'best_iter': 'The iteration at which the mean of all splits is highest'}
HEAD = """# Tables of the first study

`python study/widths.py --markdown` prints this file from [numbers.csv](../results/study/numbers.csv) and
[unplanned.csv](../results/study/unplanned.csv); [the page](widths.md) says what the words mean. A cell is the mean
over 8 splits with its 95% interval, in per cent unless stated otherwise. *All* means that all splits agree, and *n*
is the number of runs if it is not eight. *Answers dealt anew* is a baseline: how many would be right, or off by one,
if each prediction had been given to another held-out question of the operation. The effect of Page's test is the mean
rank correlation, which ties keep below 1.
"""
UNPLANNED_HEAD = """
## Not planned

This was looked for after the study, in the data that showed it, so none of it is a test of a claim.
"""


def number(x, digits):
    """A number with so many decimals, and never -0.0."""
    return f'{round(x, digits) + 0.0:.{digits}f}'


def markdown_table(heads, lines):
    """A table as Markdown, ending in a newline. lines: lists of str, as long as heads."""
    head, *body = ['| ' + ' | '.join(cells) + ' |' for cells in [heads, *lines]]
    return '\n'.join([head, '|---' * len(heads) + '|', *body]) + '\n'


def cell_text(row):
    """A row of numbers.csv as '12.5 (5.0 to 20.0)', with n if it is not eight; fractions of runs as '5 of 8'."""
    if row['name'] in ('fits', 'above_90'):
        return f'{row.n * row.value:.0f} of {row.n:.0f}'
    digits, scale = DECIMALS.get(row['name'], 1), 1 if row['name'] in DECIMALS else 100
    value, low, high = (number(scale * row[column], digits) for column in ('value', 'low', 'high'))
    interval_text = 'all' if row.high - row.low < 1e-9 else f'{low} to {high}'
    notes = [interval_text] if not np.isnan(row.low) and row['name'] != 'n_params' else []
    notes += [f'n = {row.n:.0f}'] if row.n != SPLITS else []
    return value + (f" ({', '.join(notes)})" if notes else '')


def condition_table(title, numbers, columns, index=('n_embd',)):
    """Some rows of numbers.csv, a line for each width (or what index names), the values of `columns` side by side."""
    if numbers.empty:
        return f'\n### {title}\n\nThere are no runs yet.\n'
    cells = numbers.assign(text=[cell_text(row) for _, row in numbers.iterrows()])
    cells = cells.pivot(index=[*index], columns=columns, values='text')[numbers[columns].unique()]
    cells = cells.fillna('').reset_index()
    if 'study' in cells:  # the main runs come first
        cells = cells.sort_values('study', key=lambda names: names.map(['main', *CONTROLS].index), kind='stable')
    if 'share' in cells:
        cells['share'] = [f'{percent:.0f}%' for percent in cells.share]
    else:
        cells = cells.astype({'n_embd': int})
    heads = [f'{column:.0f}%' if isinstance(column, float) else LABELS.get(column, column) for column in cells]
    return f'\n### {title}\n\n' + markdown_table(heads, [[*map(str, line)] for line in cells.itertuples(index=False)])


def test_table(title, tests):
    """The rows of numbers.csv that are tests or differences."""
    lines = []
    for row in tests.itertuples():
        value, low, high = (number(100 * x, 1) for x in (row.value, row.low, row.high))
        effect = number(row.value, 2) if row.test.startswith('Page') else f'{value} ({low} to {high})'
        p = 'not testable' if np.isnan(row.p) and row.test != 'bootstrap' else f'{row.p:.2g}'
        cells = [f'{row.share:.0f}%', f'{row.n_embd:.0f}', f'{row.n:.0f}', effect, p, f'{row.p_holm:.2g}']
        texts = [text.replace('share', 'held-out fraction') for text in (row.name, row.test)]  # the file's older word
        lines.append([texts[0], *('' if 'nan' in cell else cell for cell in cells), texts[1]])
    heads = ['what', 'held out', 'width', 'n', 'effect', 'p', 'p, Holm', 'how']
    return f'\n### {title}\n\n' + markdown_table(heads, lines)


def counted(numbers):
    """How many runs are there of those planned, as 'Runs: main 320 of 320, ...'."""
    counts = numbers[numbers.name == 'runs'].itertuples()
    return 'Runs: ' + ', '.join(f'{row.study} {row.value:.0f} of {row.n:.0f}' for row in counts)


def planned_tables(numbers):
    """The tables of numbers.csv, a list of str."""
    main, shuffled = numbers[numbers.study == 'main'], numbers[numbers.study == 'random']
    controls = numbers[~numbers.study.isin(['main', 'random']) & numbers.name.isin(['heldout_acc', 'seen_acc'])]
    of_20 = main[(main.share == 20) & main.test.isna()]
    others = of_20[~of_20.added & ~of_20.name.isin([*BY_FRACTION, 'n_params'])]
    if len(controls):
        beside = of_20[of_20.n_embd.isin(CONTROL_WIDTHS) & of_20.name.isin(['heldout_acc', 'seen_acc'])]
        controls = pd.concat([beside, controls])
    return [*(condition_table(f'{title}, by width and held-out fraction', main[main.name == name], 'share')
              for name, title in BY_FRACTION.items()),
            condition_table('Other measures, 20% held out (final; %, bits, or the error)', others, 'name'),
            condition_table('Measures added to the plan, 20% held out (%)',
                            of_20[of_20.added & (of_20.name != 'same_acc')], 'name'),
            condition_table('Controls, final accuracies (%), 20% held out', controls, 'name', ['study', 'n_embd']),
            condition_table('Shuffled answers, final (% and bits)', shuffled[shuffled.name != 'runs'], 'name'),
            test_table('Tests', numbers[numbers.test.notna() & ~numbers.added]),
            test_table('Comparisons added to the plan', numbers[numbers.test.notna() & numbers.added])]


def unplanned_tables(unplanned):
    """The tables of unplanned.csv, a list of str."""
    measures = unplanned[unplanned.test.isna()]
    main, decay = measures[measures.study == 'main'], measures[measures.study.str.startswith('decay')]
    of_width, of_fraction = main[main.n_embd.notna()], main[main.n_embd.isna()]
    return [*(condition_table(title, of_width[of_width.name == name], 'share') for name, title in UNPLANNED.items()),
            condition_table('Width of the fall, whatever the maximum; widths 8 to 14 together', of_fraction, 'name',
                            ['share']),
            condition_table('Weight decay minus main, 20% held out', decay, 'name', ['study', 'n_embd']),
            test_table('Planned tests over fewer widths, p-values not corrected', unplanned[unplanned.test.notna()])]


def all_tables(numbers, unplanned):
    """study/widths_tables.md."""
    return ''.join([HEAD, f'\n{counted(numbers)}.\n', *planned_tables(numbers), UNPLANNED_HEAD,
                    *unplanned_tables(unplanned)])
