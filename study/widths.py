"""
The numbers, tables and figures of the study that study/widths.md describes, from the committed files of its runs.

$ python study/widths.py
$ python study/widths.py results/study --markdown

Reads results/study and, beside it, results/study_orders, study_decay and study_random, as summarize.py --output writes them.
Writes numbers.csv and five figures into results/study. --markdown only prints the tables of study/widths.md, from numbers.csv.
Runs may be missing: it says how many are there, a mean is over those that are there, and a test is over complete splits.
"""

import argparse
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
from common.errors import UserError, explained, report_errors, say, wrapped

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
import pandas as pd

from common.answers import read_answers
from common.questions import Question, arithmetic_text
from common.files import atomic_open, write_file
from study.inference import chance_within, holm, interval, page, sign_flips, sign_test

WIDTHS, CONTROL_WIDTHS = [6, 8, 10, 12, 14, 20, 28, 56], [14, 28, 56]
SHARES = {'pair': 2, 'rounds_1': 10, 'rounds_2': 20, 'rounds_3': 30, 'rounds_5': 50}  # dataset to per cent held out
CONTROLS = {'orders': 20, 'decay 0.1': 20, 'decay 1.0': 20, 'random': 0}
CELL = ['study', 'share', 'n_embd']  # what runs have in common that differ in their split only
PLANNED = [('main', share, width) for share in SHARES.values() for width in WIDTHS]
PLANNED += [(study, share, width) for study, share in CONTROLS.items()
            for width in (WIDTHS if study == 'random' else CONTROL_WIDTHS)]
SPLITS = 8  # runs of each cell
ADDED = {  # measures that were added to the plan
    'chance_acc': 'right by chance', 'chance_off_by_one': 'wrong by one, by chance', 'inner_acc': 'without 0 and 9',
    'edge_acc': 'with 0 or 9', 'inner_minus_edge': 'these two, difference', 'fit_iter': 'iteration of fit',
    'fit_minus_end': 'at fit minus end', 'last_line_acc': 'last line', 'same_acc': 'those held out at 10 %'}
LABELS = {'seen_acc': 'seen', 'heldout_acc': 'held out', 'bits': 'bits per answer', 'abs_error': 'mean error',
          'off_by_one': 'wrong by one', 'no_number': 'no number', 'add_acc': 'additions', 'sub_acc': 'subtractions',
          'near_acc': 'neighbours seen', 'far_acc': 'others', 'near_minus_far': 'these two, difference',
          'peak_prob': 'probability, peak', 'end_prob': 'probability, end', 'fall_after_peak': "fall from the others' peak",
          'n_params': 'parameters', 'bits_memorised': 'bits memorised', 'bits_per_param': 'bits per parameter',
          'bits_last': 'of which the last line', 'fits': 'runs that fit', 'n_embd': 'width', 'share': 'share', **ADDED}
COLUMNS = ['name', *CELL, 'value', 'low', 'high', 'n', 'p', 'p_holm', 'test', 'added']  # added: to the plan, True or False

# -----------------------------------------------------------------------------
# what the runs answered


def cell_of(config, kind):
    """The cell (study, share, n_embd) of a run, from its label in a sweep, e.g. 'study,n_embd=6,dataset=rounds_2'."""
    settings = dict(part.split('=') for part in config.split(',')[1:])
    study = f"decay {float(settings['weight_decay'])}" if kind == 'decay' else kind
    return study, SHARES[settings['dataset']] if study == 'main' else CONTROLS[study], int(settings['n_embd'])


