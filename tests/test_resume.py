"""Stopped and resumed: whenever a run is killed, it goes on by its name alone and ends as if it had never stopped."""

import gzip
import os
import pickle
import random
import re
import shutil
import signal
import time

import pandas as pd
import pytest
import torch
from conftest import TINY, Project, assert_same_run
from run_script import child, context

MATH, FACTS = 'config/train_math_mini_14.py', 'config/train_facts_mini_14.py'
RUN = ['--dataset=few', *TINY, '--max_iters=24', '--eval_interval=4', '--full_eval_interval=8', '--batch_size=32',
       '--dropout=0.1', '--num_samples=3', '--gradient_accumulation_steps=2', '--learning_rate=0.05',
       '--warmup_iters=2',
       '--lr_decay_iters=24', '--temperature=0.5']

# Runs train_with_eval.py to the nth call of a function, and dies as by kill -9: before the call, within it, after it
KILLED = '''
import os, runpy, signal, sys
import common.answers, common.checkpoint, common.evaluate, common.files, model
name, nth, when = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.argv[1:] = sys.argv[4:]
module = {'grade': common.evaluate, 'append_answers': common.answers}.get(name, common.files)
attribute, calls = 'write_file' if name.endswith(('.pt', '.csv')) else name, []
original = getattr(module, attribute)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def until_killed(*args, **kwargs):
    calls.append(attribute == name or str(args[0]).endswith('/' + name))
    dies = calls[-1] and sum(calls) == nth
    if dies and when == 'before':
        die()
    if dies and when == 'half' and name == 'append_answers':
        path = os.path.join(args[2], 'answers.csv.gz')
        before = os.path.getsize(path) if os.path.exists(path) else 0
        original(*args)
        os.truncate(path, (before + os.path.getsize(path)) // 2)
        die()
    if dies and when == 'half':
        os.replace = lambda *names: die()
    result = original(*args, **kwargs)
    if dies:
        die()
    return result

setattr(module, attribute, until_killed)
runpy.run_path('train_with_eval.py', run_name='__main__')
'''


@pytest.fixture(scope='module')
def runs(prepared, tmp_path_factory):
    """The project with a small dataset, a run on it that was never stopped, `whole`, and the script killed.py."""
    folder = tmp_path_factory.mktemp('runs')
    shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
    (folder / 'killed.py').write_text(KILLED)
    project = Project(folder)
    project.check('data/as_math/prepare.py', '--max_operand=2', '--held_out', '1,2', '--name=few')
    project.check('train_with_eval.py', *RUN, '--out_dir=whole')
    return project


def last(folder):
    return torch.load(folder / 'ckpt_last.pt', weights_only=True)


def test_the_run_that_is_killed_is_worth_comparing(runs):
    table = pd.read_csv(runs.folder / 'whole/results.csv')
    assert list(table.iter) == [0, 8, 16, 24] and table.train_loss.is_monotonic_decreasing
    best = torch.load(runs.folder / 'whole/ckpt_best_math.pt', weights_only=True)
    ties = table[table.math_acc == table.math_acc.max()]
    assert best['iter_num'] == table.iter[ties.math_prob.idxmax()] > 0
    assert pd.read_csv(runs.folder / 'whole/answers.csv.gz', keep_default_na=False).said.nunique() > 10


@pytest.mark.parametrize('name, nth, when', [
    ('ckpt_last.pt', 1, 'half'), ('grade', 1, 'before'), ('append_answers', 1, 'half'),
    ('ckpt_last.pt', 5, 'half'), ('ckpt_last.pt', 5, 'after'), ('grade', 5, 'after'), ('ckpt_best_math.pt', 1, 'half'),
    ('ckpt_best_math.pt', 1, 'after'), ('ckpt.pt', 5, 'after'), ('append_answers', 3, 'half'),
    ('append_answers', 3, 'after'),
    ('temp.csv', 5, 'half'), ('temp.csv', 5, 'after'),
])
def test_killed_at_any_step_of_an_evaluation_a_run_resumes_by_its_name_alone_and_ends_the_same(runs, name, nth, when):
    shutil.rmtree(runs.folder / 'killed', ignore_errors=True)
    process = runs.run('killed.py', name, nth, when, *RUN, '--out_dir=killed')
    assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
    if (runs.folder / 'killed/ckpt_last.pt').exists():
        checkpoint = last(runs.folder / 'killed')
        assert all(row['iter'] < checkpoint['iter_num'] for row in checkpoint['rows']), 'saved before it is asked'
        runs.check('train_with_eval.py', '--init_from=resume', '--out_dir=killed')
    else:
        runs.fails('train_with_eval.py', '--init_from=resume', '--out_dir=killed', says='no ckpt_last.pt or ckpt.pt')
        runs.check('train_with_eval.py', *RUN, '--out_dir=killed')
        assert not (runs.folder / 'killed.1/ckpt_last.pt').exists()
        shutil.rmtree(runs.folder / 'killed.1', ignore_errors=True)
    assert_same_run(runs.folder / 'whole', runs.folder / 'killed')
    assert last(runs.folder / 'killed')['rows'][-1]['iter'] < 24


