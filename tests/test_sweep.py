"""Sweeps: each run is an ordinary model folder, nothing is trained twice, and the statistics are the textbook's."""

import gzip
import io
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO, TIMING, TINY, Project

import sweep
from common import cores
from common.answers import append_answers, read_answers
from common.checkpoint import update_best
from common.dataset import meta_bytes
from common.errors import UserError
from common.questions import Question
from common.results import other_tasks, read_results, samples_right
from common.sweeps import measure, read_seeds, read_sweep, summarize
from common.run_folder import lock_folder
from common.statistics import seeds_interval
from configurator import settings_of

CONFIGS = ['config/train_both_mini_14.py', 'config/train_both_mini_28.py']
QUICK = [option for option in TINY if not option.startswith('--num_threads')]


def summary(project, name, config=''):
    table = pd.read_csv(project.folder / 'sweeps' / name / 'summary.csv')
    return table[table.config.str.startswith(config)].reset_index(drop=True)


def answers(project, name, config=''):
    """The lines of the answers in the copy of a sweep, which is made in results/NAME; those of one config if named."""
    project.check('summarize.py', f'sweeps/{name}', f'--output=results/{name}')
    lines = gzip.decompress((project.folder / 'results' / name / 'answers.csv.gz').read_bytes()).decode().splitlines()
    return [line for line in lines if line.startswith(config)]


@pytest.fixture(scope='module')
def swept(bare, tmp_path_factory):
    """The project with a sweep of two configs and two seeds, sweeps/whole; tests make others beside it."""
    folder = tmp_path_factory.mktemp('swept')
    shutil.copytree(bare.folder, folder, dirs_exist_ok=True)
    project = Project(folder)
    out = project.check('sweep.py', *CONFIGS, '--seeds=2', *QUICK, '--name=whole')
    assert re.search(r'^4 of 4: sweeps/whole/\S+: done$', out, re.MULTILINE)
    assert '4 runs in sweeps/whole, 0 finished already' in out and 'python plot_results.py --sweep sweeps/whole' in out
    return project


def test_a_sweep_trains_what_a_user_would_and_its_copy_has_what_each_run_answers_at_its_end(swept):
    swept.check('train_with_eval.py', CONFIGS[1], *QUICK, '--seed=1338', '--out_dir=alone', '--num_threads=1')
    run = swept.folder / 'sweeps/whole/both_mini_28/seed_1338'
    alone, swept_one = (pd.read_csv(folder / 'results.csv').drop(columns=TIMING)
                        for folder in (swept.folder / 'alone', run))
    pd.testing.assert_frame_equal(alone, swept_one, check_exact=True)
    assert set(summary(swept, 'whole').seeds) == {2}
    collected = pd.read_csv(io.StringIO('\n'.join(answers(swept, 'whole'))), keep_default_na=False)
    assert list(collected.columns[:4]) == ['config', 'seed', 'when', 'iter'] and set(collected.iter) == {4}
    assert set(collected.when) == {'last'}, 'a run of four iterations never fits'
    assert dict(collected.groupby(['config', 'seed']).size()) == {
        (config, seed): 250 for config in ('both_mini_14', 'both_mini_28') for seed in (1337, 1338)}
    own = pd.read_csv(run / 'answers.csv.gz', keep_default_na=False)
    of_run = collected[(collected.config == 'both_mini_28') & (collected.seed == 1338)]
    of_run = of_run.drop(columns=['config', 'seed', 'when', 'terminator'])
    pd.testing.assert_frame_equal(of_run.reset_index(drop=True), own[own.iter == 4].reset_index(drop=True))


def test_what_is_finished_is_not_trained_again_and_other_settings_are_refused(swept):
    shutil.copytree(swept.folder / 'sweeps/whole', swept.folder / 'sweeps/more')
    file = swept.folder / 'sweeps/more/both_mini_14/seed_1337/results.csv'
    before = file.stat().st_mtime_ns
    out = swept.check('sweep.py', CONFIGS[0], '--seeds=3', *QUICK, '--name=more')
    assert '3 runs in sweeps/more, 2 finished already' in out and file.stat().st_mtime_ns == before
    table = summary(swept, 'more')
    assert set(table[table.config == 'both_mini_14'].seeds) == {3}
    again = ['sweep.py', CONFIGS[0], '--seeds=2', *QUICK, '--name=more']
    swept.fails(*again, '--weight_decay=0.1', says='choose another --name')
    swept.fails(*again, '--max_iters=2', says='is at iteration 4 already')
    swept.check('data/both_math_and_facts/prepare.py', '--held_out', '1,2')
    swept.fails('sweep.py', CONFIGS[0], '--seeds=4', *QUICK, '--name=more', says='trained on another text')
    swept.check('data/both_math_and_facts/prepare.py')


def planned(monkeypatch, *argv):
    """The runs of a sweep, of which none is trained: dict of folder to its settings."""
    monkeypatch.setattr(sys, 'argv', ['sweep.py', *argv])
    runs = sweep.plan_runs(*sweep.parse_arguments())
    return {folder: settings_of(sweep.TRAIN, argv) for folder, (argv, _) in runs.items()}


