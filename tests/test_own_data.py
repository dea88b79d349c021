"""A dataset of one's own needs a prepare.py alone: any task, any terminator, its own words in reports and plots."""

import json
import pickle
import re
import shutil

import pandas as pd
import pytest
from conftest import REPO, TINY

from common.questions import Question
from study.datasets import LETTERS, base_questions

# What a user would write: two tasks, one answered by numbers and one by words, with lines that end in their own ways
PREPARE = '''
import os, sys
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))
from common.errors import report_errors; report_errors()
from common.prepare import write_dataset
from common.questions import Question
squares = [Question('squares', f'{n} squared: ', str(n * n), 'held out' if n == 7 else 'seen', ';') for n in range(12)]
past = [Question('past tense', f'yesterday I {now}: ', then, 'seen', '.\\n')
        for now, then in (('sing', 'sang'), ('go', 'went'))]
text = ''.join(q.prompt + q.answer + q.terminator.strip() + '\\n' for q in squares + past if q.group == 'seen')
write_dataset(HERE, text, squares + past)
'''
OWN_RUN = [*TINY, '--dataset=own', '--block_size=24', '--out_dir=own', '--num_samples=3']


@pytest.fixture
def own(project):
    """The project with the dataset data/own, prepared and trained for a moment."""
    (project.folder / 'data/own').mkdir()
    (project.folder / 'data/own/prepare.py').write_text(PREPARE)
    out = project.check('data/own/prepare.py')
    assert 'questions: 14, held out of the text: 7 squared:\n' in out
    project.check('train_with_eval.py', *OWN_RUN)
    return project


def test_its_tasks_have_columns_answers_and_reports_of_their_own_name(own):
    table = pd.read_csv(own.folder / 'own/results.csv')
    for task, total in (('squares', 36), ('past tense', 6), ('heldout', 3), ('add', 0)):
        assert set(table[f'{task}_total']) == {total}
    assert list(table.columns).index('squares_correct') > list(table.columns).index('heldout_prob')
    answers = pd.read_csv(own.folder / 'own/answers.csv.gz', keep_default_na=False)
    assert set(answers.task) == {'squares', 'past tense'} and len(answers) == 14 * len(table)
    out = own.check('eval_as_math.py', '--out_dir=own', '--json=report.json')
    report = json.loads((own.folder / 'report.json').read_text())
    assert '12 questions,\n3 samples each' in out and {q['task'] for q in report['questions']} == {'squares'}
    assert [row['group'] for row in report['totals']] == ['squares', 'seen', 'held out']
    said = [text for q in report['questions'] for text in q['samples']]
    assert len(said) == 36 and not any(';' in text for text in said), 'generation stops at the terminator'
    out = own.check('eval_capitals.py', '--out_dir=own')
    assert re.search(r'^past tense +\d of 2 questions right', out, re.MULTILINE) and 'yesterday I go: went' in out
    own.fails('eval_as_math.py', '--out_dir=own', '--max_operand=19', says="if the questions are not like '<3+4='")


def test_a_table_whose_digits_are_letters_is_a_grid_and_other_texts_beside_it_are_listed(project):
    questions = [*base_questions(24, [(3, 7)]), Question('past tense', 'I go: ', 'went')]
    code = PREPARE[:PREPARE.index('squares =')] + f'questions = {[tuple(q) for q in questions]}\n' + (
        'questions = [Question(*q) for q in questions]\n'
        "write_dataset(HERE, ''.join(q.line + chr(10) for q in questions if q.group == 'seen'), questions)\n")
    (project.folder / 'data/own').mkdir()
    (project.folder / 'data/own/prepare.py').write_text(code)
    project.check('data/own/prepare.py')
    project.check('train_with_eval.py', *OWN_RUN)
    out = project.check('eval_capitals.py', '--out_dir=own', '--plot')
    assert max(map(len, out.splitlines())) <= 80 and 'I go: went' in out
    head, *rows = out.split('a-b, the first operand down and the second across:')[1].splitlines()[2:27]
    assert head.split() == [*LETTERS] and [row.split()[0][0] for row in rows] == [*LETTERS]
    across = {letter: place for place, letter in enumerate(head) if letter in LETTERS}
    for row in rows:  # d-h and h-d are held out
        held_out = {letter for letter, place in across.items() if row[place - 1] == '['}
        assert held_out == {'d': {'h'}, 'h': {'d'}}.get(row.split()[0][0], set())