def read_study(folder):
    """The answers and the rows of results.csv of all runs: two DataFrames with the columns of CELL and `split`.

    The answers also have `error`, what was said most often minus what is right.
    """
    both = [], []
    for kind in ('main', 'orders', 'decay', 'random'):
        path = Path(folder if kind == 'main' else f'{folder}_{kind}')
        if kind != 'main' and not path.exists():
            say(f"the study lacks a control: {path} is not there")
            continue
        answers = read_answers(path)
        with explained(f"{path}/results.csv.gz cannot be read ({{}}): write it with summarize.py --output={path}"):
            results = pd.read_csv(path / 'results.csv.gz')
        for table, tables in zip((answers, results), both):
            with explained(f"{path} holds a run that is not of the study ({{}}): name the folder of the study"):
                cells = {config: cell_of(config, kind) for config in table.config.unique()}
                table[CELL] = [cells[config] for config in table.config]
            tables.append(table.assign(split=table.seed - 1337))
    answers, results = (pd.concat(tables, ignore_index=True) for tables in both)
    ends = [table.groupby([*CELL, 'split']).iter.max() for table in (answers[answers.when == 'last'], results)]
    if ends[1].nunique() > 1 or not ends[0].eq(ends[1].reindex(ends[0].index)).all():
        raise UserError(f"the runs beside {folder} end at different iterations: write them with summarize.py --output when all "
                        "of them are finished")
    said = answers.said.str.extract(r'^\s*(-?[0-9]+)')[0].astype(float)  # the number that the evaluation reads
    error = said - answers.answer.astype(float)
    return answers.assign(error=error), results


def neighbours_seen(held_out):
    """For each held-out question of a run, whether none of (a±1, b) and (a, b±1) is held out: a bool array."""
    keys = [(task, int(prompt[1]), int(prompt[3])) for task, prompt in zip(held_out.task, held_out.prompt)]
    near = [{(task, a + 1, b), (task, a - 1, b), (task, a, b + 1), (task, a, b - 1)} for task, a, b in keys]
    return np.array([neighbours.isdisjoint(keys) for neighbours in near], dtype=bool)


def is_last_line(seen):
    """For each seen question of a run, whether it is the last line of the text: a bool Series. See docs/results.md."""
    questions = [Question(*q) for q in zip(seen.task, seen.prompt, seen.answer.astype(str), seen.group)]
    return seen.prompt == arithmetic_text(questions).splitlines()[-1].split('=')[0] + '='


def measure_answers(answers):
    """The measures of a run at one evaluation, from its answers: dict of name to number, NaN where nothing was asked."""
    seen, held_out = answers[answers.group == 'seen'], answers[answers.group == 'held out']
    last = is_last_line(seen)
    if held_out.empty:  # random labels
        frequency = seen.groupby(['task', 'answer']).prob.transform('size') / seen.groupby('task').prob.transform('size')
        bits = np.log2(seen.prob / frequency)
        return {'seen_acc': seen.right.mean(), 'bits_memorised': bits.sum(), 'bits_last': bits[last].sum()}
    right, near = held_out.right, neighbours_seen(held_out)
    edge, by_chance = held_out.prompt.str.contains('[09]'), chance_within(held_out, 'task')
    return {'heldout_acc': right.mean(), 'seen_acc': seen.right.mean(), 'gap': round(seen.right.mean() - right.mean(), 9),
            'bits': -np.log2(held_out.prob).mean(), 'abs_error': held_out.error.abs().mean(),
            'off_by_one': (held_out.error.abs() == 1).mean(), 'no_number': held_out.error.isna().mean(),
            'add_acc': right[held_out.task == 'add'].mean(), 'sub_acc': right[held_out.task == 'sub'].mean(),
            'near_acc': right[near].mean(), 'far_acc': right[~near].mean(),
            'near_minus_far': right[near].mean() - right[~near].mean(),
            'chance_acc': (by_chance == 0).mean(), 'chance_off_by_one': (np.abs(by_chance) == 1).mean(),
            'inner_acc': right[~edge].mean(), 'edge_acc': right[edge].mean(),
            'inner_minus_edge': right[~edge].mean() - right[edge].mean(), 'last_line_acc': seen.right[last].mean()}


def fall_after_peak(curves):
    """For each split, its value where the mean of the other splits is highest, minus its last; NaN for a lone split.

    curves: DataFrame (iterations, splits). The others choose the peak, because a split's own cannot be below its last value.
    """
    others = {split: curves.drop(columns=split).mean(axis=1) for split in curves}
    return {split: np.nan if mean.isna().all() else curves[split][mean.idxmax()] - curves[split].iloc[-1]
            for split, mean in others.items()}