def test_a_list_of_values_trains_every_combination_and_seed_stands_for_the_runs_own(monkeypatch, tmp_path):
    for name in ('pair_7', 'pair_8', 'as_math'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'train.bin').touch()
    monkeypatch.setattr(sweep, 'DATA', tmp_path)
    monkeypatch.chdir(tmp_path)
    runs = planned(monkeypatch, str(REPO / 'config/train_math_mini_14.py'), '--seeds=2', '--seed=7', '--name=study',
                   '--n_embd=6,8', '--dropout=0.1', '--dataset=pair_{seed},as_math')
    expected = {Path(f'sweeps/study/math_mini,n_embd={width},dataset={label}/seed_{seed}'): (width, dataset, seed, 0.1)
                for seed in (7, 8) for width in (6, 8)
                for label, dataset in (('pair', f'pair_{seed}'), ('as_math', 'as_math'))}
    assert expected == {folder: tuple(settings[key] for key in ('n_embd', 'dataset', 'seed', 'dropout'))
                        for folder, settings in runs.items()}


def start_sweep(project, *args):
    return project.popen('sweep.py', *args, start_new_session=True)


def wait_until(process, there):
    """Wait until there() holds while a process runs."""
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize('to_group', [False, True])
def test_a_stopped_sweep_saves_its_runs(swept, to_group):
    """SIGTERM from a cluster or a shell, and Ctrl-C, which the terminal sends to every process of the group."""
    name = f'stopped_{to_group}'
    process = start_sweep(swept, CONFIGS[0], '--seeds=1', *QUICK, '--max_iters=1000000', '--eval_interval=1000000',
                          '--full_eval_interval=1000000', f'--name={name}')
    run = swept.folder / f'sweeps/{name}/both_mini_14/seed_1337'
    wait_until(process, (run / 'temp.csv').exists)
    time.sleep(0.5)
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if to_group else 143)
    assert 'repeat the command' in out and 'Traceback' not in err
    assert torch.load(run / 'ckpt_last.pt', weights_only=True)['iter_num'] > 0
    assert 'stopped at iteration' in (run.parent / 'seed_1337.log').read_text()


def test_a_sweep_killed_halfway_and_started_again_gives_the_same_summary_and_answers(swept):
    options = [CONFIGS[0], '--seeds=2', *QUICK, '--name=killed']
    process, folder = start_sweep(swept, *options), swept.folder / 'sweeps/killed'
    wait_until(process, lambda: list(folder.glob('*/seed_*/ckpt_last.pt')))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -9 and not (folder / 'summary.csv').exists()
    swept.check('sweep.py', *options)  # which waits for the trainings, because these outlive the first
    pd.testing.assert_frame_equal(summary(swept, 'whole', 'both_mini_14'), summary(swept, 'killed'), check_exact=True)
    assert answers(swept, 'whole', 'both_mini_14') == answers(swept, 'killed', 'both_mini_14') != []


def test_one_failure_does_not_stop_the_others_and_is_reported_with_its_log(fresh):
    run = fresh.folder / 'sweeps/main/both_mini_14/seed_1338'
    run.mkdir(parents=True)
    (run / 'ckpt_last.pt').write_bytes(b'half a checkpoint')
    process = fresh.run('sweep.py', CONFIGS[0], '--seeds=2', *QUICK)
    assert process.returncode == 1 and '1 of 2 runs failed' in process.stdout, process.stderr
    assert 'error: checkpoint' in process.stdout and 'seed_1338.log' in process.stdout
    assert set(summary(fresh, 'main').seeds) == {1}


@pytest.mark.parametrize('args, says', [
    (['--n_embed=28'], 'did you mean n_embd'), (['--out_dir=x'], 'a sweep sets it'), (['--verbose'], '--key=value'),
    (['--seeds=0'], 'above 0'), (['--cluster_options', 'x'], 'not key=value'),
    (CONFIGS[:1], 'two runs would be called'),
    (['nowhere.py'], 'nowhere.py'), (['--seed=x'], 'invalid int'), (['--n_embd=14,,28'], 'an empty value'),
    (['--dataset=as_math_{seed}'], 'data/as_math_1337 is not prepared: did you mean as_math? A prepare.py'),
    (['--n_embd=6,x'], "must be a whole number, not 'x'"),
    (['--n_embd=6,6'], 'two runs would be called'), (['--learning_rate=0.01,1e-2'], 'would be the same run'),
    (['--dataset=as_math,../as_math'], 'contains a slash'),
])
def test_a_wrong_sweep_is_refused_before_anything_is_trained(swept, args, says):
    swept.fails('sweep.py', CONFIGS[0], *QUICK, '--name=wrong', *args, says=says)
    assert not list((swept.folder / 'sweeps/wrong').glob('*/seed_*'))


def test_two_sweeps_of_one_name_do_not_run_at_once(swept):
    (swept.folder / 'sweeps/twice').mkdir()
    lock = lock_folder(swept.folder / 'sweeps/twice')
    swept.fails('sweep.py', CONFIGS[0], *QUICK, '--name=twice',
                says=f'another sweep is running in sweeps/twice (process {os.getpid()} on')
    lock.close()


# -----------------------------------------------------------------------------
# one training of a sweep, with a stand-in for the script that trains

# It waits to be stopped if it begins, ends if it goes on, and tells which process has started it
STAND_IN = '''
if __name__ == '__main__':
    import os, pathlib, signal, sys, time
    folder = pathlib.Path(next(arg for arg in sys.argv if arg.startswith('--out_dir=')).split('=')[1])
    folder.mkdir(exist_ok=True)

    def save(signum, frame):
        time.sleep(0.3)
        (folder / 'ckpt_last.pt').write_text(str(signum))
        os._exit(128 + signum)
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, save)
    print('started', sys.argv[-1])
    if (folder / 'ckpt_last.pt').exists():
        (folder / 'temp.csv').rename(folder / 'results.csv')
        sys.exit()
    (folder / 'temp.csv').write_text(pathlib.Path('rows.csv').read_text())
    (folder / 'parent').write_text(str(os.getppid()))
    time.sleep(60)
'''


