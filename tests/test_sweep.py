"""Sweeps: each run is an ordinary model folder, nothing is trained twice, and the summary's statistics are the textbook's."""

import fcntl
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, Project

from summarize import interval, measure, read_seeds, summarize

CONFIGS = ['config/train_both_mini_14.py', 'config/train_both_mini_28.py']
QUICK = [option for option in TINY if not option.startswith('--num_threads')]


def summary(project, name):
    return pd.read_csv(project.folder / 'sweeps' / name / 'summary.csv')


@pytest.fixture(scope='module')
def swept(prepared, tmp_path_factory):
    """The project with a sweep of two configs and two seeds, sweeps/whole; tests make others beside it."""
    folder = tmp_path_factory.mktemp('swept')
    shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
    project = Project(folder)
    out = project.check('sweep.py', *CONFIGS, '--seeds=2', *QUICK, '--name=whole')
    assert '4 runs in sweeps/whole, 0 finished already' in out and 'python plot_results.py --sweep sweeps/whole' in out
    return project


def test_a_sweep_trains_what_a_user_would(swept):
    swept.check('train_with_eval.py', CONFIGS[1], *QUICK, '--seed=1338', '--out_dir=alone', '--num_threads=1')
    alone, run = (pd.read_csv(swept.folder / folder / 'results.csv').drop(columns=['train_s', 'eval_s'])
                  for folder in ('alone', 'sweeps/whole/both_mini_28/seed_1338'))
    pd.testing.assert_frame_equal(alone, run, check_exact=True)
    assert set(summary(swept, 'whole').seeds) == {2}


def test_what_is_finished_is_not_trained_again_and_other_settings_are_refused(swept):
    shutil.copytree(swept.folder / 'sweeps/whole', swept.folder / 'sweeps/more')
    file = swept.folder / 'sweeps/more/both_mini_14/seed_1337/results.csv'
    before = file.stat().st_mtime_ns
    out = swept.check('sweep.py', CONFIGS[0], '--seeds=3', *QUICK, '--name=more')
    assert '3 runs in sweeps/more, 2 finished already' in out and file.stat().st_mtime_ns == before
    table = summary(swept, 'more')
    assert set(table[table.config == 'both_mini_14'].seeds) == {3}
    swept.fails('sweep.py', CONFIGS[0], '--seeds=2', *QUICK, '--name=more', '--weight_decay=0.1', says='choose another --name')
    swept.fails('sweep.py', CONFIGS[0], '--seeds=2', *QUICK, '--name=more', '--max_iters=2', says='is at iteration 4 already')
    swept.check('data/both_math_and_facts/prepare.py', '--held_out', '1,2')
    swept.fails('sweep.py', CONFIGS[0], '--seeds=4', *QUICK, '--name=more', says='trained on another text')
    swept.check('data/both_math_and_facts/prepare.py')


@pytest.mark.parametrize('to_group', [False, True])
def test_a_stopped_sweep_saves_its_runs(swept, to_group):
    """SIGTERM from a cluster or a shell, and Ctrl-C, which the terminal sends to every process of the group."""
    name = f'stopped_{to_group}'
    options = [CONFIGS[0], '--seeds=1', *QUICK, '--max_iters=1000000', '--eval_interval=1000000',
               '--full_eval_interval=1000000', f'--name={name}']
    process = subprocess.Popen([sys.executable, 'sweep.py', *options], cwd=swept.folder, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    run = swept.folder / f'sweeps/{name}/both_mini_14/seed_1337'
    while not (run / 'ckpt_last.pt').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT) if to_group else process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'goes on from where' in out and 'Traceback' not in err
    assert torch.load(run / 'ckpt_last.pt', weights_only=True)['iter_num'] > 0
    assert 'stopped at iteration' in (run.parent / 'seed_1337.log').read_text()


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_killed_halfway_and_started_again_gives_the_same_summary(swept, signum):
    options = [*CONFIGS, '--seeds=2', *QUICK, f'--name=killed_{signum}']
    process = subprocess.Popen([sys.executable, 'sweep.py', *options], cwd=swept.folder, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = swept.folder / f'sweeps/killed_{signum}'
    while not list(folder.glob('*/seed_*/ckpt_last.pt')):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    if signum == signal.SIGKILL:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if signum == signal.SIGKILL else 130)
    assert not (folder / 'summary.csv').exists()
    swept.check('sweep.py', *options)
    pd.testing.assert_frame_equal(summary(swept, 'whole'), summary(swept, f'killed_{signum}'), check_exact=True)