def test_killed_at_random_moments_a_run_ends_the_same_and_has_every_evaluations_answers(runs):
    rng, folder = random.Random(1), runs.folder / 'random'
    kills, exitcode = 0, None
    while kills < 4 or exitcode != 0:
        if exitcode == 0:
            shutil.rmtree(folder)
        args = ['--init_from=resume'] if (folder / 'ckpt_last.pt').exists() else RUN
        process = context.Process(target=child, args=(runs.folder / 'train_with_eval.py', [*args, '--out_dir=random'],
                                                      str(runs.folder), str(runs.folder / 'log')))
        process.start()
        process.join(rng.uniform(0.1, 1.2))
        kills += process.exitcode is None
        process.kill()
        process.join()
        exitcode = process.exitcode
        assert exitcode in (0, -signal.SIGKILL), (runs.folder / 'log.stderr').read_text()
    assert_same_run(runs.folder / 'whole', folder)
    table = pd.read_csv(folder / 'results.csv')
    answers = pd.read_csv(folder / 'answers.csv.gz', keep_default_na=False)
    assert list(answers.groupby('iter').size()) == [18] * 4 and list(answers.iter.unique()) == list(table.iter)
    for row in table.itertuples():
        asked = answers[answers.iter == row.iter]
        assert asked[asked.task == 'add'].correct.sum() == row.add_correct and row.add_total == 27
        assert asked[asked.group == 'held out'].correct.sum() == row.heldout_correct
        assert asked[asked.group == 'seen'].prob.mean() == pytest.approx(row.seen_prob, rel=1e-4)


def test_what_half_an_evaluation_left_at_the_end_of_the_answers_is_dropped(runs):
    shutil.copytree(runs.folder / 'whole', runs.folder / 'half')
    path = runs.folder / 'half/answers.csv.gz'
    whole = path.read_bytes()
    path.write_bytes(whole + gzip.compress(b'24,add,<3+4=,7,seen,3,3,0.9,7\n' * 50)[:-20])
    runs.check('train_with_eval.py', '--init_from=resume', '--out_dir=half')
    assert gzip.decompress(path.read_bytes()) == gzip.decompress(whole)


# -----------------------------------------------------------------------------
# settings of a run that goes on


def test_settings_that_are_not_given_anew_are_the_runs_own_and_those_that_are_given_win(runs):
    own = ['--batch_size=20', '--n_embd=16', '--n_head=2', '--top_k=3', '--dtype=bfloat16', '--wandb_run_name=my run']
    runs.check('train_with_eval.py', MATH, *TINY, *own, '--out_dir=own')
    before = last(runs.folder / 'own')
    out = runs.check('train_with_eval.py', '--init_from=resume', '--out_dir=own')
    assert 'was finished already at iteration 4' in out and 'in bfloat16' in out
    out = runs.check('train_with_eval.py', '--init_from=resume', '--out_dir=own', '--max_iters=6', '--weight_decay=0.1',
                     '--top_k=4')
    for line in ('max_iters=6 (was 4)', 'weight_decay=0.1 (was 0.0)', 'top_k=4 (was 3)'):
        assert 'resuming with ' + line in out
    assert out.count('resuming with') == 3
    after = last(runs.folder / 'own')
    changed = dict(init_from='resume', max_iters=6, weight_decay=0.1, top_k=4)
    assert after['iter_num'] == 6 and after['config'] == {**before['config'], **changed}
    assert [group['weight_decay'] for group in after['optimizer']['param_groups']] == [0.1, 0.0]
    # and again, with nothing given: what was given last is the run's own
    runs.check('train_with_eval.py', '--init_from=resume', '--out_dir=own')
    assert last(runs.folder / 'own')['config'] == after['config']