@pytest.fixture
def training(monkeypatch, tmp_path):
    """A training in a thread that has begun: its process, its folder, and end(), which returns its exit code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'train.py').write_text(STAND_IN)
    (tmp_path / 'rows.csv').write_text('iter\n4\n')
    monkeypatch.setattr(sweep, 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setattr(sweep, 'stop', SimpleNamespace(code=0))
    run, call, codes = ([], tmp_path / 'config/seed_1', 4, 1), sweep.Training(), []
    thread = threading.Thread(target=lambda: codes.append(call(*run)))

    def begin():
        thread.start()
        while not (tmp_path / 'config/seed_1/parent').exists():
            assert thread.is_alive()
            time.sleep(0.02)

    def end():
        thread.join(20)
        return codes[0]
    yield SimpleNamespace(call=call, run=run, folder=run[1], begin=begin, end=end)
    call.process.kill()


def test_a_training_ends_and_saves_before_its_job_is_queued_again(training):
    submitit = pytest.importorskip('submitit')
    training.begin()
    again = training.call.checkpoint(*training.run)
    assert training.call.process.returncode == 128 + signal.SIGUSR2 and (training.folder / 'ckpt_last.pt').exists()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.args == training.run
    assert isinstance(again.function, sweep.Training) and again.function.process is None, 'a process cannot be pickled'
    training.end()


@pytest.mark.parametrize('in_job, code', [(True, 0), (False, 128 + signal.SIGTERM)])
def test_a_training_that_is_told_to_stop_goes_on_if_its_job_does(training, monkeypatch, in_job, code):
    """A scheduler warns all processes of a job; if a person ends one run of a sweep here, it is ended."""
    if in_job:
        monkeypatch.setenv('SUBMITIT_EXECUTOR', 'slurm')
    training.begin()
    training.call.process.terminate()
    assert training.end() == code and (training.folder / 'ckpt_last.pt').read_text() == str(int(signal.SIGTERM))
    assert (training.folder / 'results.csv').exists() == in_job
    assert ('started --init_from=resume' in (training.folder.parent / 'seed_1.log').read_text()) == in_job


def test_a_training_does_not_outlive_a_job_that_is_ended(training, monkeypatch):
    def ends(seconds):
        while not (training.folder / 'parent').exists():
            pass
        raise SystemExit
    monkeypatch.setattr(sweep, 'time', SimpleNamespace(sleep=ends))
    with pytest.raises(SystemExit):
        training.call(*training.run)
    assert training.call.process.returncode == 128 + signal.SIGUSR2 and (training.folder / 'ckpt_last.pt').exists()


def test_on_windows_nothing_is_sent_to_a_training_because_it_would_be_killed(monkeypatch):
    monkeypatch.delattr(signal, 'SIGUSR2')
    training = sweep.Training()
    # it has no terminate() and no send_signal()
    training.process = SimpleNamespace(poll=lambda: None, wait=lambda: 130)
    assert training.save_and_end() == 130


def test_a_sweep_says_for_whom_it_waits(tmp_path, monkeypatch, capsys):
    locks = [lock_folder(tmp_path)]
    monkeypatch.setattr(sweep, 'time',
                        SimpleNamespace(sleep=lambda seconds: locks and locks.append(1) or len(locks) > 3 and
                                                       locks[0].close()))
    sweep.wait_for_lock(tmp_path)
    assert capsys.readouterr().out.count(f'still training in {tmp_path} (process {os.getpid()} on ') == 1


@pytest.mark.parametrize('error, says', [
    ('Job (task=0) failed during processing with trace:\n-----\nTraceback\nKeyError: 5\n\n-----\nYou can check full '
     'logs with x\n  - y', 'KeyError: 5'),
    ('Job 7 has not produced any output (state: TIMEOUT)\nError stream produced:\n----\n'
     'slurmstepd: DUE TO TIME LIMIT ***\n', 'slurmstepd: DUE TO TIME LIMIT ***'), ('', 'RuntimeError')])
def test_why_a_cluster_lost_a_run_is_said_in_one_line(error, says):
    assert sweep.reason(RuntimeError(error)) == says


def test_the_command_of_a_run_is_not_the_reason_why_it_failed(tmp_path):
    for text, says in (('$ python train\nstopped\n$ python train\n', 'stopped'),
                       ('$ python train\n', 'it printed nothing')):
        (tmp_path / 'seed_1.log').write_text(text)
        assert sweep.last_line(tmp_path / 'seed_1') == says


def test_a_job_whose_time_is_up_is_queued_again_until_its_run_is_done(fresh):
    pytest.importorskip('submitit')
    train = fresh.folder / 'train_with_eval.py'
    train.write_text(train.read_text().split("\nif __name__ == '__main__'")[0] + STAND_IN)
    run_of([0, 4], [0, 1]).assign(n_params=1).to_csv(fresh.folder / 'rows.csv', index=False)
    process = start_sweep(fresh, CONFIGS[0], '--seeds=1', *QUICK, '--cluster=local')
    folder = fresh.folder / 'sweeps/main/both_mini_14/seed_1337'
    wait_until(process, (folder / 'parent').exists)
    os.kill(int((folder / 'parent').read_text()), signal.SIGUSR2)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and 'sweeps/main/summary.csv has the results' in out, out + err
    assert (folder / 'ckpt_last.pt').read_text() == str(int(signal.SIGUSR2))


def test_without_slurm_one_sentence_says_so(swept):
    process = swept.fails('sweep.py', CONFIGS[0], '--cluster=slurm', '--name=wrong', PATH='/nowhere',
                          says='error: --cluster=slurm cannot be used here')
    assert len(process.stderr.splitlines()) == 1


def test_the_same_runs_go_through_submitit(swept):
    pytest.importorskip('submitit')
    swept.check('sweep.py', CONFIGS[0], '--seeds=1', *QUICK, '--cluster=local', '--name=local')
    tables = [pd.read_csv(swept.folder / 'sweeps' / name / 'both_mini_14/seed_1337/results.csv')
              for name in ('whole', 'local')]
    pd.testing.assert_frame_equal(*(table.drop(columns=TIMING) for table in tables), atol=1e-5)


@pytest.mark.parametrize('quota, expected', [
    ({}, 64), ({'cpu.max': '200000 100000\n'}, 2), ({'cpu.max': 'max 100000\n'}, 64),
    ({'cpu.max': '50000 100000\n'}, 1),
    ({'cpu/cpu.cfs_quota_us': '250000\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 2),
    ({'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, 64)])
def test_a_container_gets_as_many_runs_at_once_as_its_quota_has_cores(tmp_path, monkeypatch, quota, expected):
    for name, text in quota.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cores, 'CGROUPS', tmp_path)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: set(range(64)))
    monkeypatch.setattr(sys, 'argv', ['sweep.py', CONFIGS[0]])
    assert sweep.parse_arguments()[0].jobs == expected


# -----------------------------------------------------------------------------
# the copy of a sweep


@pytest.fixture(scope='module')
def copied(swept):
    """The project with a copy of sweeps/whole, results/whole; tests leave both as they are."""
    swept.check('summarize.py', 'sweeps/whole', '--output=results/whole')
    return swept


def test_a_copy_has_three_files_and_is_summarised_as_the_sweep_is(copied):
    folder, names = copied.folder / 'results/whole', {'summary.csv', 'results.csv.gz', 'answers.csv.gz'}
    before = files_of(folder)
    assert {str(path) for path in before} == names
    assert 'both_mini_28' in copied.check('summarize.py', 'results/whole')
    copied.check('summarize.py', 'sweeps/whole', '--output=results/whole')
    assert before == files_of(folder)
    assert before[Path('summary.csv')] == (copied.folder / 'sweeps/whole/summary.csv').read_bytes()


def test_a_sweep_that_cannot_be_written_to_can_be_copied(copied):
    shutil.copytree(copied.folder / 'sweeps/whole', copied.folder / 'sweeps/read_only')
    (copied.folder / 'sweeps/read_only/summary.csv').unlink()
    before = files_of(copied.folder / 'sweeps/read_only')
    copied.check('summarize.py', 'sweeps/read_only', '--output=results/of_read_only')
    assert files_of(copied.folder / 'sweeps/read_only') == before  # root may write anywhere, so this looks at the files
    assert files_of(copied.folder / 'results/of_read_only') == files_of(copied.folder / 'results/whole')


@pytest.fixture
def beside(copied, request):
    """The project, a copy of the sweep in sweeps/TEST to change, and a copy of its copy in results/TEST."""
    name = request.node.name.split('[')[0]
    for folder in ('sweeps', 'results'):
        shutil.copytree(copied.folder / folder / 'whole', copied.folder / folder / name)
    yield copied, copied.folder / 'sweeps' / name, copied.folder / 'results' / name
    for folder in ('sweeps', 'results'):
        shutil.rmtree(copied.folder / folder / name)


def cut_last_row(run):
    rows = (run / 'results.csv').read_text().splitlines(keepends=True)
    (run / 'results.csv').write_text(''.join(rows[:-1]))


@pytest.mark.parametrize('seed, says', [(1337, 'has another run of both_mini_14, seed 1337, or a longer one'),
                                        (9, 'the runs of both_mini_14 end at iterations')])
def test_runs_that_do_not_fit_a_copy_are_not_added_to_it(beside, seed, says):
    project, sweep, copy = beside
    for run in (sweep / 'both_mini_14').glob('seed_*'):
        if run.name == 'seed_1337':
            cut_last_row(run)
            run.rename(run.with_name('cut'))
        elif run.is_dir():
            shutil.rmtree(run)
    (sweep / 'both_mini_14/cut').rename(sweep / f'both_mini_14/seed_{seed}')
    before = files_of(copy)
    project.fails('summarize.py', sweep, f'--output={copy}', '--add', says=says)
    assert files_of(copy) == before


def test_a_copy_keeps_the_answers_of_a_run_that_has_lost_its_own(beside):
    project, sweep, copy = beside
    before = files_of(copy)
    path = sweep / 'both_mini_14/seed_1337/answers.csv.gz'
    path.write_bytes(path.read_bytes()[:200])
    process = project.run('summarize.py', sweep, f'--output={copy}')
    assert process.returncode == 0 and 'left out of answers.csv.gz' in process.stderr
    assert files_of(copy) == before


def test_a_config_without_a_finished_run_is_named(beside):
    project, sweep, _ = beside
    for run in (sweep / 'both_mini_14').glob('seed_*/results.csv'):
        run.rename(run.with_name('temp.csv'))
    process = project.run('summarize.py', sweep)
    assert process.returncode == 0 and 'both_mini_14: none of its runs has finished' in process.stderr


def test_a_sweep_is_not_trained_in_a_copy(beside):
    project, _, copy = beside
    shutil.copytree(copy, project.folder / 'sweeps/a_copy')
    project.fails('sweep.py', *CONFIGS, *QUICK, '--name=a_copy', says='is a copy that summarize.py --output wrote')
    shutil.rmtree(project.folder / 'sweeps/a_copy')


def test_two_configs_are_compared_from_a_copy_and_one_that_is_not_there_is_named(copied):
    compare = ['summarize.py', 'results/whole', '--compare', 'both_mini_14']
    assert 'held out, %' in copied.check(*compare, 'both_mini_28')
    copied.fails(*compare, 'x', says='the sweep has no x: name two of both_')


def test_a_copy_is_plotted_as_the_sweep_is_and_needs_no_summary(copied):
    copied.check('plot_results.py', '--sweep=sweeps/whole')
    shutil.copytree(copied.folder / 'results/whole', copied.folder / 'results/plotted')
    (copied.folder / 'results/plotted/summary.csv').unlink()
    copied.check('plot_results.py', '--sweep=results/plotted')
    for name in ('curves.png', 'capacity.png'):
        pictures = [(copied.folder / folder / name).read_bytes() for folder in ('results/plotted', 'sweeps/whole')]
        assert pictures[0] == pictures[1]


def test_the_seeds_of_a_config_are_plotted_beside_a_single_run(copied):
    copied.check('plot_results.py', '--model_folder', 'sweeps/whole/both_mini_14',
                 'sweeps/whole/both_mini_28/seed_1337')


@pytest.mark.parametrize('folder, output, says', [
    ('sweeps/whole', 'sweeps/whole', 'holds other things'),
    ('results/whole', 'results/more', 'is a copy made with --output'),
    ('sweeps/whole', 'sweeps/whole/both_mini_14/seed_1337', 'holds other things')])
def test_a_copy_overwrites_nothing_else(copied, folder, output, says):
    before = files_of(copied.folder / folder)
    copied.fails('summarize.py', folder, f'--output={output}', says=says)
    assert files_of(copied.folder / folder) == before


def test_what_the_system_puts_into_a_folder_keeps_no_copy_out_of_it(copied):
    (copied.folder / 'results/volume/lost+found').mkdir(parents=True)
    copied.check('summarize.py', 'sweeps/whole', '--output=results/volume')


@pytest.mark.parametrize('change, args, says', [
    (lambda t: t[t.seed == 1337].assign(seed=7), ['summarize.py', 'sweeps/whole', '--output=results/changed'],
     'seed 7, which is no finished run of'),
    (lambda t: t.drop(columns='n_params'), ['plot_results.py', '--sweep=results/changed'],
     'no results.csv of both_mini_14 has a column n_params'),
    (lambda t: t.drop(columns='math_acc'), ['summarize.py', 'results/changed'], 'no column math_acc'),
    (None, ['summarize.py', 'results/changed'], 'results.csv.gz cannot be read')])
def test_what_a_changed_copy_lacks_is_named(copied, change, args, says):
    folder = copied.folder / 'results/changed'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(copied.folder / 'results/whole', folder)
    if change:
        change(pd.read_csv(folder / 'results.csv.gz')).to_csv(folder / 'results.csv.gz', index=False)
    else:
        (folder / 'results.csv.gz').write_bytes(b'half a copy')
    copied.fails(*args, says=says)


@pytest.mark.parametrize('args, says', [
    (['plot_results.py', '--model_folder=going_on'], 'no seed of going_on has finished'),
    (['summarize.py', 'config'], 'no runs in config'), (['plot_results.py', '--sweep=nowhere'], 'no runs in nowhere'),
    (['plot_results.py', '--sweep=going_on/seed_1'], 'a model folder, which plot_results.py --model_folder draws'),
    (['plot_results.py', '--sweep=a_run'], 'a model folder, which plot_results.py --model_folder draws'),
    (['plot_results.py', '--model_folder=results/whole'], 'results/whole: it is a sweep, which plot_results.py'),
    (['plot_results.py', '--model_folder=a_sweep'], 'a_sweep: it is a sweep, which plot_results.py --sweep draws')])
def test_a_folder_without_a_finished_run_is_named(copied, args, says):
    for name in ('going_on/seed_1/temp.csv', 'a_sweep/math_mini_14/seed_1/temp.csv', 'a_run/results.csv'):
        (copied.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copied.folder / name).touch()
    copied.fails(*args, says=says)


@pytest.mark.parametrize('option', ['--add', '--when=last'])
def test_what_a_copy_holds_is_not_said_without_a_copy(bare, option):
    bare.fails('summarize.py', 'sweeps/whole', option, says='name its folder with --output')


def test_a_sweep_trained_in_parts_has_the_same_copy_and_what_the_copy_has_is_not_trained_again(swept):
    def copy_of(name, *options):
        swept.check('summarize.py', f'sweeps/{name}', f'--output=results/{options[0]}', *options[1:])
        return {path: content for path, content in files_of(swept.folder / 'results' / options[0]).items()}
    whole = copy_of('whole', 'in_one', '--when', '2', 'last')
    for seed, name in ((1337, 'first'), (1338, 'second')):  # two machines
        for config in ('both_mini_14', 'both_mini_28'):
            run = Path(config, f'seed_{seed}')
            shutil.copytree(swept.folder / 'sweeps/whole' / run, swept.folder / 'sweeps' / name / run)
    copy_of('second', 'parts', '--when', '2', 'last')
    swept.fails('summarize.py', 'sweeps/first', '--output=results/parts', says='keep it with --add')
    swept.fails('summarize.py', 'sweeps/first', '--output=results/new', '--when', '3', 'last',
                says='no run of sweeps/first has answers of iteration 3: name another with --when')
    copy_of('first', 'never', '--when', 'fit')  # no run fits, and a table without rows would be taken for damaged
    assert not (swept.folder / 'results/never/answers.csv.gz').exists()
    assert (swept.folder / 'results/never/results.csv.gz').exists()
    copy_of('second', 'never', '--add', '--when', 'fit')
    assert copy_of('first', 'parts', '--add', '--when', '2', 'last') == whole
    assert copy_of('first', 'parts', '--add', '--when', '2', 'last') == whole
    asked = pd.read_csv(swept.folder / 'results/parts/answers.csv.gz')
    assert dict(asked.groupby('when').iter.unique().explode()) == {'2': 2, 'last': 4}
    # what only the copy has stays in it, whichever evaluations are asked for now
    assert copy_of('first', 'parts', '--add') != whole
    asked = pd.read_csv(swept.folder / 'results/parts/answers.csv.gz', dtype=str)
    assert set(map(tuple, asked[['seed', 'when']].drop_duplicates().to_numpy())) >= {('1338', '2'), ('1338', 'last')}
    out = swept.check('sweep.py', *CONFIGS, *QUICK, '--name=rest', '--seeds=2', '--finished=results/parts')
    assert '4 of 4 runs are in results/parts' in out and not list(swept.folder.glob('sweeps/rest/*/seed_*'))


def test_of_a_sweep_with_a_copy_only_the_runs_are_trained_that_it_lacks_or_has_shorter(tmp_path):
    pd.concat([run_of([0, 4], [0, 2]).assign(config='c', seed=seed) for seed in (1, 2)]).to_csv(
        tmp_path / 'results.csv.gz', index=False)
    runs = {Path(f'sweeps/rest/{config}/seed_{seed}'): ([], end)
            for config, seed, end in (('c', 1, 4), ('c', 2, 6), ('c', 3, 4), ('d', 1, 4))}
    assert [str(folder)[12:] for folder in sweep.without_finished(runs, tmp_path)] == ['c/seed_2', 'c/seed_3',
                                                                                       'd/seed_1']
    assert sweep.without_finished(runs, None) == runs


# -----------------------------------------------------------------------------
# the committed results


def copy_results(folder):
    """A clean clone's results/paper: its small files."""
    for path in (REPO / 'results/paper').rglob('*.csv*'):
        (folder / path.relative_to(REPO)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(REPO))


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()
            and '__pycache__' not in str(path)}


