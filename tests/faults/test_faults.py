"""
Faults: killed, out of disk, out of luck. Whatever happens, nothing that was saved is lost, and a resumed run is exact.

$ make test-faults                  (or: pytest -m faults -s; the counts are printed)
$ FAULTS=1000 make test-faults      more random kills than the 200 by default
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from conftest import Project, assert_same_run
from hypothesis import given, settings
from hypothesis import strategies as st
from run_script import child, context

from common.answers import ANSWERS
from common.checkpoint import load_checkpoint, model_from_checkpoint
from common.dataset import load_meta
from common.errors import UserError

pytestmark = pytest.mark.faults
KILLS = int(os.environ.get('FAULTS', 200))
CONFIG = 'config/train_both_mini_14.py'
RUN = ['--max_iters=60', '--eval_interval=5', '--full_eval_interval=5', '--batch_size=32', '--num_samples=1',
       '--num_threads=1', '--dropout=0.1', '--gradient_accumulation_steps=2', '--warmup_iters=5', '--lr_decay_iters=60']
WAYS = {'eager': ['--compile=False'], 'compiled': ['--compile=True'], 'in C++': ['--fused=True', '--dropout=0.0']}


@pytest.fixture(scope='module')
def whole(prepared):
    """Runs that were never stopped, one for each way to compute a step: dict of way to (folder, seconds)."""
    runs = {}
    for way, options in WAYS.items():
        # the second time, the compiler's cache is warm, as for a resumed run
        for _ in range(1 if way == 'eager' else 2):
            start = time.perf_counter()
            prepared.check('train_with_eval.py', CONFIG, *RUN, *options, f'--out_dir=whole {way}')
        runs[way] = prepared.folder / f'whole {way}', time.perf_counter() - start
    return runs


@pytest.mark.parametrize('signum, way, share', [
    (signal.SIGKILL, 'in C++', 0.6), (signal.SIGKILL, 'eager', 0.25), (signal.SIGKILL, 'compiled', 0.15),
    (signal.SIGTERM, 'in C++', 0.1), (signal.SIGINT, 'eager', 0.1)])
def test_random_kills_lose_nothing(prepared, whole, signum, way, share):
    folder, seconds = whole[way]
    rng = random.Random(int(signum))
    wanted = max(1, round(KILLS * share))
    kills = runs = from_scratch = 0
    while kills < wanted:
        out_dir = prepared.folder / f'killed_{signum}'
        shutil.rmtree(out_dir, ignore_errors=True)
        while True:
            resumable = (out_dir / 'ckpt_last.pt').exists()
            from_scratch += not resumable
            args = ['--init_from=resume'] if resumable else [CONFIG, *RUN, *WAYS[way]]
            process = context.Process(target=child, args=(prepared.folder / 'train_with_eval.py',
                                                          [*args, f'--out_dir={out_dir.name}'], str(prepared.folder),
                                                          str(prepared.folder / 'log')))
            process.start()
            process.join(rng.uniform(0, seconds))
            if process.exitcode is None:
                os.kill(process.pid, signum)
                kills += 1
            process.join(60)
            if process.exitcode == 0:
                break
            stderr = (prepared.folder / 'log.stderr').read_text()
            assert process.exitcode in (-signum, 128 + signum) and 'Traceback' not in stderr, (process.exitcode, stderr)
        runs += 1
        assert_same_run(folder, out_dir)
    print(f"\n{signal.Signals(signum).name}, {way}: {kills} random kills in {runs} runs "
          f"({from_scratch - runs} before the first checkpoint), each resumed run ended bit-identical to an "
          "uninterrupted one; lost: nothing")


def test_a_full_disk_keeps_the_old_checkpoint(prepared, whole):
    """Files may not grow beyond a limit below a checkpoint's size: writing fails as on a full disk."""
    out_dir = prepared.folder / 'full_disk'
    run = [*RUN, '--compile=False', '--out_dir=full_disk']
    tried = 0
    for limit in (100, 1000, 5000, 20000, 30000):
        shutil.rmtree(out_dir, ignore_errors=True)
        prepared.check('train_with_eval.py', CONFIG, *run, '--max_iters=20')
        before = [path.name for path in out_dir.iterdir()]
        code = (f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
                "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")
        process = subprocess.run([sys.executable, '-c', code, 'train_with_eval.py', CONFIG, *run, '--init_from=resume'],
                                 cwd=prepared.folder, capture_output=True, text=True)
        assert process.returncode == 1 and 'Traceback' not in process.stderr, process.stderr
        assert 'cannot write' in process.stderr
        for name in before:
            if name.endswith('.pt'):
                torch.load(out_dir / name, weights_only=True)
        assert list(pd.read_csv(out_dir / 'results.csv').iter)[:4] == [0, 5, 10, 15]
        assert not list(out_dir.glob('*.tmp'))
        prepared.check('train_with_eval.py', CONFIG, *run, '--init_from=resume')
        assert_same_run(whole['eager'][0], out_dir)
        tried += 1
    print(f"\nfull disk: {tried} limits, old checkpoints intact, resumed to the same end; lost: nothing")


