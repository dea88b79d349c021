"""Long runs: diverging losses, data-parallel processes, the compiled step. Random kills are in tests/faults."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import TINY
from model import GPT, GPTConfig

MATH = 'config/train_math_mini_14.py'


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(project):
    options = [*TINY, '--out_dir=diverged', '--warmup_iters=0', '--learning_rate=1e38', '--grad_clip=0', '--max_iters=50']
    project.fails('train_with_eval.py', MATH, *options, says='training has diverged')
    checkpoint = torch.load(project.folder / 'diverged/ckpt_last.pt', weights_only=True)
    assert all(torch.isfinite(weight).all() for weight in checkpoint['model'].values())
    table = pd.read_csv(project.folder / 'diverged/results.csv')
    assert len(table) == len(checkpoint['rows']) and table.train_loss.notna().all()


def test_divergence_off_the_evaluation_beat_keeps_it_too(project):
    options = [*TINY, '--out_dir=diverged', '--warmup_iters=0', '--learning_rate=1e38', '--grad_clip=0', '--weight_decay=1.0',
               '--max_iters=7', '--eval_interval=500', '--full_eval_interval=500']
    project.fails('train_with_eval.py', MATH, *options, says='training has diverged')
    checkpoint = torch.load(project.folder / 'diverged/ckpt_last.pt', weights_only=True)
    assert checkpoint['iter_num'] == 0 and all(torch.isfinite(weight).all() for weight in checkpoint['model'].values())


TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'train_with_eval.py']


def torchrun(project, *args):
    return subprocess.run([*TORCHRUN, MATH, *args], cwd=project.folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize('accumulation', [1, 2])
def test_two_processes_compute_the_same_losses_as_one(project, accumulation):
    options = [*TINY, '--max_iters=40', '--eval_interval=10', '--full_eval_interval=20', '--warmup_iters=5',
               f'--gradient_accumulation_steps={accumulation}']
    project.check('train_with_eval.py', MATH, *options, '--out_dir=one')
    process = torchrun(project, *options, '--out_dir=two')
    assert process.returncode == 0, process.stderr
    one, two = (pd.read_csv(project.folder / folder / 'results.csv') for folder in ('one', 'two'))
    assert list(one.iter) == list(two.iter) and one.train_loss.diff().abs().max() > 0.01
    torch.testing.assert_close(torch.tensor(one.train_loss), torch.tensor(two.train_loss), rtol=1e-5, atol=1e-6)


def test_a_process_that_cannot_go_on_takes_all_down_with_the_reason(project):
    process = torchrun(project, *TINY, '--batch_size=15')
    assert process.returncode == 1 and 'cannot be shared by 2 processes' in process.stderr
    (project.folder / 'file').write_text('precious')
    process = torchrun(project, *TINY, '--out_dir=file')
    assert process.returncode == 1 and 'cannot use file as out_dir' in process.stderr


@pytest.mark.parametrize('victim', [0, 1])
def test_a_process_that_is_killed_takes_the_run_down_and_the_run_resumes(project, victim):
    options = [*TINY, '--eval_interval=10', '--full_eval_interval=10', '--out_dir=pair']
    process = subprocess.Popen([*TORCHRUN, MATH, *options, '--max_iters=1000000'], cwd=project.folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (project.folder / 'pair/ckpt_last.pt').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    ranks = {}
    for child in subprocess.check_output(['pgrep', '-P', str(process.pid)], text=True).split():
        environ = Path(f'/proc/{child}/environ').read_bytes().split(b'\0')
        ranks[next(int(line[5:]) for line in environ if line.startswith(b'RANK='))] = int(child)
    os.kill(ranks[victim], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and re.search(rf'rank +: {victim} ', err) and 'Signal 9' in err, err
    newest = torch.load(project.folder / 'pair/ckpt_last.pt', weights_only=True)
    process = torchrun(project, *options, '--init_from=resume', f"--max_iters={newest['iter_num'] + 10}")
    assert process.returncode == 0, process.stderr
    table = pd.read_csv(project.folder / 'pair/results.csv')
    assert list(table.iter) == list(range(0, newest['iter_num'] + 11, 10)), 'no gap, no duplicate'


@pytest.mark.parametrize('n_embd', [14, 56], ids=['in one piece', 'in pieces for the cache'])
def test_windows_drawn_twice_train_as_if_each_went_through_the_model(project, n_embd):
    """The batches of train_with_eval.py, merged and cut, against the plain loop: every drawn window, loss.backward()."""
    options = [*TINY, '--out_dir=merged', f'--n_embd={n_embd}', '--max_iters=20', '--batch_size=882',
               '--decay_lr=False', '--weight_decay=0.1', '--eval_interval=20', '--full_eval=False']
    project.check('train_with_eval.py', MATH, *options)
    checkpoint = torch.load(project.folder / 'merged/ckpt_last.pt', weights_only=True)
    ids = torch.from_numpy(np.fromfile(project.folder / 'data/as_math/train.bin', dtype='<u2').astype(np.int64))
    windows = ids.unfold(0, 10, 1)
    drawn = np.random.default_rng([1337, 0]).integers(len(windows), size=(100, 882))
    assert len(set(drawn[0])) < 882
    torch.manual_seed(1337)
    model = GPT(GPTConfig(**checkpoint['model_args']))
    optimizer = model.configure_optimizers(0.1, 1e-2, (0.9, 0.99), 'cpu')
    for ix in torch.from_numpy(drawn[:20]):
        optimizer.zero_grad()
        model(windows[ix, :-1], windows[ix, 1:])[1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(dict(model.state_dict()), checkpoint['model'], rtol=1e-4, atol=1e-5)


def test_the_loss_scale_of_float16_reaches_the_gradients_and_not_the_loss(project):
    """float16 needs a GPU; what it asks of forward_backward is the same on a CPU."""
    code = f"""