def test_a_sweep_waits_for_a_training_that_outlived_it(project):
    """kill -9 of sweep.py alone leaves its trainings at work."""
    options = ['--seeds=1', *QUICK, '--max_iters=2000', '--eval_interval=500', '--full_eval_interval=500']
    process = subprocess.Popen([sys.executable, 'sweep.py', CONFIGS[0], *options], cwd=project.folder,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = project.folder / 'sweeps/main/both_mini_14/seed_1337'
    while not (run / 'temp.csv').exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    fd = os.open(run, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # still at work
    os.close(fd)
    project.check('sweep.py', CONFIGS[0], *options)
    assert list(read_seeds(run.parent)) == [run] and not (run.parent / 'seed_1337.1').exists()


def test_one_failure_does_not_stop_the_others_and_is_reported_with_its_log(project):
    run = project.folder / 'sweeps/main/both_mini_14/seed_1338'
    run.mkdir(parents=True)
    (run / 'ckpt_last.pt').write_bytes(b'half a checkpoint')
    process = project.run('sweep.py', CONFIGS[0], '--seeds=2', *QUICK)
    assert process.returncode == 1 and '1 of 2 runs failed' in process.stdout, process.stderr
    assert 'seed_1338: error: checkpoint' in process.stdout and 'seed_1338.log' in process.stdout
    assert set(summary(project, 'main').seeds) == {1}
    (run / 'ckpt_last.pt').unlink()
    project.check('sweep.py', CONFIGS[0], '--seeds=2', *QUICK)
    assert set(summary(project, 'main').seeds) == {2}


@pytest.mark.parametrize('args, says', [
    (['--n_embed=28'], 'did you mean n_embd'), (['--seed=3'], 'a sweep sets it'), (['--verbose'], '--key=value'),
    (['--seeds=0'], 'above 0'), (['--cluster_options', 'x'], 'not key=value'),
    (CONFIGS[:1], 'two configs'),
])
def test_a_wrong_sweep_is_refused_before_anything_is_trained(prepared, args, says):
    prepared.fails('sweep.py', CONFIGS[0], *QUICK, '--name=wrong', *args, says=says)
    assert not list((prepared.folder / 'sweeps/wrong').glob('*/seed_*'))


def test_without_slurm_one_sentence_says_so(prepared):
    process = subprocess.run([sys.executable, 'sweep.py', CONFIGS[0], '--cluster=slurm', '--name=wrong'], text=True,
                             cwd=prepared.folder, env={**os.environ, 'PATH': '/nowhere'}, capture_output=True)
    assert process.returncode == 1 and process.stderr.startswith('error: --cluster=slurm cannot be used here')
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize('cluster', ['local', 'debug'])
def test_the_same_runs_go_through_submitit(swept, cluster):
    pytest.importorskip('submitit')
    swept.check('sweep.py', CONFIGS[0], '--seeds=2', *QUICK, f'--cluster={cluster}', f'--name={cluster}')
    here = summary(swept, 'whole')
    here = here[here.config == 'both_mini_14'].reset_index(drop=True)
    pd.testing.assert_frame_equal(summary(swept, cluster), here, atol=1e-5)


def test_a_summary_is_the_same_from_the_small_files_alone_and_is_plotted(swept):
    out = swept.check('summarize.py', 'sweeps/whole', '--output=results/whole')
    assert 'both_mini_28' in out and out.count('of 2 seeds') == 2
    before = (swept.folder / 'results/whole/summary.csv').read_bytes()
    assert not list((swept.folder / 'results').glob('**/*.pt'))
    swept.check('summarize.py', 'results/whole')
    assert (swept.folder / 'results/whole/summary.csv').read_bytes() == before
    swept.check('plot_results.py', '--sweep=results/whole')
    for name in ('curves.png', 'capacity.png'):
        assert (swept.folder / 'results/whole' / name).read_bytes().startswith(b'\x89PNG')
    swept.check('plot_results.py', '--model_folder', 'results/whole/both_mini_14', 'both_mini_14')
    (swept.folder / 'results/whole/summary.csv').unlink()  # it alone knew the number of parameters
    swept.fails('plot_results.py', '--sweep=results/whole', says='capacity.png cannot be drawn')
    stray = swept.folder / 'results/whole/both_mini_14/seed_7'  # of another sweep: not to be summed up with this one
    shutil.copytree(swept.folder / 'sweeps/whole/both_mini_14/seed_1337', stray)
    swept.fails('summarize.py', 'sweeps/whole', '--output=results/whole', says='seed_7/results.csv is of no finished run')
    (swept.folder / 'going_on/seed_1').mkdir(parents=True)
    swept.fails('plot_results.py', '--model_folder=going_on', says='no seed of going_on has finished')
    swept.fails('summarize.py', 'config', says='no runs in config')
    swept.fails('plot_results.py', '--sweep=nowhere', says='no runs in nowhere')


def run_of(iters, heldout, seen=196, sums=200):
    """A results.csv of sums: held-out and seen questions right at each evaluation, ten samples each."""
    return pd.DataFrame(dict(
        iter=iters, add_correct=[5 * (s + h) for s, h in zip(seen, heldout)], add_total=5 * sums,
        sub_correct=[5 * (s + h) for s, h in zip(seen, heldout)], sub_total=5 * sums,
        math_acc=[(s + h) / sums for s, h in zip(seen, heldout)], facts_correct=0, facts_total=0, facts_acc=0.0,
        train_loss=[1.0] * len(iters), val_loss=[1.0] * len(iters), seen_acc=[s / 196 for s in seen],
        heldout_correct=[10 * h for h in heldout], heldout_total=40, heldout_acc=[h / 4 for h in heldout],
        seen_prob=0.5, heldout_prob=0.25)).astype(float)


def test_a_runs_measures_tell_end_best_and_first_time_apart():
    found = measure(run_of([0, 250, 500, 750], heldout=[0, 4, 4, 3], seen=[0, 190, 196, 196]))
    assert found['final_heldout_acc'] == 0.75 and found['final_all_heldout'] == 0 and found['final_seen_sums_acc'] == 1
    assert found['best_heldout_acc'] == 1 and found['best_add_acc'] == 1 and found['ever_all_heldout'] == 1
    assert found['first_iter_all_heldout'] == 250 and found['first_iter_all_seen'] == 500 and found['final_all_seen'] == 1
    assert 'final_facts_acc' not in found
    never = measure(run_of([0, 250], heldout=[0, 0], seen=[1, 2]))
    assert math.isnan(never['first_iter_all_seen']) and never['ever_all_seen'] == 0


def test_intervals_are_wilsons_for_shares_and_students_for_the_rest():
    low, high = interval('final_all_heldout', pd.Series([1.0] * 7 + [0.0] * 3))
    z, p, n = 1.959964, 0.7, 10  # the textbook's formula
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-5)
    assert high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-5)
    low, high = interval('final_train_loss', pd.Series([0.7, 0.8, 1.0]))
    half = 4.302653 * np.std([0.7, 0.8, 1.0], ddof=1) / np.sqrt(3)
    assert (low, high) == (pytest.approx(2.5 / 3 - half, abs=1e-5), pytest.approx(2.5 / 3 + half, abs=1e-5))
    assert interval('first_iter_all_seen', pd.Series([1.0, 1000.0]))[0] == 0.0
    assert interval('final_add_acc', pd.Series([0.0, 1.0])) == (0.0, 1.0)
    assert all(map(math.isnan, interval('final_add_acc', pd.Series([0.5]))))


def test_a_run_that_stopped_short_is_left_out_and_named(tmp_path, capsys):
    config = tmp_path / 'math_mini_14'
    for seed, iters in ((1, [0, 250, 500]), (2, [0, 250]), (10, [0, 250, 500])):
        (config / f'seed_{seed}').mkdir(parents=True)
        run_of(iters, [0] * len(iters), [0] * len(iters)).to_csv(config / f'seed_{seed}/results.csv', index=False)
    assert [run.name for run in read_seeds(config)] == ['seed_1', 'seed_10']
    assert set(summarize(tmp_path).seeds) == {2}
    assert capsys.readouterr().out.count('left out') == 1 and 'seed_2' not in ''.join(map(str, read_seeds(config)))
