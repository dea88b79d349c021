"""
What the tests share: a copy of the project with its data prepared, and a way to call its scripts as a user does.
"""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# Threads of tiny tensors cost more than they bring, above all if another process uses a core. To be set before torch.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
import hypothesis
import pandas as pd
import pytest
import torch

hypothesis.settings.register_profile('any machine', deadline=None)  # a busy one takes longer, which is no fault
hypothesis.settings.load_profile('any machine')
REPO = Path(__file__).resolve().parents[1]
for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    # under nohup, or behind a shell's &, the scripts would ignore them too
    if signal.getsignal(signum) == signal.SIG_IGN:
        signal.signal(signum, handler)
sys.path.insert(0, str(REPO))
from run_script import run_script

# A tiny run, in seconds: for tests of the workflow, not of what is learnt
TINY = ['--compile=False', '--max_iters=4', '--eval_interval=2', '--full_eval_interval=2', '--log_interval=2',
        '--batch_size=16', '--num_samples=2', '--num_threads=1']
TIMING = ['train_s', 'eval_s']  # the columns of results.csv that no two runs share


def assert_same_run(a, b):
    """Two model folders of one run: equal results (timings aside), answers, weights and optimizer state, to the bit."""
    tables = [pd.read_csv(folder / 'results.csv').drop(columns=TIMING) for folder in (a, b)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    answers = [gzip.decompress((folder / 'answers.csv.gz').read_bytes()) for folder in (a, b)]
    assert answers[0] == answers[1]
    assert {path.name for path in a.glob('*.pt')} == {path.name for path in b.glob('*.pt')}
    for path in a.glob('*.pt'):
        x, y = (torch.load(folder / path.name, weights_only=True) for folder in (a, b))
        for key in ('iter_num', 'best_val_loss', 'best_acc', 'model_args', 'data_sha256', 'n_params'):
            assert x[key] == y[key], key
        rows = [[{key: value for key, value in row.items() if key not in TIMING} for row in c['rows']] for c in (x, y)]
        assert rows[0] == rows[1]
        assert all(torch.equal(x['model'][key], y['model'][key]) for key in x['model'])
        for i, state in x['optimizer']['state'].items():
            assert all(torch.equal(state[key], y['optimizer']['state'][i][key]) for key in state)
    assert not list(b.glob('*.tmp')) and not (b / 'temp.csv').exists()


def copy_project(folder):
    for path in REPO.glob('*.py'):
        shutil.copy(path, folder)
    for name in ('common', 'fused', 'study', 'explore', 'config'):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for dataset in ('as_math', 'facts_char', 'both_math_and_facts', 'mod_math'):  # the user may have others
        (folder / 'data' / dataset).mkdir(parents=True)
        shutil.copy(REPO / 'data' / dataset / 'prepare.py', folder / 'data' / dataset)


class Project:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, script, *args, cwd=None, timeout=240, **env):
        """Call a script; returns the finished process, with stdout and stderr as str.

        In a fresh interpreter if it has an environment of its own or needs no torch, else by run_script, which is
        faster.
        """
        if env or Path(script).name == 'prepare.py':
            return subprocess.run([sys.executable, self.folder / script, *map(str, args)], cwd=cwd or self.folder,
                                  env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=timeout)
        with tempfile.TemporaryDirectory() as out:
            code, stdout, stderr = run_script(self.folder / script, args, cwd or self.folder, f'{out}/out', timeout)
        return subprocess.CompletedProcess([script, *args], code, stdout, stderr)

    def check(self, script, *args, **kwargs):
        """Call a script that must succeed; returns its stdout."""
        process = self.run(script, *args, **kwargs)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    def fails(self, script, *args, says, **kwargs):
        """Call a script that must end with one clear sentence that contains `says`."""
        process = self.run(script, *args, **kwargs)
        assert process.returncode in (1, 2), (process.returncode, process.stdout, process.stderr)
        assert 'Traceback' not in process.stderr
        errors = [line for line in process.stderr.splitlines() if 'error' in line]
        assert len(errors) == 1 and says in errors[0], process.stderr
        return process

    def popen(self, *args, **kwargs):
        """Start a script in a fresh interpreter, to be killed or signalled; communicate() returns its output."""
        return subprocess.Popen([sys.executable, *args], cwd=self.folder, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **kwargs)


def pytest_collection_modifyitems(items):
    """Whatever needs a trained folder is slow, because the first of such tests trains three, and so is a browser."""
    for item in items:
        if {'prepared', 'project', 'swept', 'browser'} & set(item.fixturenames):
            item.add_marker('slow')


@pytest.fixture(scope='session')
def bare(tmp_path_factory):
    """The project with its three datasets prepared and nothing trained; tests must not change it."""
    folder = tmp_path_factory.mktemp('bare')
    copy_project(folder)
    project = Project(folder)
    for dataset in ('as_math', 'facts_char', 'both_math_and_facts'):
        project.check(f'data/{dataset}/prepare.py')
    return project


@pytest.fixture
def fresh(bare, tmp_path):
    """A copy of `bare` for one test to change."""
    shutil.copytree(bare.folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


@pytest.fixture(scope='session')
def prepared(bare, tmp_path_factory):
    """Like `bare`, with a tiny trained folder for each dataset; tests must not change it."""
    folder = tmp_path_factory.mktemp('prepared')
    shutil.copytree(bare.folder, folder, dirs_exist_ok=True)
    project = Project(folder)
    for kind in ('math', 'facts', 'both'):
        project.check('train_with_eval.py', f'config/train_{kind}_mini_14.py', *TINY)
    return project


@pytest.fixture
def project(prepared, tmp_path):
    """A copy of `prepared` for one test to change."""
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)
