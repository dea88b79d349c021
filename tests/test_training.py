"""The training loop: batches, gradients, learning rate, divergence, processes of torchrun, compiling."""

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TIMING, TINY, Project
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from little import little_model

import train_with_eval
from common.device import pick_device, pick_dtype
from common.errors import UserError
from model import GPT, GPTConfig

MATH = 'config/train_math_mini_14.py'
NO_COMPILER = not shutil.which(os.environ.get('CXX', 'g++'))


def set_up(monkeypatch, **settings):
    """The settings of train_with_eval.py are its module's variables."""
    for key, value in settings.items():
        assert hasattr(train_with_eval, key)
        monkeypatch.setattr(train_with_eval, key, value)


def batch_of(ids, iter_num, rank=0, world_size=1):
    return train_with_eval.get_batch(ids, train_with_eval.draw_starts(len(ids), iter_num, rank, world_size))


# -----------------------------------------------------------------------------
# batches


@given(world_size=st.sampled_from([1, 2, 3, 6]), accumulation=st.sampled_from([1, 2]), iter_num=st.integers(0, 10**6),
       seed=st.integers(0, 2**32))
@hypothesis_settings(max_examples=50)
def test_a_batch_is_a_function_of_seed_and_iteration_and_processes_share_it(world_size, accumulation, iter_num, seed):
    ids = np.arange(100, dtype='<u2')
    with pytest.MonkeyPatch.context() as monkeypatch:
        set_up(monkeypatch, batch_size=12, block_size=7, gradient_accumulation_steps=accumulation, seed=seed)
        whole = batch_of(ids, iter_num)
        np.random.seed(0), torch.manual_seed(0)  # whatever the global random state
        parts = [batch_of(ids, iter_num, rank, world_size) for rank in range(world_size)]
        assert whole.shape == (12 * accumulation, 8) and whole.dtype == torch.int64
        assert torch.equal(torch.cat(parts), whole)
        assert {len(part) for part in parts} == {12 * accumulation // world_size}
        assert not torch.equal(whole, batch_of(ids, iter_num + 1))
        train_with_eval.seed += 1
        assert not torch.equal(whole, batch_of(ids, iter_num))
    assert (whole.diff(dim=1) == 1).all(), 'windows of consecutive tokens'


def test_every_window_of_a_text_is_drawn_the_last_one_too(monkeypatch):
    set_up(monkeypatch, batch_size=2000, block_size=7, gradient_accumulation_steps=1)
    starts = batch_of(np.arange(20, dtype='<u2'), 0)[:, 0]
    assert starts.unique().tolist() == list(range(13))
    counts = starts.bincount()
    assert counts.min() > 0.7 * counts.max(), 'each about as often'


# -----------------------------------------------------------------------------
# a step


@pytest.mark.parametrize('micro_steps', [1, 3])
def test_after_a_step_every_gradient_is_that_of_the_batchs_mean_loss(micro_steps):
    """Against the definition: the mean of the losses of all windows and positions, one by one."""
    model = little_model(17, std=0.3, block_size=9).train()
    batch = torch.randint(17, (12, 10))
    loss = train_with_eval.forward_backward(model, batch, micro_steps, nullcontext())
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    losses = [model(window[None, :-1], window[None, 1:])[1] for window in batch]
    expected = torch.stack(losses).mean()
    expected.backward()
    torch.testing.assert_close(torch.as_tensor(loss), expected.detach(), rtol=1e-5, atol=1e-6)
    for gradient, p in zip(gradients, model.parameters(), strict=True):
        assert gradient.any()
        torch.testing.assert_close(gradient, p.grad, rtol=1e-4, atol=1e-6)


def test_gradients_of_two_processes_average_to_those_of_one(monkeypatch):
    set_up(monkeypatch, batch_size=6, block_size=9, gradient_accumulation_steps=2)
    ids = np.random.default_rng(0).integers(17, size=200).astype('<u2')
    model = little_model(17, std=0.3, block_size=9)

    def gradients(rank, world_size, micro_steps):
        model.zero_grad(set_to_none=True)
        train_with_eval.forward_backward(model, batch_of(ids, 3, rank, world_size), micro_steps,
                                         nullcontext())
        return torch.cat([p.grad.flatten() for p in model.parameters()])
    halves = (gradients(0, 2, 1) + gradients(1, 2, 1)) / 2
    torch.testing.assert_close(halves, gradients(0, 1, 2), rtol=1e-4, atol=1e-6)


def test_the_learning_rate_warms_up_and_decays_by_half_a_cosine(monkeypatch):
    set_up(monkeypatch, learning_rate=1e-2, min_lr=1e-4, warmup_iters=100, lr_decay_iters=1100)
    get_lr = train_with_eval.get_lr
    assert get_lr(0) == pytest.approx(1e-2 / 101) and get_lr(50) == pytest.approx(1e-2 * 51 / 101)
    assert get_lr(100) == pytest.approx(1e-2) and get_lr(600) == pytest.approx((1e-2 + 1e-4) / 2)
    assert get_lr(350) == pytest.approx(1e-4 + 0.5 * (1 + math.cos(math.pi / 4)) * (1e-2 - 1e-4))
    assert get_lr(1100) == pytest.approx(1e-4) and get_lr(10**6) == 1e-4
    set_up(monkeypatch, decay_lr=False)
    assert get_lr(0) == get_lr(10**6) == 1e-2


def test_devices_and_precisions_are_checked_and_chosen():
    assert pick_device('cpu', 14) == pick_device('auto', 14) == 'cpu', 'the kernels of a tiny model are too short'
    assert pick_device('CPU', 14) == 'cpu'
    for device in ('abacus', 'meta', 'cuda:99', '', 'cuda:x'):
        with pytest.raises(UserError, match=f"device '{device}' is not available"):
            pick_device(device, 14)


@pytest.mark.parametrize('can, expected', [({'amx_bf16': True}, 'bfloat16'), ({'avx512_bf16': True}, 'bfloat16'),
                                           ({'avx512_f': True, 'amx_bf16': False}, 'float32'), ({}, 'float32')])
def test_a_wide_model_trains_in_bfloat16_on_a_cpu_that_computes_in_it(monkeypatch, can, expected):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: can)
    assert pick_dtype('auto', 'cpu', 256) == expected
    assert pick_dtype('auto', 'cpu', 255) == pick_dtype('float32', 'cpu', 384) == pick_dtype('auto', 'mps',
                                                                                             384) == 'float32'
    assert pick_dtype('bfloat16', 'cpu', 14) == 'bfloat16'


