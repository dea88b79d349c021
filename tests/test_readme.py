"""What README and the pages say: numbers are committed, commands exist, examples run, and links lead somewhere."""

import re
import shlex
import textwrap

import pandas as pd
import pytest
from conftest import REPO

from common.sweeps import read_sweep, summarize
from common.statistics import difference
from configurator import settings_of
from paper.table import table

README = (REPO / 'README.md').read_text()
DOCS = [REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md'))]
BLOCKS = [block for path in DOCS for block in re.findall(r'(?:^    .*\n)+', path.read_text(), re.MULTILINE)]
COMMANDS = [line.split('  #')[0].strip() for block in BLOCKS for line in block.replace('\\\n', ' ').splitlines()
            if re.match(r'    python \S+\.py', line)]


def test_it_is_short():
    assert len(README.splitlines()) <= 100


@pytest.mark.parametrize('sweep', ['paper', 'weight_decay'])
def test_the_tables_of_the_papers_runs_are_those_of_the_committed_runs(sweep):
    folder = REPO / 'results' / sweep
    assert '\n'.join(table(summarize(read_sweep(folder)),
                           sweep)) + '\n' == (folder / 'table.md').read_text(encoding='utf-8')


def rows_of(text):
    """The first table of a page: a dict by heading for each row."""
    head, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()
                      if line[:1] == '|']
    return [dict(zip(head, row)) for row in rows if len(row) == len(head)]


def test_the_page_of_results_has_the_papers_table():
    """Fewer columns of it: all rows, and cells as they were printed."""
    printed = rows_of((REPO / 'results/paper/table.md').read_text(encoding='utf-8'))
    shown = rows_of((REPO / 'docs/results.md').read_text(encoding='utf-8'))
    assert shown == [{head: row[head] for head in shown[0]} for row in printed]
    assert 'final held-out accuracy (%)' in shown[0]


def test_the_findings_are_in_the_numbers_of_the_study():
    numbers = pd.read_csv(REPO / 'results/study/numbers.csv').query('test.isna()', engine='python')

    def percent(name, width, fraction=20, study='main'):
        row, = numbers[(numbers.name == name) & (numbers.n_embd == width) & (numbers.study == study)
                       & ((numbers.share == fraction) | (study == 'random'))].itertuples()
        return [100 * x for x in (row.value, row.low, row.high)]

    text = ' '.join(README.split())
    for words, expected in [
            (r'held-out accuracy is (\d+)% \(95% interval (\d+) to (\d+)\) at width 14', percent('heldout_acc', 14)),
            (r'the best width, 8, answers (\d+)% \((\d+) to (\d+)\)', percent('heldout_acc', 8, 50)),
            (r'width 14 memorises (\d+)%', percent('seen_acc', 14, study='random')[:1]),
            (r'width 20 memorises (\d+)%', percent('seen_acc', 20, study='random')[:1])]:
        found, = re.findall(words, text)
        assert [float(x) for x in ([found] if isinstance(found, str) else found)] == pytest.approx(expected, abs=0.501)
    assert max(percent('heldout_acc', width, 50)[0] for width in (6, 10, 12, 14, 20, 28, 56)) < 12
    assert '2 to 3% at widths 28 and 56, which answer 99.8% of their training questions' in text
    assert all(2 <= round(percent('heldout_acc', width)[0]) <= 3 for width in (28, 56))
    assert all(round(percent('seen_acc', width)[0], 1) == 99.8 for width in (28, 56))


def test_what_is_said_of_larger_tables_is_in_the_committed_numbers():
    numbers = pd.read_csv(REPO / 'results/why/numbers.csv').set_index(['name', 'condition', 'n_embd'])
    text = ' '.join(README.split())
    found = re.search(r'it answers (\d+)% of the held-out questions in base 12 \(95% interval (\d+) to (\d+)\), '
                      r'(\d+)% in base 24 \((\d+) to (\d+)\)', text).groups()
    rows = [numbers.loc['held-out accuracy', f'base {base}', 20] for base in (12, 24)]
    assert [int(x) for x in found] == [round(100 * x) for row in rows for x in (row.value, row.low, row.high)]
    few, loaded = (numbers.loc['held-out accuracy', f'432 examples, {load}', 20] for load in ('no load', 'random load'))
    value, low, high = (100 * x for x in (few.value, few.low, few.high))
    assert f'it answers {value:.1f}% ({low:.1f} to {high:.1f}), and {100 * loaded.value:.1f}% with random lines' in text
    least = float(re.search(r'and ([\d.]+)% or more of its training questions in both', text)[1])
    assert all(100 * numbers.loc['training accuracy', f'base {base}', 20].value >= least for base in (12, 24))


def test_what_is_said_of_longer_training_is_in_the_committed_numbers():
    numbers = pd.read_csv(REPO / 'results/why/numbers.csv')
    highs = 100 * numbers[numbers.name == 'held-out accuracy at 300,000 minus 30,000'].high
    assert len(highs) == 6 and f'no interval of their gains in accuracy goes above {highs.max():.1f} points' in README


def test_what_is_said_of_the_other_order_is_in_the_committed_numbers():
    numbers = pd.read_csv(REPO / 'results/why/numbers.csv').set_index(['name', 'condition', 'n_embd'])
    text = ' '.join(README.split())
    one_order = numbers.loc['additions', 'one order held out', 28]
    values = [round(100 * x) for x in (one_order.value, one_order.low, one_order.high)]
    assert 'and {}% ({} to {}) if b+a is in its text'.format(*values) in text
    both = 100 * numbers.loc['additions', 'both orders held out', 28].value
    assert f'{both:.0f}% of the additions a+b if b+a is held out as well' in text


