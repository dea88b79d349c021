"""
All tables of the second study in Markdown, study/why_tables.md, from results/why/numbers.csv.
"""

import numpy as np

from study.tables import markdown_table, number

EXPERIMENTS = {'A': 'one order hidden', 'B': 'how much there is to learn', 'C': 'a load that is not arithmetic',
               'D': 'time and weight decay', 'E': 'fewer examples among as many lines'}
HEAD = """# Tables of the second study

`python study/why.py --markdown` prints this file from [numbers.csv](../results/why/numbers.csv); [the page](why.md)
says what the words mean. A cell is the mean over splits or seeds with its 95% interval, in per cent unless stated
otherwise; *n* is the number of splits or seeds (of a slope, of bases). *Answers dealt anew* is a baseline: how many
predictions would be off by one, or right or off by one, if each had been given to another held-out question of the
operation.
"""
SCALES = {'%': (100, 1), 'width': (1, 1), 'slope': (1, 2), 'rank correlation': (1, 2)}  # unit to factor and decimals


def cell_text(row, with_n=True):
    """A row of numbers.csv as '12.5 (5.0 to 20.0), n = 8'."""
    if np.isnan(row.value):
        return 'undefined'
    scale, digits = SCALES[row.unit]
    value, low, high = (number(scale * x, digits) for x in (row.value, row.low, row.high))
    interval = '' if np.isnan(row.low) else f' ({low} to {high})'
    return f'{value}{interval}' + f', n = {row.n:.0f}' * with_n


def width_table(name, numbers):
    """A measure of all widths: a line for each width, the conditions side by side, and n once if it is the same."""
    same_n = numbers.n.nunique() == 1
    cells = numbers.assign(text=[cell_text(row, not same_n) for row in numbers.itertuples()])
    cells = cells.pivot(index='n_embd', columns='condition', values='text')[numbers.condition.unique()].fillna('')
    unit = ' (%)' if (numbers.unit == '%').all() else ''
    title = f'{name[0].upper()}{name[1:]}{unit}' + f', n = {numbers.n.iloc[0]:.0f}' * same_n
    lines = [[f'{width:.0f}', *texts] for width, texts in zip(cells.index, cells.to_numpy())]
    return f'\n### {title}\n\n' + markdown_table(['width', *cells.columns], lines)


def other_table(numbers):
    """What is no measure of a width: widths of the fall, slopes, differences and tests."""
    lines = [[row.name, row.condition, cell_text(row, False), f'{row.n:.0f}',
              *('' if np.isnan(p) else f'{p:.2g}' for p in (row.p, row.p_holm)), row.test]
             for row in numbers.fillna({'condition': '', 'test': ''}).itertuples()]
    heads = ['what', 'where', 'value', 'n', 'p', 'p, Holm', 'how']
    return '\n### Differences, widths and tests\n\n' + markdown_table(heads, lines)


def counted(numbers):
    """How many runs of each experiment are there of those planned, as 'Runs: A 64 of 64, ...'."""
    counts = numbers[numbers.name == 'runs'].groupby('experiment')[['value', 'n']].sum()
    return 'Runs: ' + ', '.join(f'{experiment} {row.value:.0f} of {row.n:.0f}' for experiment, row in counts.iterrows())


def tables_of(experiment, numbers):
    """All of one experiment, beginning with its verdicts, if it is whole."""
    counts, verdicts = numbers[numbers.name == 'runs'], numbers[numbers.verdict.notna()]
    measures = numbers[(numbers.name != 'runs') & numbers.verdict.isna()]
    text = f'\n## Experiment {experiment}: {EXPERIMENTS[experiment]}\n\n' + ''.join(
        f'- {row.condition}: {row.value:.0f} of {row.n:.0f} runs\n' for row in counts.itertuples())
    text += ''.join(f'- **{row.name}**: {row.verdict}\n' for row in verdicts.itertuples())
    text += '- no verdict is drawn while runs are missing\n' if (counts.value < counts.n).any() else ''
    others, by_width = measures[measures.n_embd.isna()], measures[measures.n_embd.notna()]
    text += other_table(others) if len(others) else ''
    return text + ''.join(width_table(name, table) for name, table in by_width.groupby('name', sort=False))


def all_tables(numbers):
    """study/why_tables.md."""
    parts = [tables_of(experiment, numbers[numbers.experiment == experiment]) for experiment in EXPERIMENTS]
    return f'{HEAD}\n{counted(numbers)}.\n' + ''.join(parts)