# -----------------------------------------------------------------------------
# whole runs


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(project):
    options = [*TINY, '--out_dir=diverged', '--warmup_iters=0', '--learning_rate=1e38', '--grad_clip=0',
               '--max_iters=50']
    project.fails('train_with_eval.py', MATH, *options, says='training has diverged')
    checkpoint = torch.load(project.folder / 'diverged/ckpt_last.pt', weights_only=True)
    assert all(torch.isfinite(weight).all() for weight in checkpoint['model'].values())
    table = pd.read_csv(project.folder / 'diverged/results.csv')
    assert list(table.iter) == [*range(0, checkpoint['iter_num'] + 1, 2)] and table.train_loss.notna().all()


def test_divergence_off_the_evaluation_beat_keeps_it_too(project):
    options = [*TINY, '--out_dir=diverged', '--warmup_iters=0', '--learning_rate=1e38', '--grad_clip=0',
               '--weight_decay=1.0',
               '--max_iters=7', '--eval_interval=500', '--full_eval_interval=500']
    project.fails('train_with_eval.py', MATH, *options, says='training has diverged')
    checkpoint = torch.load(project.folder / 'diverged/ckpt_last.pt', weights_only=True)
    assert checkpoint['iter_num'] == 0 and all(torch.isfinite(weight).all() for weight in checkpoint['model'].values())


