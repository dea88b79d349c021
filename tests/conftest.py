"""
What the tests share: a copy of the project with its data prepared, and a way to call its scripts as a user does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Threads of tiny tensors cost more than they bring, and very much more where another process uses a core; before torch
os.environ.setdefault('OMP_NUM_THREADS', '1')
import pytest

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
from run_script import run_script

# A tiny run, in seconds: for tests of the workflow, not of what is learnt
TINY = ['--compile=False', '--max_iters=4', '--eval_interval=2', '--full_eval_interval=2', '--log_interval=2',
        '--batch_size=16', '--num_samples=2', '--num_threads=1']


def copy_project(folder):
    for path in REPO.glob('*.py'):
        shutil.copy(path, folder)
    for name in ('config', 'data'):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns('*.bin', '*.pkl', '__pycache__'))


class Project:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, script, *args, cwd=None, timeout=240):
        """Call a script; returns the finished process, with stdout and stderr as str."""
        with tempfile.TemporaryDirectory() as out:
            code, stdout, stderr = run_script(self.folder / script, args, cwd or self.folder, Path(out) / 'out', timeout)
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


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    """The project with its three datasets prepared and a tiny trained folder for each; tests must not change it."""
    folder = tmp_path_factory.mktemp('prepared')
    copy_project(folder)
    project = Project(folder)
    for kind, dataset in (('math', 'as_math'), ('facts', 'facts_char'), ('both', 'both_math_and_facts')):
        project.check(f'data/{dataset}/prepare.py')
        project.check('train_with_eval.py', f'config/train_{kind}_mini_14.py', *TINY)
    return project


@pytest.fixture
def project(prepared, tmp_path):
    """A copy of `prepared` for one test to change."""
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)