def test_what_is_said_of_the_papers_four_questions_is_in_the_committed_runs():
    runs = read_sweep(REPO / 'results/paper')
    final = {width: pd.Series([rows.heldout_acc.iloc[-1] for rows in runs[f'math_mini_{width}'].values()])
             for width in (14, 28, 56)}
    means = [100 * accuracies.mean() for accuracies in final.values()]
    assert '{:.1f}% at width 14, {:.0f}% at 28 and {:.1f}% at 56'.format(*means) in ' '.join(README.split())
    assert f'{sum(final[14] == 1)} of {len(final[14])} seeds answer all four' in ' '.join(README.split())
    page = ' '.join((REPO / 'docs/results.md').read_text(encoding='utf-8').split())
    value, low, high, p = difference(final[14], final[28])
    assert f'by {100 * value:.1f} points ({100 * low:.1f} to {100 * high:.0f}; exact permutation test' in page
    assert f'p = {p:.5f})' in page
    for width, words in ((28, 'peaks at {:.0f}% on average (iteration {:,})'),
                         (56, 'width 56 at {:.1f}% (iteration {:,})')):
        curve = pd.concat(runs[f'math_mini_{width}'].values()).groupby('iter').heldout_acc.mean()
        assert words.format(100 * curve.max(), int(curve.idxmax())) in page


def test_the_page_of_speed_has_what_the_benchmark_printed():
    printed = (REPO / 'results/bench.txt').read_text(encoding='utf-8').split('Intel')[0]
    page = (REPO / 'docs/speed.md').read_text(encoding='utf-8')
    steps = re.findall(r'\| (\w+_mini_\w+) \| ([\w ]+) \| (\S+) \| (\S+) \| (\S+) \| (.+) \|', page)
    assert len(steps) == 8
    for config, weights, plain, compiled, fused, ratio in steps:
        line, = [line for line in printed.splitlines() if re.match(f'{config}, 2 threads, {weights}', line)]
        assert f'plain {plain} ms' in line and f'compiled {compiled} ms' in line
        assert f'fused {fused} ms ({ratio})' in line


def test_no_example_overwrites_a_dataset_of_the_studies():
    """--name=rounds_2_1337 would be split 1337, where the study's seed 1337 has split 0."""
    written = {name for block in BLOCKS for name in re.findall(r'prepare.py --name=(\w+)', block)}
    theirs = '(pair|rounds|orders|random|one_order|base|load|examples)_'
    assert len(written) > 3 and not [name for name in written if re.match(theirs, name)]


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 10 and any('eval_capitals.py' in command for command in COMMANDS)


@pytest.mark.parametrize('command', sorted({command for command in COMMANDS if 'train_with_eval.py' in command}))
def test_documented_trainings_have_settings_that_exist(command, monkeypatch):
    monkeypatch.chdir(REPO)
    script, *args = shlex.split(command)[1:]
    assert settings_of(script, args)['dataset']


@pytest.mark.slow
@pytest.mark.parametrize('command', sorted({command for command in COMMANDS if 'train_with_eval.py' not in command}))
def test_documented_commands_have_options_that_exist(bare, command):
    script, *args = shlex.split(command)[1:]
    out = bare.run(script, '--help', PYTHONPATH='').stdout
    for option in re.findall(r'--(\w+)', ' '.join(args)):
        is_setting = script == 'sweep.py' and option in settings_of(REPO / 'train_with_eval.py', [])
        assert is_setting or re.search(rf'--{option}\b', out), f'{script} has no --{option}'


def test_the_few_lines_of_python_say_what_a_model_expects_and_said(monkeypatch, capsys):
    """With the committed run instead of the one that `make` trains."""
    block = next(block for block in BLOCKS if 'load_model(' in block and 'query' in block)
    monkeypatch.chdir(REPO / 'results')
    exec(textwrap.dedent(block), {})
    out = capsys.readouterr().out
    assert re.match(r'\[0\.9', out) and re.search(r'30000 +0\.9\d+ +12\n', out)


def test_what_it_says_that_make_prints_is_in_a_real_report():
    report = (REPO / 'results/math_mini_14/report.txt').read_text(encoding='utf-8')
    block = next(block for block in BLOCKS if '[.]' in block)
    assert all(line in report for line in textwrap.dedent(block).splitlines())


def test_the_example_of_an_own_dataset_runs_as_it_stands(fresh):
    block = next(block for block in BLOCKS if 'write_dataset' in block)
    (fresh.folder / 'data/animals').mkdir()
    (fresh.folder / 'data/animals/prepare.py').write_text(re.sub('^    ', '', block, flags=re.MULTILINE))
    assert 'questions: 2' in fresh.check('data/animals/prepare.py')
    assert (fresh.folder / 'data/animals/meta.pkl').exists()


@pytest.mark.parametrize('path', [*DOCS, *sorted((REPO / 'study').glob('*.md'))], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target, anchor in re.findall(r'\]\(([^)#]*)#?([^)]*)\)', path.read_text()):
        if not target.startswith(('https://', '../../actions/')):  # the second is the badge's place at GitHub
            there = path.parent / target if target else path
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), f'{target}#{anchor}'


def anchors(page):
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall('^#+ (.*)', page.read_text(), re.MULTILINE)
    return [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings]


@pytest.mark.parametrize('path', [*DOCS, REPO / 'study/widths.md', REPO / 'study/why.md'], ids=lambda path: path.name)
def test_every_figure_has_a_caption(path):
    lines = [line for line in path.read_text(encoding='utf-8').splitlines() if line]
    for line, below in zip(lines, lines[1:]):
        assert not line.startswith('![') or below.startswith(('*', '![')), line