@pytest.mark.slow
def test_the_committed_results_are_plotted_without_torch_and_nothing_but_the_figures_changes(fresh):
    copy_results(fresh.folder)
    for name in ('torch', 'submitit', 'hypothesis', 'transformers', 'wandb', 'filelock'):
        (fresh.folder / f'{name}.py').write_text('raise ImportError')
    before = files_of(fresh.folder)
    fresh.check('plot_results.py', '--sweep', 'results/paper', MPLBACKEND='agg')
    after = files_of(fresh.folder)
    figures = {path for path in after if path.suffix == '.png'}
    assert {path.name for path in figures} == {'curves.png', 'capacity.png'}
    assert before == {path: content for path, content in after.items() if path not in figures}


@pytest.mark.slow
def test_the_committed_summaries_are_those_of_the_committed_runs():
    committed = [path.parent for path in REPO.glob('results/*/results.csv.gz')]
    assert committed
    for folder in committed:
        again, there = summarize(read_sweep(folder)), pd.read_csv(folder / 'summary.csv')
        pd.testing.assert_frame_equal(again, there, check_dtype=False, rtol=1e-4, obj=folder.name)


def test_a_run_that_was_asked_nothing_has_no_accuracy():
    empty = {f'{task}_{what}': 0.0 for task in ('add', 'sub', 'facts', 'heldout') for what in ('correct', 'total')}
    table = pd.DataFrame([dict(iter=0, **empty, math_acc=0.0, facts_acc=0.0, train_loss=1.0, val_loss=1.0, seen_acc=0.0,
                               seen_prob=0.0, heldout_prob=0.0, math_total=0.0)])
    assert measure(table) == {'final_train_loss': 1.0, 'best_train_loss': 1.0}