import sys
sys.argv = ['train_with_eval.py', {MATH!r}, *{TINY!r}, '--out_dir=scaled']
scope = {{'__name__': '__main__', '__file__': 'train_with_eval.py'}}
try:
    exec(open('train_with_eval.py').read(), scope)
except SystemExit as e:
    assert not e.code
import torch
batch = scope['train_windows'][:8], torch.full((8,), 1 / 8)
*gradients, loss = scope['forward_backward'](*batch, torch.tensor(1.0))
*scaled, same_loss = scope['forward_backward'](*batch, torch.tensor(1024.0))
assert loss == same_loss and len(gradients) == len(scope['params'])
for gradient, times_1024 in zip(gradients, scaled):
    assert gradient.any() and torch.equal(gradient * 1024, times_1024)
"""
    process = subprocess.run([sys.executable, '-c', code], cwd=project.folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='torch.compile needs a C++ compiler')
def test_compiled_and_eager_losses_agree_for_a_hundred_iterations(project):
    options = [*TINY[1:], '--n_embd=56', '--batch_size=882', '--max_iters=100', '--eval_interval=10', '--full_eval_interval=10']
    tables = []
    for compile in (True, False):
        out = project.check('train_with_eval.py', MATH, *options, f'--compile={compile}', f'--out_dir={compile}')
        assert ('compiled' in out) == compile
        tables.append(torch.tensor(pd.read_csv(project.folder / str(compile) / 'results.csv').train_loss))
    torch.testing.assert_close(*tables, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='torch.compile needs a C++ compiler')
def test_compiled_on_two_threads_one_seed_gives_one_result(project):
    options = [*TINY[1:], '--max_iters=300', '--full_eval_interval=100', '--num_threads=2', '--batch_size=882',
               '--warmup_iters=50']
    tables = []
    for folder in ('a', 'b'):
        project.check('train_with_eval.py', MATH, *options, f'--out_dir={folder}')
        tables.append(pd.read_csv(project.folder / folder / 'results.csv').drop(columns=['train_s', 'eval_s']))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_compiler_that_does_not_work_is_said_and_done_without(project):
    broken = project.folder / 'g++'
    broken.write_text('#!/bin/sh\nexit 1\n')
    broken.chmod(0o755)
    env = {**os.environ, 'CXX': str(broken), 'TORCHINDUCTOR_CACHE_DIR': str(project.folder / 'cache')}
    process = subprocess.run([sys.executable, 'train_with_eval.py', MATH, *TINY[1:]], cwd=project.folder, env=env,
                             capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count('the compiler failed') == 1 and 'eager' in process.stdout


def test_without_a_compiler_one_line_says_so_and_it_trains(project):
    env = {**os.environ, 'PATH': '/nowhere', 'CXX': '/nowhere/g++'}
    process = subprocess.run([sys.executable, 'train_with_eval.py', MATH, *TINY[1:]], cwd=project.folder, env=env,
                             capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count('no compiler found') == 1 and 'eager' in process.stdout
