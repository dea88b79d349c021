"""Long runs: diverging losses, data-parallel processes, the compiled step. Random kills are in tests/faults."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch

from conftest import TINY

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


def torchrun(project, *args):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'train_with_eval.py']
    return subprocess.run([*command, MATH, *args], cwd=project.folder, capture_output=True, text=True, timeout=120)


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


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='torch.compile needs a C++ compiler')
def test_compiled_and_eager_losses_agree_for_a_hundred_iterations(project):
    options = [*TINY[1:], '--max_iters=100', '--eval_interval=10', '--full_eval_interval=10']
    tables = []
    for compile in (True, False):
        out = project.check('train_with_eval.py', MATH, *options, f'--compile={compile}', f'--out_dir={compile}')
        assert ('compiled' in out) == compile
        tables.append(torch.tensor(pd.read_csv(project.folder / str(compile) / 'results.csv').train_loss))
    torch.testing.assert_close(*tables, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not shutil.which(os.environ.get('CXX', 'g++')), reason='torch.compile needs a C++ compiler')
def test_compiled_on_two_threads_one_seed_gives_one_result(project):
    options = [*TINY[1:], '--max_iters=300', '--full_eval_interval=100', '--num_threads=2', '--batch_size=882', '--warmup_iters=50']
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