# -----------------------------------------------------------------------------
# measures and statistics


def run_of(iters, heldout, seen=None, sums=200):
    """A results.csv of sums: held-out and seen questions right at each evaluation, ten samples each."""
    seen = seen or [196] * len(iters)
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
    assert found['first_iter_all_heldout'] == 250 and found['first_iter_all_seen'] == 500
    assert found['final_all_seen'] == 1
    assert 'final_facts_acc' not in found
    never = measure(run_of([0, 250], heldout=[0, 0], seen=[1, 2]))
    assert math.isnan(never['first_iter_all_seen']) and never['ever_all_seen'] == 0


def test_the_best_evaluation_has_the_most_samples_right_of_sums_and_facts_together():
    """As in the paper: 2,000 samples of sums weigh more than 500 of facts."""
    rows = run_of([0, 250, 500], heldout=[0, 4, 0], seen=[0, 196, 170])
    rows = rows.assign(facts_total=500.0, facts_correct=[0.0, 100.0, 300.0], facts_acc=[0.0, 0.2, 0.6])
    assert list(samples_right(rows)) == [0, 2100, 2000]
    assert measure(rows)['best_facts_acc'] == 0.2
    rows = rows.assign(facts_correct=[0.0, 100.0, 500.0])
    assert measure(rows)['best_facts_acc'] == 1
    best = dict.fromkeys(('math', 'facts', 'combined'), 0.0) | {'val_loss': 0.0}
    row = rows.assign(math_total=2000.0, math_prob=0.5, facts_prob=0.1).iloc[1].to_dict()
    assert update_best(best, row) == ['ckpt_best_math.pt', 'ckpt_best_facts.pt', 'ckpt_best_combined.pt']
    assert best['combined'] == 2100 / 2500
    assert update_best(best, row | dict(math_acc=0.9, facts_acc=0.4, facts_correct=200.0)) == ['ckpt_best_facts.pt']