def test_reports_of_long_prompts_and_names_fit_into_80_columns(project):
    (project.folder / 'data/long').mkdir()
    (project.folder / 'data/long/prepare.py').write_text(PREPARE.replace('yesterday I', 60 * 'long ' + 'ago I').replace(
        ' squared', 30 * ' times' + ' itself').replace("'past tense'", f"'{'past tense ' * 6}'"))
    outs = [project.check('data/long/prepare.py')]
    project.check('train_with_eval.py', *OWN_RUN, '--dataset=long', '--out_dir=long')
    outs += [project.check(script, 'long') for script in ('eval_as_math.py', 'eval_capitals.py')]
    assert [line for out in outs for line in out.splitlines() if len(line) > 80] == [] and 'ago I go: went' in outs[2]


def test_it_is_plotted_under_its_own_names_and_resumes(own):
    out = own.check('train_with_eval.py', '--init_from=resume', '--out_dir=own', '--max_iters=6')
    assert 'held-out 0.0%, training 0.0%' in out and 'facts' not in out
    assert list(pd.read_csv(own.folder / 'own/results.csv').iter) == [0, 2, 4, 6]
    own.check('plot_results.py', '--model_folder=own', '--output=plot.svg')
    svg = (own.folder / 'plot.svg').read_text()
    assert 'squares' in svg and 'past tense' in svg


def test_a_text_that_lacks_a_seen_line_is_refused_by_prepare_and_by_training(own):
    """The line ends 'quack\\n', the question says 'quack \\n'."""
    prepare = own.folder / 'data/own/prepare.py'
    prepare.write_text(PREPARE.replace("'.\\n')", "' \\n')"))
    assert prepare.read_text() != PREPARE
    own.fails('data/own/prepare.py', says=r"the text of own does not contain 'yesterday I sing: sang \n'")
    meta = pickle.loads((own.folder / 'data/own/meta.pkl').read_bytes())
    meta['terminators']['past tense'] = ' \n'
    (own.folder / 'data/own/meta.pkl').write_bytes(pickle.dumps(meta))
    own.fails('train_with_eval.py', *OWN_RUN, '--out_dir=new', says=r"'yesterday I sing: sang \n'")
    assert not (own.folder / 'new').exists()


@pytest.mark.parametrize('terminator', ['>', '> \n'])
def test_the_example_with_numbers_runs_as_it_stands_and_is_scored_as_arithmetic(project, terminator):
    """Also if the lines end in '> ' and a newline, and are joined as the README joins them."""
    readme = (REPO / 'data/mod_math/readme.md').read_text()
    blocks = re.findall(r'(?:^(?:    .*)?\n)+', readme, re.MULTILINE)
    block = next(block for block in blocks if 'write_dataset' in block)
    code = re.sub('^    ', '', block, flags=re.MULTILINE)
    if terminator != '>':
        code = code.replace("else 'seen')", f"else 'seen', {terminator!r})")
        code = code.replace('arithmetic_text(questions)', "''.join(q.line for q in questions if q.group == 'seen')")
    (project.folder / 'data/times').mkdir()
    (project.folder / 'data/times/prepare.py').write_text(code)
    out = project.check('data/times/prepare.py')
    assert 'questions: 100, held out of the text: 6*7, 7*6\n' in out
    size = re.search('--block_size=[0-9]+', out)[0]
    out = project.check('train_with_eval.py', *TINY, '--dataset=times', size, '--out_dir=times')
    assert 'block_size' not in out.split('model:')[0]
    table = pd.read_csv(project.folder / 'times/results.csv')
    assert set(table.times_total) == {200} and set(table.heldout_total) == {4} and set(table.facts_total) == {0}
    out = project.check('eval_as_math.py', 'times')
    assert 'times, a down and b across:' in out and out.count('[x]') == 2
    project.fails('eval_capitals.py', 'times', says='has no questions that are scored as facts: try eval_as_math.py')


