"""Sums beyond the training text (--max_operand): which are asked, and that they are told apart from the others."""

import json
import re

import pytest
from conftest import TINY


def test_every_sum_up_to_max_operand_is_asked_and_counted_in_its_group(project):
    options = ['--out_dir=math_mini_14', '--num_samples=2', '--json=report.json']
    out = project.check('eval_as_math.py', *options, '--max_operand=19')
    report = json.loads((project.folder / 'report.json').read_text())
    groups = {row['group']: row for row in report['totals']}
    assert {name: row['questions'] for name, row in groups.items()} == {
        'addition': 400, 'subtraction': 400, 'seen': 196, 'held out': 4, 'beyond': 600}
    assert sum(groups[name]['correct'] for name in ('seen', 'held out', 'beyond')) == sum(
        question['correct'] for question in report['questions'])
    for question in report['questions']:
        a, sign, b = re.fullmatch(r'<(\d+)([+-])(\d+)=', question['prompt']).groups()
        assert int(question['answer']) == (int(a) + int(b) if sign == '+' else int(a) - int(b))
        assert (question['held_out'] is None) == (max(int(a), int(b)) > 9)
    # seen and held-out questions are asked as without the option
    project.check('eval_as_math.py', *options)
    known = [question for question in report['questions'] if question['held_out'] is not None]
    before = {question['prompt']: question for question in json.loads((project.folder / 'report.json').read_text())['questions']}
    assert len(before) == len(known) == 200
    assert all(question['prob'] == pytest.approx(before[question['prompt']]['prob'], rel=1e-3) for question in known)
    # the grid: a row of twenty cells for each operand, narrow enough for a terminal, those beyond marked
    rows = [line for line in out.splitlines() if re.match(r' +\d+ +\S', line) and '=' not in line]
    assert [int(row.split()[0]) for row in rows] == [*range(20), *range(20)]
    for a, row in enumerate(rows[:20]):
        assert len(row) <= 80 and row.count("'") == (10 if a <= 9 else 20) and row.count('[') == (1 if a in (5, 7) else 0)
    assert "' beyond the training text" in out
    # a screenful of wrong answers, the held-out sums first, and word of the others
    wrong = [line for line in out.splitlines() if 'the model says' in line]
    more = int(re.search(r'and (\d+) more; --json', out)[1])
    assert len(wrong) == 25 and len(wrong) + more == sum(q['correct'] < 2 for q in report['questions'])
    assert all('[held out]' in line for line in wrong[:out.count('[held out]')]) and '[held out]' in out


def test_a_dataset_of_larger_operands_has_its_own_held_out_sums(project):
    project.check('data/as_math/prepare.py', '--max_operand=11', '--held_out', '3,11')
    project.check('train_with_eval.py', 'config/train_math_mini_14.py', *TINY, '--block_size=10', '--out_dir=larger')
    project.check('eval_as_math.py', '--out_dir=larger', '--max_operand=12', '--operation=subtraction', '--json=report.json')
    totals = json.loads((project.folder / 'report.json').read_text())['totals']
    assert {row['group']: row['questions'] for row in totals} == {
        'subtraction': 169, 'seen': 142, 'held out': 2, 'beyond': 25}
    project.fails('eval_as_math.py', '--out_dir=larger', '--max_operand=10', says="below the dataset's own 11")


def test_sums_that_cannot_be_asked_are_refused(project):
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--max_operand=8', says="below the dataset's own 9")
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--max_operand=1000', says='at most 999')
    project.fails('eval_as_math.py', '--out_dir=math_mini_14', '--max_operand=x', says='invalid int')
    project.fails('eval_as_math.py', '--out_dir=facts_mini_14', '--max_operand=19', says='no sums to ask about')
    project.check('data/as_math/prepare.py', '--max_operand=2', '--held_out')
    project.check('train_with_eval.py', 'config/train_math_mini_14.py', *TINY, '--out_dir=few_digits')
    project.fails('eval_as_math.py', '--out_dir=few_digits', '--max_operand=6', says="has no '5', '6', ")