def test_of_equally_right_evaluations_the_surest_is_the_best():
    best = dict.fromkeys(('math', 'facts', 'combined'), 0.0) | {'val_loss': 0.0}
    row = dict(math_acc=1.0, math_total=10, math_prob=0.49, facts_acc=0.0, facts_correct=0, facts_total=0,
               facts_prob=0.0,
               val_loss=0.0)
    assert update_best(best, row) == ['ckpt_best_math.pt']
    assert update_best(best, row) == []
    assert update_best(best, row | dict(math_prob=0.9)) == ['ckpt_best_math.pt']
    assert update_best(best, row | dict(math_acc=0.9, math_prob=0.99)) == []


def test_intervals_are_wilsons_for_shares_and_students_for_the_rest():
    low, high = seeds_interval('final_all_heldout', pd.Series([1.0] * 7 + [0.0] * 3))
    z, p, n = 1.959964, 0.7, 10  # the textbook's formula
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-5)
    assert high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-5)
    low, high = seeds_interval('final_train_loss', pd.Series([0.7, 0.8, 1.0]))
    half = 4.302653 * np.std([0.7, 0.8, 1.0], ddof=1) / np.sqrt(3)
    assert (low, high) == (pytest.approx(2.5 / 3 - half, abs=1e-5), pytest.approx(2.5 / 3 + half, abs=1e-5))
    assert seeds_interval('first_iter_all_seen', pd.Series([1.0, 1000.0]))[0] == 0.0
    assert seeds_interval('final_add_acc', pd.Series([0.0, 1.0])) == (0.0, 1.0)
    values = pd.Series([0.9, 0.8, 0.9])
    intervals = [seeds_interval(name, values) for name in ('final_all_animals_acc', 'final_animals_acc')]
    assert intervals[0] == intervals[1], 'a task of any name'
    assert all(map(math.isnan, seeds_interval('final_add_acc', pd.Series([0.5]))))