def test_files_truncated_at_every_tenth_are_refused(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    project = Project(tmp_path)
    commands = {
        'data/as_math/meta.pkl': ('train_with_eval.py', 'config/train_math_mini_14.py', '--out_dir=new',
                                  '--max_iters=0'),
        'data/as_math/train.bin': ('train_with_eval.py', 'config/train_math_mini_14.py', '--out_dir=new',
                                   '--max_iters=0'),
        'math_mini_14/ckpt.pt': ('eval_as_math.py', '--out_dir=math_mini_14', '--checkpoint=ckpt.pt'),
        'math_mini_14/ckpt_last.pt': ('train_with_eval.py', '--init_from=resume', '--out_dir=math_mini_14'),
        'math_mini_14/meta.pkl': ('eval_as_math.py', '--out_dir=math_mini_14', '--checkpoint=ckpt_last.pt'),
        'math_mini_14/results.csv': ('plot_results.py', '--model_folder', 'math_mini_14'),
    }
    refused = 0
    for name, command in commands.items():
        path = project.folder / name
        content = path.read_bytes()
        for tenth in range(10):
            path.write_bytes(content[:len(content) * tenth // 10])
            process = project.run(*command)
            assert 'Traceback' not in process.stderr, (name, tenth, process.stderr)
            assert process.returncode == 1, (name, tenth, process.stdout)
            refused += 1
        path.write_bytes(content)
    print(f"\ntruncated files: {refused} refused with one sentence")


@pytest.mark.parametrize('name', ['meta.pkl', 'ckpt.pt'])
def test_files_with_random_bytes_changed_are_read_or_refused(prepared, tmp_path, name):
    """Whatever the bytes: a model or a tokenizer, or one sentence; nothing is executed, nothing else is raised."""
    content = (prepared.folder / 'math_mini_14' / name).read_bytes()
    path = tmp_path / name
    counts = dict(read=0, refused=0)

    @settings(max_examples=5 * KILLS, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=20))
    def change_bytes(changes):
        changed = bytearray(content)
        for position, byte in changes:
            changed[position] = byte
        path.write_bytes(changed)
        try:
            model_from_checkpoint(load_checkpoint(path), path) if name == 'ckpt.pt' else load_meta(path)
            counts['read'] += 1
        except UserError as e:
            assert str(e) and '\n' not in str(e)
            counts['refused'] += 1

    change_bytes()
    assert counts['refused'] > 0
    print(f"\n{name} with random bytes changed: {counts['refused']} refused with one sentence, {counts['read']} read")


def test_answers_truncated_anywhere_go_on_as_if_nothing_had_happened(prepared, whole, tmp_path):
    """A power cut may leave any part of what was appended last, or of the file."""
    folder, _ = whole['eager']
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    project, cut, rng = Project(tmp_path), tmp_path / 'cut', random.Random(1)
    shutil.copytree(folder, cut)
    content, size = (folder / ANSWERS).read_bytes(), load_checkpoint(folder / 'ckpt_last.pt')['sizes'][ANSWERS]
    tried = max(5, KILLS // 10)
    for _ in range(tried):
        (cut / ANSWERS).write_bytes(content[:rng.randrange(size, len(content))])
        project.check('train_with_eval.py', '--init_from=resume', '--out_dir=cut')
        assert_same_run(folder, cut)
    print(f"\n{ANSWERS} with the last evaluation cut anywhere: {tried} tried, each of them resumed to the same end")