def measure_runs(answers, results):
    """A row for each run: CELL, split, its measures at the end of training, and those of matched fit and of its curve."""
    index = [*CELL, 'split']
    end, fit = answers[answers.when == 'last'], answers[answers.when == 'fit']
    runs = pd.DataFrame.from_dict({run: measure_answers(table) for run, table in end.groupby(index)}, orient='index')
    runs = runs.rename_axis(index)
    results = results.assign(heldout_prob=results.heldout_prob.where(results.study != 'random'))  # 0 where nothing is held out
    curves = results.sort_values('iter').groupby(index)
    fit_iter = fit.groupby(index).iter.first()
    runs['fits'] = runs.index.isin(fit_iter.index)
    runs['fit_heldout_acc'] = fit[fit.group == 'held out'].groupby(index).right.mean()
    runs['fit_minus_end'], runs['fit_iter'] = runs.fit_heldout_acc - runs.heldout_acc, fit_iter
    runs['last_line_acc'] = runs.last_line_acc.where(runs.index.get_level_values('study') != 'orders')  # it has many orders
    held_out = end[end.group == 'held out']
    of_10 = held_out[(held_out.study == 'main') & (held_out.share == 10)][['split', 'prompt']].drop_duplicates()
    runs['same_acc'] = held_out[held_out.share >= 10].merge(of_10).groupby(index).right.mean()
    runs['above_90'] = runs.heldout_acc >= 0.9
    runs['n_params'] = curves.n_params.last()
    runs['bits_per_param'] = runs.get('bits_memorised', np.nan) / runs.n_params
    runs['peak_prob'], runs['end_prob'] = curves.heldout_prob.max(), curves.heldout_prob.last()
    runs['fall_after_peak'] = pd.Series({
        (*cell, split): fall for cell, rows in results.groupby(CELL) for split, fall in
        fall_after_peak(rows.pivot(index='iter', columns='split', values='heldout_prob')).items()})
    return runs.reset_index()

# -----------------------------------------------------------------------------
# numbers


def row(name, values, cell, **test):
    """A row of numbers.csv: the mean of the values, one for each run or split, and its interval."""
    low, high = interval(values) if len(values) else (np.nan, np.nan)
    return dict(name=name, value=values.mean(), low=low, high=high, n=len(values)) | dict(zip(CELL, cell)) | test


def page_row(name, blocks, cell):
    """A row of numbers.csv: Page's test that values grow from the first column to the last, over the complete splits."""
    blocks = blocks.dropna()
    value, p = page(blocks.to_numpy(float))
    order = ' < '.join(map(str, blocks.columns)) if blocks.shape[1] >= 3 else '(less than three)'
    test = f'Page, {LABELS[blocks.columns.name]} {order}'
    return dict(name=name, value=value, n=len(blocks), p=p, test=test) | dict(zip(CELL, cell))


def family(rows):
    """The rows of a family of tests, with Holm's p_holm."""
    return [row | {'p_holm': p} for row, p in zip(rows, holm([row['p'] for row in rows]))]


def describe(runs):
    """Rows of numbers.csv: for each study, how many runs there are (value) of those planned (n); each measure of each cell."""
    rows = []
    cells = pd.DataFrame(PLANNED + runs[CELL].values.tolist(), columns=CELL).drop_duplicates()
    for study, planned in cells.groupby('study', sort=False):
        rows.append(dict(name='runs', study=study, value=(runs.study == study).sum(), n=SPLITS * len(planned),
                         added=False))
    for name in [name for name in runs if name not in (*CELL, 'split')]:
        there = runs[runs.study != 'random'] if name == 'above_90' else runs
        rows += [row(name, values, cell, added=name in ADDED) for cell, values in there.dropna(subset=name).groupby(CELL)[name]]
    return rows