def test_ctrl_c_after_divergence_keeps_the_last_good_checkpoint_and_does_not_say_that_all_is_saved(project):
    process = project.popen('train_with_eval.py', MATH, *TINY, '--out_dir=diverged', '--warmup_iters=0',
                            '--learning_rate=1e38',
                            '--grad_clip=0', '--weight_decay=1.0', '--max_iters=1000000', '--eval_interval=1000000',
                            '--full_eval_interval=1000000')
    while not (project.folder / 'diverged/temp.csv').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and 'everything is saved' not in out
    assert err.startswith('error: the weights are not finite')
    assert torch.load(project.folder / 'diverged/ckpt_last.pt', weights_only=True)['iter_num'] == 0


TORCHRUN = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', 'train_with_eval.py']


def torchrun(project, *args):
    return subprocess.run([sys.executable, *TORCHRUN, MATH, *args], cwd=project.folder, capture_output=True, text=True,
                          timeout=120)


@pytest.mark.parametrize('accumulation', [1, pytest.param(2, marks=pytest.mark.faults)])
def test_two_processes_compute_the_same_losses_as_one(project, accumulation):
    options = [*TINY, '--max_iters=40', '--eval_interval=10', '--full_eval_interval=20', '--warmup_iters=5',
               f'--gradient_accumulation_steps={accumulation}']
    project.check('train_with_eval.py', MATH, *options, '--out_dir=one')
    process = torchrun(project, *options, '--out_dir=two')
    assert process.returncode == 0, process.stderr
    one, two = (pd.read_csv(project.folder / folder / 'results.csv') for folder in ('one', 'two'))
    assert list(one.iter) == list(two.iter) and one.train_loss.diff().abs().max() > 0.01
    # rounding grows in forty steps, and a gradient of half of the batch would change the losses by per cents
    assert list(one.train_loss) == pytest.approx(list(two.train_loss), rel=1e-3)


def test_a_process_that_cannot_go_on_takes_all_down_with_the_reason(project):
    process = torchrun(project, *TINY, '--batch_size=15')
    assert process.returncode == 1 and 'cannot be shared equally by 2 processes' in process.stderr
    (project.folder / 'file').write_text('precious')
    process = torchrun(project, *TINY, '--out_dir=file')
    assert process.returncode == 1 and 'cannot use file as out_dir' in process.stderr


@pytest.mark.parametrize('victim', [pytest.param(0, marks=pytest.mark.faults), 1])
def test_a_process_that_is_killed_takes_the_run_down_and_the_run_resumes(project, victim):
    options = [*TINY, '--eval_interval=10', '--full_eval_interval=10', '--out_dir=pair']
    process = project.popen(*TORCHRUN, MATH, *options, '--max_iters=1000000')
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