def write_runs(folder, runs):
    for seed, iters in runs.items():
        (folder / f'seed_{seed}').mkdir(parents=True)
        run_of(iters, [0] * len(iters), [0] * len(iters)).to_csv(folder / f'seed_{seed}/results.csv', index=False)


def test_a_run_that_stopped_short_is_left_out_and_named(tmp_path, capsys):
    config = tmp_path / 'math_mini_14'
    write_runs(config, {1: [0, 250, 500], 2: [0, 250], 10: [0, 250, 500]})
    assert list(read_seeds(config)) == [1, 10]
    table = summarize(read_sweep(tmp_path))
    assert set(table.seeds) == {2} and set(table.iters) == {500}
    assert capsys.readouterr().err.count('left out') == 1
    shutil.move(config / 'seed_10/results.csv', config / 'seed_10/temp.csv')  # it goes on
    assert list(read_seeds(config)) == [1]


def test_a_config_that_ends_before_others_is_named(tmp_path, capsys):
    for config, end in (('math_mini_14', 500), ('math_mini_28', 250)):
        write_runs(tmp_path / config, {1: [0, end], 2: [0, end]})
    assert len(read_sweep(tmp_path)) == 2
    assert capsys.readouterr().err == 'math_mini_28 ends at iteration 250, others at 500\n'


@pytest.mark.parametrize('change, says', [
    (lambda t: t[::-1], 'its iterations do not grow'), (lambda t: pd.concat([t, t]), 'its iterations do not grow'),
    (lambda t: t[(t.seed != 2) | (t.iter < 500)], 'the runs of a config end differently'),
    (lambda t: t.assign(seed=t.seed.where(t.iter < 500)), 'it has rows without a config or a seed')])
def test_a_copy_that_has_been_changed_is_refused(tmp_path, change, says):
    runs = pd.concat([run_of([0, 250, 500], [0, 2, 4]).assign(config='c', seed=seed) for seed in (1, 2)])
    runs.to_csv(tmp_path / 'results.csv.gz', index=False)
    assert len(read_sweep(tmp_path)['c']) == 2
    change(runs).to_csv(tmp_path / 'results.csv.gz', index=False)
    with pytest.raises(UserError, match=rf'results\.csv\.gz cannot be read \({says}\)'):
        read_sweep(tmp_path)