def run_tests(runs):
    """Rows of numbers.csv: the tests of study/widths.md, each family with its p_holm."""
    main = {share: runs[(runs.study == 'main') & (runs.share == share)] for share in SHARES.values()}

    def blocks(part, name, columns, values):
        """DataFrame (splits, values of n_embd or of share) of a measure."""
        return part.pivot(index='split', columns=columns, values=name).reindex(columns=pd.Index(values, name=columns))
    fitting = {share: [w for w in WIDTHS[::-1] if part.fits[part.n_embd == w].mean() > 0.5] for share, part in main.items()}
    accuracy, gap, matched, forgetting = [], [], [], []
    for share, part in main.items():
        at_end, at_fit, falls = (blocks(part, name, 'n_embd', fitting[share]) for name in
                                 ('heldout_acc', 'fit_heldout_acc', 'fall_after_peak'))
        accuracy.append(page_row('accuracy falls with width', at_end, ('main', share)))
        gap.append(page_row('gap grows with width', blocks(part, 'gap', 'n_embd', WIDTHS), ('main', share)))
        matched.append(page_row('accuracy at matched fit falls with width', at_fit, ('main', share)))
        falls = falls.dropna().mean(axis=1).dropna()
        forgetting.append(row('probability falls after its peak', falls, ('main', share), p=sign_test(falls), test='signs'))
    by_width = {width: runs[(runs.study == 'main') & (runs.n_embd == width)] for width in WIDTHS}
    by_share = [page_row('accuracy falls with the share', blocks(part, 'heldout_acc', 'share', [*main][::-1]),
                         ('main', np.nan, width)) for width, part in by_width.items()]
    added = [page_row('accuracy on the same questions falls with the share',
                      blocks(part, 'same_acc', 'share', [50, 30, 20, 10]), ('main', np.nan, width))
             for width, part in by_width.items()]
    steps = []
    for share, part in main.items():
        accuracies = blocks(part, 'heldout_acc', 'n_embd', WIDTHS)
        steps += [row(f'width {a} minus {b}', (accuracies[a] - accuracies[b]).dropna(), ('main', share),
                      test='bootstrap') for a, b in zip(WIDTHS, WIDTHS[1:])]
    controls = []
    base = main[20].set_index(['n_embd', 'split']).heldout_acc
    for control in ('orders', 'decay 0.1', 'decay 1.0', 'pair'):
        part = main[2] if control == 'pair' else runs[runs.study == control]
        difference = (part.set_index(['n_embd', 'split']).heldout_acc - base).dropna().reset_index('n_embd')
        pairs = {width: difference.heldout_acc[difference.n_embd == width] for width in CONTROL_WIDTHS}
        controls += family([row(f'{control} minus main', values, ('main', 20, width), p=sign_flips(values), test='sign flips')
                            for width, values in pairs.items()])
    planned = family(accuracy + gap) + family(by_share) + family(matched) + family(forgetting) + controls
    return [r | {'added': False} for r in planned] + [r | {'added': True} for r in family(added) + steps]

# -----------------------------------------------------------------------------
# tables

TITLES = {'heldout_acc': 'Held-out questions right at the end (%)', 'seen_acc': 'Seen questions right at the end (%)',
          'gap': 'Gap at the end, seen minus held out (%)', 'fits': 'Runs that fit',
          'fit_heldout_acc': 'Held-out questions right at matched fit (%)',
          'above_90': 'Runs that end with at least 90 % of the held-out questions right'}
NOT_SHARES = {'bits': 2, 'abs_error': 2, 'n_params': 0, 'bits_memorised': 0, 'bits_per_param': 3, 'bits_last': 1,
              'fit_iter': 0}  # decimals; all others are in per cent


def number(x, digits):
    """A number with so many decimals, and never -0.0."""
    return f'{round(x, digits) + 0.0:.{digits}f}'


def cell_text(r):
    """A row of numbers.csv as '12.5 (5.0 to 20.0)', with the number of runs if it is not eight; shares of runs as '5 of 8'."""
    if r['name'] in ('fits', 'above_90'):
        return f'{r.n * r.value:.0f} of {r.n:.0f}'
    digits, scale = NOT_SHARES.get(r['name'], 1), 1 if r['name'] in NOT_SHARES else 100
    value, low, high = (number(scale * r[column], digits) for column in ('value', 'low', 'high'))
    interval_text = 'all' if r.high - r.low < 1e-9 else f'{low} to {high}'
    notes = [interval_text] * (r.n > 1 and r['name'] != 'n_params') + [f'n = {r.n:.0f}'] * (r.n != SPLITS)
    return value + (f" ({', '.join(notes)})" if notes else '')