def test_a_moved_folder_resumes_under_its_new_name(runs):
    runs.check('train_with_eval.py', MATH, *TINY, '--max_iters=2', '--out_dir=old')
    (runs.folder / 'old').rename(runs.folder / 'new')
    runs.check('train_with_eval.py', '--init_from=resume', '--out_dir=new', '--max_iters=4')
    assert not (runs.folder / 'old').exists() and list(pd.read_csv(runs.folder / 'new/results.csv').iter) == [0, 2, 4]
    assert last(runs.folder / 'new')['config']['out_dir'] == 'new'


def test_a_shorter_run_that_is_lengthened_equals_one_that_was_never_stopped(runs):
    for iters in (3, 10, 24):
        first = RUN if iters == 3 else ['--init_from=resume']
        out = runs.check('train_with_eval.py', *first, '--out_dir=parts', f'--max_iters={iters}')
        expected = [n for n in (0, 8, 16, 24) if n < iters] + [iters]
        assert list(pd.read_csv(runs.folder / 'parts/results.csv').iter) == expected
    assert_same_run(runs.folder / 'whole', runs.folder / 'parts')
    assert re.search('done at iteration 24', out)
    table = pd.read_csv(runs.folder / 'parts/results.csv')
    assert table.train_s.is_monotonic_increasing and table.eval_s.is_monotonic_increasing, 'the parts are added'


def test_a_resumed_runs_schedule_is_judged_by_its_own_settings(runs):
    runs.check('train_with_eval.py', MATH, *TINY, '--warmup_iters=5', '--lr_decay_iters=60', '--out_dir=schedule')
    resume = ['train_with_eval.py', '--init_from=resume', '--out_dir=schedule', '--max_iters=5']
    refused = runs.fails(*resume, '--lr_decay_iters=50', '--n_embd=28', says='n_embd=14, not 28')
    assert 'max_iters' not in refused.stdout, 'advice about a run that will not be'
    runs.fails(*resume, '--lr_decay_iters=4', says='lr_decay_iters (4) must be greater than warmup_iters (5)')
    out = runs.check(*resume, '--lr_decay_iters=50')  # the default of warmup_iters would be too long for it
    assert 'max_iters (5) is below lr_decay_iters (50)' in out and '25000' not in out


def test_resuming_refuses_what_changes_the_model_or_the_data(project):
    resume = ['train_with_eval.py', '--init_from=resume', '--out_dir=math_mini_14']
    project.fails(*resume, '--n_embd=28', says='trained with n_embd=14, not 28')
    project.fails(*resume, FACTS, '--out_dir=math_mini_14', says="dataset='as_math', not 'facts_char'")
    project.fails(*resume, '--bias=True', says='bias=False')
    project.fails(*resume, '--max_iters=3', says='is at iteration 4 already')
    project.fails(*resume, '--out_dir=none', says='none not found')
    path = project.folder / 'data/as_math/meta.pkl'
    meta = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({**meta, 'cases': [case for case in meta['cases'] if case[:2] != ('add', '<5+7=')]}))
    project.fails(*resume, '--max_iters=6', says='does not match the questions')
    project.check('data/as_math/prepare.py', '--seed=2')
    project.fails(*resume, says='another text')
    project.check('data/as_math/prepare.py', '--max_operand=3', '--held_out')
    project.fails(*resume, says='another text')


# -----------------------------------------------------------------------------
# signals


@pytest.mark.parametrize('signum, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_saves_and_says_how_to_go_on(project, signum, code):
    options = [MATH, *TINY, '--out_dir=stop it', '--max_iters=1000000', '--eval_interval=1000000',
               '--full_eval_interval=1000000']
    process = context.Process(target=child, args=(project.folder / 'train_with_eval.py', options, str(project.folder),
                                                  str(project.folder / 'log')))
    process.start()
    while not (project.folder / 'stop it/temp.csv').exists():
        assert process.is_alive()
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signum)
    process.join(60)
    out = (project.folder / 'log.stdout').read_text()
    assert process.exitcode == code and not (project.folder / 'log.stderr').read_text()
    assert "  python train_with_eval.py --init_from=resume '--out_dir=stop it'\n" in out
    assert not (project.folder / 'stop it/temp.csv').exists()
    table, checkpoint = pd.read_csv(project.folder / 'stop it/results.csv'), last(project.folder / 'stop it')
    assert checkpoint['iter_num'] > table.iter.iloc[-1] == 0 and len(checkpoint['rows']) == len(table) == 1
    until = checkpoint['iter_num'] + 1
    project.check('train_with_eval.py', '--init_from=resume', '--out_dir=stop it', f'--max_iters={until}')
    assert list(pd.read_csv(project.folder / 'stop it/results.csv').iter) == [0, until]