# -----------------------------------------------------------------------------
# data/mod_math


def test_modular_addition_of_any_modulus_is_prepared_trained_and_asked(project):
    options = ['--modulus=7', '--held_out_share=0.4', '--split_seed=1', '--name=mod_7']
    project.check('data/mod_math/prepare.py', *options)
    meta = pickle.loads((project.folder / 'data/mod_7/meta.pkl').read_bytes())
    assert len(meta['cases']) == 49 and sum(held_out for *_, held_out in meta['cases']) == round(0.4 * 49)
    for _, prompt, answer, held_out in meta['cases']:
        a, b = map(int, re.findall(r'\d', prompt))
        assert int(answer) == (a + b) % 7
        assert (prompt + answer + '>' in (project.folder / 'data/mod_7/input.txt').read_text()) != held_out
    assert not (project.folder / 'data/mod_math/meta.pkl').exists(), 'with --name nothing is written beside the script'
    config = ['config/train_mod_math.py'] if (REPO / 'config/train_mod_math.py').exists() else []
    project.check('train_with_eval.py', *config, *TINY, '--dataset=mod_7', '--out_dir=mod_7', '--n_embd=16',
                  '--n_head=2')
    table = pd.read_csv(project.folder / 'mod_7/results.csv')
    assert set(table['a+b mod 7_total']) == {98} and set(table.heldout_total) == {40}
    out = project.check('eval_as_math.py', '--out_dir=mod_7')
    assert 'a+b mod 7, a down and b across:' in out
    assert re.search(r'^a\+b mod 7 +\d+ of 49 questions right', out, re.MULTILINE)
    project.fails('eval_as_math.py', '--out_dir=mod_7', '--max_operand=9', says="if the questions are not like '<3+4='")


def test_another_split_seed_holds_out_others_and_nonsense_is_refused(fresh):
    for seed in (1, 2):
        fresh.check('data/mod_math/prepare.py', '--modulus=5', f'--split_seed={seed}', f'--name=split_{seed}')
    metas = [pickle.loads((fresh.folder / f'data/split_{seed}/meta.pkl').read_bytes()) for seed in (1, 2)]
    assert metas[0]['cases'] != metas[1]['cases'] and metas[0]['stoi'] == metas[1]['stoi']
    for option in ('--modulus=1', '--modulus=1000', '--held_out_share=1', '--held_out_share=-0.1'):
        fresh.fails('data/mod_math/prepare.py', option, says='--modulus must be from 2')
    fresh.fails('data/mod_math/prepare.py', '--name=as_math', says='has a prepare.py of its own')
    fresh.fails('data/mod_math/prepare.py', '--modulus=2', '--held_out_share=0.9', says='error')  # leaves nothing


def test_a_config_for_it_fits_its_lines(fresh):
    """The whole of a question is in the model's context, as prepare.py says."""
    if not (REPO / 'config/train_mod_math.py').exists():
        pytest.skip('no config/train_mod_math.py')
    scope = {}
    exec((REPO / 'config/train_mod_math.py').read_text(), scope)
    out = fresh.check('data/mod_math/prepare.py')
    longest = int(re.search('train with --block_size=([0-9]+) or more', out)[1])
    assert scope['dataset'] == 'mod_math' and scope['block_size'] >= longest
    shutil.rmtree(fresh.folder / 'data/mod_math')