def pair(folders, *args, each=((), ()), script='train_with_eval.py'):
    """Start two processes as torchrun does, each in a folder of its own, as on two hosts.

    They would abort if Python took them down in the ordinary way, as gloo's threads sometimes make one abort.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    variables = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), PYTHONPATH='aborting')
    for folder in folders if sys.platform == 'linux' else ():  # on_exit is in Linux's library of C
        (folder / 'aborting').mkdir(exist_ok=True)
        (folder / 'aborting/sitecustomize.py').write_text(
            'import ctypes\nlibc = ctypes.CDLL(None)\nlibc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)\n')
    return [subprocess.Popen([sys.executable, script, *args, *own], cwd=folder, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, env={**os.environ, **variables, 'RANK': str(rank)})
            for rank, (folder, own) in enumerate(zip(folders, each))]


@pytest.mark.parametrize('change, says', [
    ('--learning_rate=0.02', 'learning_rate'), ('--max_iters=6', 'max_iters'), ('text', 'text'),
    ('checkpoint', 'iteration'), ('weights', 'weights')])
def test_processes_that_would_not_train_the_same_are_refused_by_name(project, tmp_path_factory, change, says):
    other = tmp_path_factory.mktemp('other')
    shutil.copytree(project.folder, other, dirs_exist_ok=True)
    args, own = [MATH, *TINY, '--out_dir=pair'], [change] * change.startswith('--')
    if change == 'text':
        Project(other).check('data/as_math/prepare.py', '--held_out', '1,2')
    if change in ('checkpoint', 'weights'):
        args = ['--init_from=resume', '--out_dir=math_mini_14', '--max_iters=6', '--full_eval=False']
        path = other / 'math_mini_14/ckpt_last.pt'
        checkpoint = torch.load(path, weights_only=True)
        checkpoint['model']['lm_head.weight'][0, 0] += change == 'weights'
        torch.save({**checkpoint, 'iter_num': 4 if change == 'weights' else 2}, path)
    processes = pair([project.folder, other], *args, each=[(), own])
    try:
        for process in processes:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 1 and f'error: processes 0 and 1 differ in {says} (' in err, err
    finally:
        for process in processes:
            process.kill()
    assert not (project.folder / 'pair').exists()


def test_ctrl_c_ends_a_process_before_gloos_threads_can_abort_it(project):
    (project.folder / 'interrupted.py').write_text(
        "import atexit\nfrom common.processes import leave_gloo_behind\nleave_gloo_behind()\n"
        "atexit.register(print, 'handlers run', flush=True)\nraise KeyboardInterrupt")
    process, = pair([project.folder], script='interrupted.py')
    assert process.communicate(timeout=60)[0] == 'handlers run\n' and process.returncode == 130


def test_processes_may_have_their_own_folders_and_numbers_of_threads(project, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    shutil.copytree(project.folder, other, dirs_exist_ok=True)
    processes = pair([project.folder, other], MATH, *TINY, each=[['--out_dir=a'], ['--out_dir=b', '--num_threads=2']])
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert list(pd.read_csv(project.folder / 'a/results.csv').iter) == [0, 2, 4] and not (other / 'b').exists()


def test_a_process_that_waits_for_one_that_hangs_ends_at_the_second_signal(project):
    options = [MATH, *TINY, '--out_dir=pair', '--max_iters=1000000', '--eval_interval=1000000',
               '--full_eval_interval=1000000']
    master, hanging = pair([project.folder] * 2, *options)
    try:
        while not (project.folder / 'pair/temp.csv').exists():
            assert master.poll() is None, master.communicate()
            time.sleep(0.05)
        hanging.send_signal(signal.SIGSTOP)
        for _ in range(2):
            time.sleep(0.5)
            master.send_signal(signal.SIGTERM)
        assert master.wait(30) == 143
    finally:
        for process in (master, hanging):
            process.kill()


def test_a_signal_to_torchrun_saves_the_run(project):
    process = project.popen(*TORCHRUN, MATH, *TINY, '--out_dir=pair', '--max_iters=1000000', '--eval_interval=1000000',
                            '--full_eval_interval=1000000')
    while not (project.folder / 'pair/temp.csv').exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    time.sleep(0.5)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert 'everything is saved' in out, err
    assert torch.load(project.folder / 'pair/ckpt_last.pt', weights_only=True)['iter_num'] > 0


@pytest.mark.parametrize('n_embd, accumulation, fused', [(14, 1, 'True'), (56, 3, 'True'), (14, 2, 'False')])
def test_a_run_trains_as_the_plain_loop_does(project, n_embd, accumulation, fused):
    """Against a loop that is written down here: every drawn window, loss.backward(), clip, AdamW that is not fused."""
    if fused == 'True' and NO_COMPILER:
        pytest.skip('the step in C++ needs a compiler')
    options = [*TINY, '--out_dir=plain', f'--fused={fused}', f'--n_embd={n_embd}', '--max_iters=20', '--batch_size=300',
               '--decay_lr=False',
               '--weight_decay=0.1', '--eval_interval=20', '--full_eval=False',
               f'--gradient_accumulation_steps={accumulation}']
    project.check('train_with_eval.py', MATH, *options)
    checkpoint = torch.load(project.folder / 'plain/ckpt_last.pt', weights_only=True)
    ids = torch.from_numpy(np.fromfile(project.folder / 'data/as_math/train.bin', dtype='<u2').astype(np.int64))
    windows = ids.unfold(0, 10, 1)
    torch.manual_seed(1337)
    model = GPT(GPTConfig(**checkpoint['model_args']))
    begun = torch.cat([p.flatten() for p in model.state_dict().values()])
    decayed = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW([{'params': decayed, 'weight_decay': 0.1},
                                   {'params': [p for p in model.parameters() if p.dim() < 2], 'weight_decay': 0.0}],
                                  lr=1e-2, betas=(0.9, 0.99), fused=False, foreach=False)
    for iter_num in range(20):
        ix = torch.from_numpy(np.random.default_rng([1337, iter_num]).integers(len(windows), size=300 * accumulation))
        optimizer.zero_grad()
        model(windows[ix, :-1], windows[ix, 1:])[1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    # By how far the training has moved them all, because AdamW divides a gradient that is nearly zero by its own size,
    # so that
    # rounding may decide where a single weight goes. Another batch or a missing decay would change this by per cents.
    weights = torch.cat([p.flatten() for p in model.state_dict().values()])
    ours = torch.cat([p.flatten() for p in checkpoint['model'].values()])
    assert (ours - weights).norm() < 1e-3 * (weights - begun).norm()


@pytest.mark.skipif(NO_COMPILER, reason='two of the three steps need a C++ compiler')
def test_on_two_threads_one_seed_gives_one_result_and_every_step_nearly_the_same(project):
    options = [*TINY[1:], '--n_embd=56', '--batch_size=882', '--max_iters=40', '--eval_interval=10', '--num_threads=2',
               '--full_eval=False', '--warmup_iters=50']
    tables = {}
    for folder, *step in (('fused', '--fused=True'), ('fused again', '--fused=True'), ('compiled', '--fused=False'),
                          ('compiled again', '--fused=False'), ('eager', '--fused=False', '--compile=False')):
        out = project.check('train_with_eval.py', MATH, *options, *step, f'--out_dir=run {folder}')
        assert folder.split()[0] in out.split('training ')[1].splitlines()[0]
        tables[folder] = pd.read_csv(project.folder / f'run {folder}' / 'results.csv').drop(columns=TIMING)
    for step in ('fused', 'compiled'):
        pd.testing.assert_frame_equal(tables[step], tables[step + ' again'], check_exact=True)
        assert list(tables[step].train_loss) == pytest.approx(list(tables['eager'].train_loss), rel=1e-3)  # as above
    assert tables['eager'].train_loss.iloc[-1] < 0.9 * tables['eager'].train_loss.iloc[0]


@pytest.mark.parametrize('compiler, says', [('broken', 'did not compile fused_step.cpp'),
                                            ('', 'no C++ compiler was found')])
def test_without_a_compiler_that_works_it_says_so_and_trains_without(project, compiler, says):
    if compiler:
        compiler = str(project.folder / compiler)
        Path(compiler).write_text('#!/bin/sh\nexit 1\n', encoding='utf-8')
        Path(compiler).chmod(0o755)
    cache = str(project.folder / 'cache')
    out = project.check('train_with_eval.py', MATH, *TINY[1:], CXX=compiler, PATH='/nowhere', XDG_CACHE_HOME=cache,
                        TORCHINDUCTOR_CACHE_DIR=cache)
    assert out.count(says) == 1 and out.count('torch.compile failed') == 1 and 'eager' in out