def print_table(title, rows, columns):
    """A table in Markdown of some rows of numbers.csv: a line for each width (and study), `columns` side by side."""
    print(f'\n### {title}\n')
    if rows.empty:
        print('There are no runs yet.')
        return
    index = ['study', 'n_embd'][rows.study.nunique() == 1:]
    cells = rows.assign(text=[cell_text(r) for _, r in rows.iterrows()]).pivot(index=index, columns=columns, values='text')
    cells = cells[rows[columns].unique()].fillna('').reset_index().astype({'n_embd': int})
    if 'study' in cells:  # the main runs come first
        cells = cells.sort_values('study', key=lambda names: names.map(['main', *CONTROLS].index), kind='stable')
    heads = [f'{column:.0f} %' if isinstance(column, float) else LABELS.get(column, column) for column in cells]
    print('| ' + ' | '.join(heads) + ' |\n' + '|---' * len(heads) + '|')
    for line in cells.itertuples(index=False):
        print('| ' + ' | '.join(map(str, line)) + ' |')


def print_tests(title, rows):
    """The rows of numbers.csv that are tests or differences, in Markdown."""
    print(f'\n### {title}\n\n| what | share | width | n | effect | p | p, Holm | how |\n' + '|---' * 8 + '|')
    for r in rows.itertuples():
        value, low, high = (number(100 * x, 1) for x in (r.value, r.low, r.high))
        effect = number(r.value, 2) if r.test.startswith('Page') else f'{value} ({low} to {high})'
        p = 'not testable' if np.isnan(r.p) and r.test != 'bootstrap' else f'{r.p:.2g}'
        cells = [f'{r.share:.0f} %', f'{r.n_embd:.0f}', f'{r.n:.0f}', effect, p, f'{r.p_holm:.2g}']
        cells = ['' if 'nan' in cell else cell for cell in cells]
        print('| ' + ' | '.join([r.name, *cells, r.test]) + ' |')


def counted(numbers):
    """How many runs are there of those planned, as 'Runs: main 320 of 320, ...'."""
    return 'Runs: ' + ', '.join(f'{r.study} {r.value:.0f} of {r.n:.0f}' for r in numbers[numbers.name == 'runs'].itertuples())


def print_markdown(numbers):
    """The tables of study/widths.md."""
    print(counted(numbers) + '.')
    main, random = numbers[numbers.study == 'main'], numbers[numbers.study == 'random']
    controls = numbers[~numbers.study.isin(['main', 'random']) & numbers.name.isin(['heldout_acc', 'seen_acc'])]
    for name, title in TITLES.items():
        print_table(f'{title}, by width and share held out', main[main.name == name], 'share')
    of_20 = main[(main.share == 20) & main.test.isna()]
    others = of_20[~of_20.added & ~of_20.name.isin([*TITLES, 'n_params'])]
    print_table('Other measures, 20 % held out (%, or bits, or the error)', others, 'name')
    print_table('Measures added to the plan, 20 % held out (%)', of_20[of_20.added & (of_20.name != 'same_acc')], 'name')
    if len(controls):
        beside = of_20[of_20.n_embd.isin(CONTROL_WIDTHS) & of_20.name.isin(['heldout_acc', 'seen_acc'])]
        controls = pd.concat([beside, controls])
    print_table('Controls at the end (%), 20 % held out', controls, 'name')
    print_table('Random labels at the end (% and bits)', random[random.name != 'runs'], 'name')
    print_tests('Tests', numbers[numbers.test.notna() & ~numbers.added])
    print_tests('Comparisons added to the plan', numbers[numbers.test.notna() & numbers.added])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=wrapped(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', nargs='?', type=Path, default=REPO / 'results' / 'study',
                        help='default: results/study')
    parser.add_argument('--markdown', action='store_true', help='print the tables of study/widths.md, and write nothing')
    args = parser.parse_args()
    if args.markdown:
        with explained(f"{args.folder}/numbers.csv cannot be read ({{}}): run study/widths.py without --markdown first"):
            numbers = pd.read_csv(args.folder / 'numbers.csv')
        print_markdown(numbers)
    else:
        from study.figures import figures
        answers, results = read_study(args.folder)
        runs = measure_runs(answers, results)
        numbers = pd.DataFrame(describe(runs) + run_tests(runs), columns=COLUMNS)
        write_file(args.folder / 'numbers.csv', numbers.to_csv(index=False, float_format='%.6g'))
        for name, figure in figures(runs, numbers, answers, results).items():
            with atomic_open(args.folder / f'{name}.png', 'wb') as f:
                figure.savefig(f, dpi=150)
        print(f"{counted(numbers)}\nwrote numbers.csv and the figures into {args.folder}")