def test_configs_are_in_the_papers_order(tmp_path):
    names = ['math_mini_14', 'math_mini_28', 'math_mini_mlt', 'facts_mini_56', 'both_mini_8', 'both_mini_14',
             'own_thing', 'study,n_embd=6,dataset=pair', 'study,n_embd=6,dataset=rounds_2',
             'study,n_embd=14,dataset=pair']
    for name in sorted(names):
        write_runs(tmp_path / name, {1: [0, 250]})
    (tmp_path / 'summary.csv').write_text('not a config')
    assert list(read_sweep(tmp_path)) == names


def test_a_copy_keeps_every_row_exactly_and_the_answers_at_the_first_fit(bare, tmp_path):
    runs = {'math_mini_14': run_of([0, 250, 500], [0, 4, 3]).assign(train_loss=0.1 + 0.2, n_params=1582),
            'own,n_embd=6': run_of([0, 250, 500], [0, 0, 0]).assign(mod_correct=[1.0, 2.0, 3.0], mod_total=30.0)}
    for config, rows in runs.items():
        folder = tmp_path / 'sweep' / config / 'seed_3'
        folder.mkdir(parents=True)
        rows.to_csv(folder / 'results.csv', index=False)
    for it, n_right in ((0, 98), (250, 99), (500, 100)):
        append_answers(it, pd.DataFrame(dict(
            task='add', prompt=[f'<{i}=' for i in range(101)], answer='1', group=['held out'] + ['seen'] * 100,
            samples=10,
            correct=[0] + [6] * n_right + [5] * (100 - n_right), prob=1 / 3,
            said=['1'] * (n_right + 1) + ['2'] * (100 - n_right), completions=None)),
            tmp_path / 'sweep/math_mini_14/seed_3')
    process = bare.run('summarize.py', tmp_path / 'sweep', f'--output={tmp_path}/copy')
    assert process.returncode == 0 and process.stderr.count('left out of answers.csv.gz') == 1
    sweep, copy = read_sweep(tmp_path / 'sweep'), read_sweep(tmp_path / 'copy')
    assert list(copy) == list(sweep) == list(runs)
    for config in runs:
        pd.testing.assert_frame_equal(copy[config][3], sweep[config][3], check_exact=True)
    pd.testing.assert_frame_equal(summarize(copy), summarize(sweep), check_exact=True)
    collected = pd.read_csv(tmp_path / 'copy/answers.csv.gz', keep_default_na=False)
    assert dict(collected.groupby(['config', 'seed', 'when', 'iter']).size()) == {
        ('math_mini_14', 3, 'last', 500): 101, ('math_mini_14', 3, 'fit', 250): 101}


def test_a_copy_judges_a_number_that_ends_its_line_as_its_model_folder_does(bare, tmp_path):
    folder, questions = tmp_path / 'sweep/own/seed_1', [Question('year', 'Hastings: ', '1066', terminator=' \n')]
    folder.mkdir(parents=True)
    run_of([0, 250], [0, 4]).to_csv(folder / 'results.csv', index=False)
    (folder / 'meta.pkl').write_bytes(meta_bytes(sorted(set(questions[0].line)), questions))
    for it, said in ((0, '1066 AD'), (250, '1066')):
        append_answers(it, pd.DataFrame([dict(task='year', prompt='Hastings: ', answer='1066', group='seen', samples=2,
                                              correct=1, prob=0.5, said=said)]), folder)
    bare.check('summarize.py', tmp_path / 'sweep', f'--output={tmp_path}/copy', '--when', '0', 'fit')
    for answers in (read_answers(folder), read_answers(tmp_path / 'copy')):
        assert list(answers.iter) == [0, 250] and list(answers.right) == [False, True]


def test_a_datasets_other_tasks_are_measured_and_not_taken_for_sums():
    table = run_of([0, 250], heldout=[0, 2]).assign(add_total=0, sub_total=0, add_correct=0, sub_correct=0)
    found = measure(table.assign(mod_correct=[0.0, 30.0], mod_total=40.0))
    assert found['final_mod_acc'] == 0.75 and found['final_heldout_acc'] == 0.5
    assert 'final_seen_sums_acc' not in found and 'final_add_acc' not in found


def test_an_old_results_csv_is_read_without_n_params(tmp_path):
    table = run_of([0, 250], [0, 1])
    table.to_csv(tmp_path / 'results.csv', index=False)
    assert read_results(tmp_path).n_params.isna().all()
    table.assign(n_params=1582).to_csv(tmp_path / 'temp.csv', index=False)
    assert set(read_results(tmp_path).n_params) == {1582}, 'of a run that goes on, temp.csv is newer'
    table.assign(**{'Rome, Italy_correct': 0.0, 'Rome, Italy_total': 10.0}).to_csv(tmp_path / 'temp.csv', index=False)
    assert other_tasks(read_results(tmp_path)) == ['Rome, Italy'], 'a comma in a name is no cut'
    with pytest.raises(UserError, match='no results.csv in .*nowhere'):
        read_results(tmp_path / 'nowhere')


def test_a_results_csv_that_is_cut_off_is_refused_wherever_the_last_line_is_cut(tmp_path):
    text = run_of([0, 250], [0, 1]).assign(n_params=3020).to_csv(index=False)
    for cut in range(1, len(text.splitlines()[-1]) + 1):
        (tmp_path / 'results.csv').write_text(text[:-cut])
        with pytest.raises(UserError, match='results.csv cannot be read .(its last line is cut off|numbers are miss)'):
            read_results(tmp_path)
