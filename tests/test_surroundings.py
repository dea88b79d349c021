"""What surrounds a run may fail: its output, disk, folder or environment. It goes on, or says in a sentence what is wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPO, TINY

MATH = 'config/train_math_mini_14.py'
TRAIN = ('train_with_eval.py', MATH, *TINY, '--fused=False', '--decay_lr=False')


def python(project, code, *argv):
    """Run a script in a fresh interpreter after some code: returns the finished process."""
    code += "; import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run([sys.executable, '-c', code, *argv], cwd=project.folder, capture_output=True, text=True, timeout=120)


def shell(project, command):
    return subprocess.run(['bash', '-o', 'pipefail', '-c', f"P={sys.executable}; {command}"], cwd=project.folder, text=True,
                          capture_output=True, timeout=120)


def is_whole(project, out_dir):
    return list(pd.read_csv(project.folder / out_dir / 'results.csv').iter) == [0, 2, 4]


# -----------------------------------------------------------------------------
# output that nobody reads


@pytest.mark.parametrize('reader', ['| head -1', '>&- 2>&-', '> /dev/full'])
def test_a_run_whose_output_goes_nowhere_goes_on_to_its_end(project, reader):
    process = shell(project, f"$P {' '.join(TRAIN)} --out_dir=unread {reader}")
    assert process.returncode == 0 and not process.stderr and is_whole(project, 'unread'), process.stderr


def test_a_sweep_whose_output_is_not_read_to_the_end_trains_all_of_its_runs(project):
    options = [arg for arg in TRAIN[1:] if 'out_dir' not in arg]
    process = shell(project, f"$P sweep.py {' '.join(options)} --seeds=2 --jobs=1 --name=unread | head -1")
    assert process.returncode == 0, process.stderr
    assert len(list(project.folder.glob('sweeps/unread/*/seed_*/results.csv'))) == 2


def test_a_report_that_cannot_be_written_ends_without_a_traceback(project):
    report = '$P eval_as_math.py --out_dir=math_mini_14'
    assert shell(project, f'{report} > /dev/full').stderr == 'error: the output cannot be written: No space left on device\n'
    assert shell(project, f'{report} | head -1').stderr == ''


# -----------------------------------------------------------------------------
# disks and folders


@pytest.mark.parametrize('limit, name', [(1, '.gitignore'), (100, 'meta.pkl'), (10000, 'ckpt_last.pt')])
def test_a_disk_that_is_full_before_anything_is_saved_leaves_no_folder_and_advises_no_resuming(project, limit, name):
    process = python(project, f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))", *TRAIN,
                     '--out_dir=new')
    assert process.returncode == 1 and process.stderr.count('\n') == 1 and 'resum' not in process.stdout + process.stderr
    assert f'{name}: File too large' in process.stderr and not (project.folder / 'new').exists(), process.stderr


def test_a_folder_that_is_renamed_while_its_run_goes_on_keeps_what_was_saved_and_is_missed(project):
    process = project.popen(*TRAIN, '--out_dir=old', '--max_iters=1000000', '--eval_interval=50', '--full_eval_interval=50')
    while not (project.folder / 'old/temp.csv').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (project.folder / 'old').rename(project.folder / 'renamed')
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith('error: cannot write old/') and err.count('\n') == 1, err
    assert not (project.folder / 'old').exists() and (project.folder / 'renamed/ckpt_last.pt').exists()


# -----------------------------------------------------------------------------
# the environment


@pytest.mark.parametrize('variables', [dict(RANK='abc'), dict(RANK='0'), dict(RANK='0', WORLD_SIZE='x'),
                                       dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost')])
def test_half_of_what_torchrun_sets_is_refused(project, variables):
    project.fails(*TRAIN, '--out_dir=new', says='start with torchrun', **variables)
    assert not (project.folder / 'new').exists()


def test_a_number_of_processes_without_a_rank_is_nobodys(project):
    project.check(*TRAIN, '--out_dir=one')
    project.check(*TRAIN, '--out_dir=alone', WORLD_SIZE='2')  # it would train on half of each batch
    tables = [pd.read_csv(project.folder / folder / 'results.csv').train_loss for folder in ('one', 'alone')]
    assert list(tables[0]) == list(tables[1])


@pytest.mark.parametrize('script', ['train_with_eval.py', 'sweep.py'])
def test_without_what_windows_lacks_a_script_runs(project, script):
    """Windows has no fcntl and no SIGHUP."""
    code = "import signal, sys; sys.modules['fcntl'] = None; del signal.SIGHUP"
    assert python(project, code, script, '--help').returncode == 0
    if script == 'train_with_eval.py':
        process = python(project, code, *TRAIN, '--out_dir=windows')
        assert process.returncode == 0 and is_whole(project, 'windows'), process.stderr


def test_a_compilers_cache_that_cannot_be_made_is_named_and_the_run_goes_on(project):
    Path(project.folder / 'file').touch()
    out = project.check(*TRAIN, '--out_dir=cached', TORCHINDUCTOR_CACHE_DIR=os.path.join(project.folder, 'file'))
    assert out.count('TORCHINDUCTOR_CACHE_DIR') == 1 and is_whole(project, 'cached')


# -----------------------------------------------------------------------------
# somebody else's program


def importable(room):
    """The modules of a room, without the scripts that act at once."""
    paths = {path: path.read_text(encoding='utf-8') for path in (REPO / room).glob('*.py')}
    return ['.'.join(path.relative_to(REPO).with_suffix('').parts) for path, source in sorted(paths.items())
            if '\nreport_errors()' not in source]


@pytest.mark.parametrize('room, known', [('', 'plot_results'), ('common', 'common.errors'), ('fused', 'fused.fused_step'),
                                         ('study', 'study.widths'), ('paper', 'paper.authors'), ('dev', 'dev.bench')])
def test_a_program_that_imports_ours_keeps_its_own_error_reports_and_output(room, known):
    code = ("import importlib, sys; state = lambda: (sys.excepthook, sys.stdout, sys.stdout.errors, sys.stderr.errors)\n"
            "before = state()\nfor name in sys.argv[1:]: importlib.import_module(name); assert state() == before, name")
    modules = importable(room)
    assert known in modules
    process = subprocess.run([sys.executable, '-c', code, *modules], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
