"""
The fused step in C++: its gradients and updates against PyTorch's, its reproducibility, bad input, and its compiling.
"""

import copy
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from common.checkpoint import load_model
from common.questions import arithmetic_questions, arithmetic_text
from fused import compile_cpp
from fused.compile_cpp import build
from fused.fused_step import FusedStep, count_windows, load_fused_step, sort_windows, supports
from model import GPT, GPTConfig

EPS = float(np.finfo(np.float32).eps)  # how much a float can change by rounding, relative to itself
REPO = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(not any(map(shutil.which, ('g++', 'clang++', 'c++'))), reason='no C++ compiler')

SHAPES = [  # block_size, vocab_size, n_layer, n_head, n_embd, mlp_expansion, windows
    (9, 17, 1, 1, 14, 1, 693), (9, 17, 1, 1, 28, 1, 101), (9, 17, 1, 1, 56, 1, 64), (24, 66, 1, 1, 14, 1, 57),
    (24, 51, 1, 1, 58, 1, 33), (7, 30, 3, 4, 24, 4, 19), (10, 11, 2, 2, 14, 2, 5), (8, 20, 2, 1, 16, 4, 9),
    (1, 3, 1, 1, 5, 1, 8), (2, 3, 2, 5, 5, 3, 1), (40, 12, 1, 3, 6, 1, 17), (5, 100, 4, 2, 4, 1, 40),
    (64, 66, 1, 96, 96, 1, 3)]


def make(block_size=9, vocab_size=17, n_layer=1, n_head=1, n_embd=14, mlp_expansion=1, windows=100, scale=3.0, seed=0):
    """A model with larger weights than a new one's, so that nothing in it is nearly linear, a text, and starts."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(block_size, vocab_size, n_layer, n_head, n_embd, bias=False, mlp_expansion=mlp_expansion))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p * scale if p.dim() == 2 else p + 0.2 * torch.randn_like(p))
    ids = torch.randint(vocab_size, (500,))
    return model, ids, np.random.default_rng(seed).integers(500 - block_size, size=windows)


def fused(model, n_threads=1, weight_decay=0.1):
    return FusedStep(model, model.configure_optimizers(weight_decay, 1e-2, (0.9, 0.99), 'cpu'), n_threads)


def loss_of(model, ids, starts):
    windows = ids.unfold(0, model.config.block_size + 1, 1)[torch.from_numpy(starts)]
    return model(windows[:, :-1], windows[:, 1:])[1]


def fused_iteration(step, ids, starts, lr, grad_clip):
    step.gradients(ids, starts)
    step.update(lr, grad_clip)


def difference(tensors, others):
    """The largest relative difference of tensors, by their norms."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(tensors, others, strict=True)]
    return max(((a - b).norm() / b.norm().clamp_min(1e-12)).item() for a, b in pairs)


def exact_gradients(model, ids, starts, off=0.0):
    """Loss and gradients in float64, with each weight off by up to this part of itself."""
    exact, generator = copy.deepcopy(model).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in exact.parameters():
            p *= 1 + off * (2 * torch.rand(p.shape, generator=generator, dtype=torch.float64) - 1)
    loss = loss_of(exact, ids, starts)
    loss.backward()
    return loss.item(), [p.grad for p in exact.parameters()]


def assert_exact_but_for_rounding(model, ids, starts, n_threads=1):
    """On any processor, float32 errs 1 to 3 times as much as if each weight were off by one rounding."""
    loss, expected = exact_gradients(model, ids, starts)
    allowed = 10 * difference(exact_gradients(model, ids, starts, off=EPS)[1], expected)
    assert allowed < 1e-4, 'so that a wrong formula is not within it'
    assert fused(model, n_threads).gradients(ids, starts) == pytest.approx(loss, rel=100 * EPS)
    assert difference([p.grad for p in model.parameters()], expected) < allowed


@pytest.mark.parametrize('scale', [1.0, 10.0])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_gradients_are_those_of_float64_autograd(shape, scale):
    assert_exact_but_for_rounding(*make(*shape, scale=scale))


def moments(optimizer, model):
    return [optimizer.state[p][name] for p in model.parameters() for name in ('exp_avg', 'exp_avg_sq', 'step')]


def give_gradients(model, iteration):
    """The same in every model, because those of diverging models would turn rounding into other results."""
    generator = torch.Generator().manual_seed(iteration)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def plain_update(model, optimizer, lr, grad_clip):
    for group in optimizer.param_groups:
        group['lr'] = lr
    torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip or float('inf'))
    optimizer.step()


@pytest.mark.parametrize('grad_clip', [0.0, 0.3, 1e3])
def test_fifty_updates_are_those_of_adamw_in_float64(grad_clip):
    model, *_ = make(n_layer=2, n_head=2)
    exact = copy.deepcopy(model).double()
    optimizer = exact.configure_optimizers(0.1, 1e-2, (0.9, 0.99), 'cpu')
    step = fused(model)
    for i in range(50):
        for each in (model, exact):
            give_gradients(each, i)
        step.update(1e-3 * (1 + i % 5), grad_clip)
        plain_update(exact, optimizer, 1e-3 * (1 + i % 5), grad_clip)
    # each of the hundred steps that the moments remember rounds once or twice
    assert difference(model.parameters(), exact.parameters()) < 100 * EPS
    assert difference(moments(step.optimizer, model), moments(optimizer, exact)) < 100 * EPS


def test_the_moments_are_those_of_the_optimizer_so_that_either_step_goes_on_from_the_other():
    first, *_ = make()
    second = copy.deepcopy(first)
    one, two = fused(first), fused(second)
    for i in range(10):
        if i == 5:  # as when a run is resumed: the moments come from a checkpoint
            for optimizer in (one.optimizer, two.optimizer):
                state = copy.deepcopy(optimizer.state_dict())
                state['param_groups'][0]['weight_decay'] = 0.5
                optimizer.load_state_dict(state)
        for model, step, is_fused in ((first, one, i < 5), (second, two, i >= 5)):
            give_gradients(model, i)
            if is_fused:
                step.update(1e-3, 1.0)
            else:
                plain_update(model, step.optimizer, 1e-3, 1.0)
    assert difference(first.parameters(), second.parameters()) < 100 * EPS
    assert difference(moments(one.optimizer, first), moments(two.optimizer, second)) < 100 * EPS


@pytest.mark.parametrize('shape', [dict(n_embd=28), dict(block_size=24, vocab_size=66, n_layer=2, n_head=2)], ids=str)
def test_one_seed_gives_one_result_to_the_bit_with_any_number_of_threads(shape):
    """The second shape has so large a table that several threads turn its gradients into those of the parameters."""
    results = []
    for n_threads in (1, 1, 2, 2, 3, 7):
        model, ids, _ = make(windows=0, **shape)
        step = fused(model, n_threads)
        for i in range(20):
            fused_iteration(step, ids, np.random.default_rng(i).integers(470, size=300), 1e-3, 1.0)
        results.append([t.detach().clone() for p in model.parameters() for t in (p, p.grad)])
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0]))


@pytest.mark.parametrize('n_layer, n_head', [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize('tokens, length', [(2, 500), (6, 500), (17, 12)])
def test_windows_with_equal_beginnings_or_drawn_twice_count_each_time(n_layer, n_head, tokens, length):
    model, _, _ = make(n_layer=n_layer, n_head=n_head)
    ids = torch.randint(tokens, (length,))
    assert_exact_but_for_rounding(model, ids, np.random.default_rng(0).integers(length - 9, size=300))


def count_denormals(tensors):
    sizes = np.abs(np.concatenate([t.detach().numpy().ravel() for t in tensors]))  # torch itself might take them for 0
    return int(((0 < sizes) & (sizes < np.finfo(np.float32).tiny)).sum())


@pytest.mark.parametrize('flushes', [False, True])
@pytest.mark.parametrize('n_threads', [1, 2])
def test_denormal_numbers_which_slow_some_processors_down_become_0_and_the_callers_own_do_not(n_threads, flushes):
    """The last token is not in the text, and as good as impossible, so its gradients are far below 1e-38."""
    model, ids, starts = make()
    ids[ids == 16] = 0
    with torch.no_grad():
        direction = torch.randn(14)
        model.transformer.wpe.weight += 100 * direction
        model.lm_head.weight[16] = -10 * direction
    assert 0 < exact_gradients(model, ids, starts)[1][0][16].abs().max() < 1e-38
    step, tiny = fused(model, n_threads), torch.tensor(1e-39)
    try:
        torch.set_flush_denormal(flushes)
        step.gradients(ids, starts)
        assert count_denormals(p.grad for p in model.parameters()) == 0
        for p in model.parameters():
            p.grad.fill_(1e-19)  # its square is denormal
        step.update(1e-3, 0.0)
        assert count_denormals(moments(step.optimizer, model)) == 0
        assert (tiny * 0.5 == 0) == flushes
    finally:
        torch.set_flush_denormal(False)


@pytest.fixture
def two_threads():
    """Threads of torch, which the step uses, too, and which exist already and do not take denormal numbers for 0."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.ones(1_000_000).mul_(2)
    yield
    torch.set_num_threads(before)


def test_every_thread_takes_denormal_numbers_for_0(two_threads, monkeypatch):
    """Of a model so sure that each gradient of a logit is denormal, before huge embeddings make larger ones of them."""
    monkeypatch.setattr('fused.fused_step.MAX_SORTED', 10)  # else windows share beginnings, and gradients are summed
    model, *_ = make()
    direction = torch.linspace(-1, 1, 14)
    other = direction**2 - (direction**2).mean()  # no position has any of it
    with torch.no_grad():
        for p in model.parameters():
            p *= p.dim() < 2
        model.transformer.wpe.weight += 1000 * direction
        model.lm_head.weight += 1e10 * (other - direction)
        model.lm_head.weight[:3] = torch.tensor([[1000.0], [-1.0], [-2.0]]) * direction
    ids = torch.zeros(5000, dtype=torch.int64)
    ids[::10], ids[::20] = 1, 2
    step = fused(model, n_threads=2)
    for _ in range(5):
        step.gradients(ids, np.arange(0, 4980, 10))
        assert all((p.grad == 0).all() for p in model.parameters())


def test_threads_that_begin_in_a_step_do_not_take_torchs_denormal_numbers_for_0():
    code = ("import torch; torch.set_num_threads(2); from tests.test_fused_step import fused, make; "
            "model, ids, starts = make(); fused(model, n_threads=2).gradients(ids, starts); "
            "print((torch.full((1_000_000,), 1e-39) * 0.5 == 0).sum().item())")
    run = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True)
    assert run.stdout == '0\n', run.stderr


@pytest.mark.parametrize('n_threads', [1, 2])
def test_the_weights_of_a_trained_model_leave_no_denormal_numbers(n_threads):
    model, _, _, settings = load_model(REPO / 'results/math_mini_56', ['ckpt.pt'])
    text = arithmetic_text(arithmetic_questions())
    ids = torch.tensor([sorted(set(text)).index(ch) for ch in text])
    starts = np.random.default_rng(0).integers(len(ids) - settings['block_size'], size=settings['batch_size'])
    step = fused(model, n_threads)
    fused_iteration(step, ids, starts, 1e-4, 1.0)
    assert count_denormals([p.grad for p in model.parameters()] + moments(step.optimizer, model)) == 0


@pytest.mark.parametrize('size', [2, 3, 10, 25])
def test_windows_are_sorted_by_what_they_hold(size):
    text = np.random.default_rng(size).integers(3, size=300) * 100
    windows = [tuple(window) for window in np.lib.stride_tricks.sliding_window_view(text, size)]
    first, place = sort_windows(text, size)
    assert [windows[i] for i in first] == sorted(set(windows))
    assert [windows[i] for i in first[place]] == windows


def test_a_text_that_is_too_long_to_be_sorted_gives_the_same_gradients(monkeypatch):
    monkeypatch.setattr('fused.fused_step.MAX_SORTED', 499)
    model, ids, starts = make()
    assert [list(places) for places in sort_windows(ids.numpy(), 10)] == [list(range(491))] * 2
    assert_exact_but_for_rounding(model, ids, starts)


@pytest.mark.parametrize('n', [5, 40, 641, 10_000])  # few windows in the text, and many
def test_windows_are_counted_alike_in_short_and_in_long_texts(n):
    ranks = np.random.default_rng(0).integers(n, size=40)
    different, counts = count_windows(ranks, n)
    assert different.tolist() == sorted({*ranks.tolist()})
    assert counts.tolist() == [ranks.tolist().count(rank) for rank in different]


@pytest.mark.parametrize('n_layer', [1, 2])
def test_a_batch_leaves_nothing_behind_for_the_next(n_layer):
    model, ids, starts = make(n_layer=n_layer)
    step, results = fused(model), []
    for some in (starts, starts[:7], starts):
        loss = step.gradients(ids, some)
        results.append([torch.tensor(loss), *[p.grad.clone() for p in model.parameters()]])
    assert all(map(torch.equal, results[0], results[2]))


def test_gradients_stay_in_their_tensors_and_may_be_replaced_before_the_update():
    model, ids, starts = make()
    step = fused(model)
    step.gradients(ids, starts)
    before = [p.grad for p in model.parameters()]
    step.gradients(ids, starts)
    assert all(p.grad is g for p, g in zip(model.parameters(), before))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)  # no gradient: nothing but the decay of matrices moves
    expected = [p.detach() * (1 - 1e-3 * 0.1 * (p.dim() >= 2)) for p in model.parameters()]
    step.update(1e-3, 1.0)
    assert difference(model.parameters(), expected) < 10 * EPS


@pytest.mark.parametrize('ids, starts, message', [
    (torch.tensor([0, 1, 17] * 10), np.array([0]), 'from 0 to 16'),
    (torch.tensor([0, 1, -1] * 10), np.array([0]), 'from 0 to 16'),
    (torch.zeros(30), np.array([0]), 'must be'),
    (torch.zeros(30, 2, dtype=torch.int64), np.array([0]), 'must be'),
    (torch.zeros(0, dtype=torch.int64), np.array([0]), 'must be'),
    (torch.zeros(30, dtype=torch.int64), np.array([], dtype=np.int64), 'not empty'),
    (torch.zeros(30, dtype=torch.int64), np.array([1.0]), 'starts must be'),
    (torch.zeros(30, dtype=torch.int64), np.array([[1]]), 'starts must be'),
    (torch.zeros(30, dtype=torch.int64), np.array([5, -1]), 'must lie in the text'),
    (torch.zeros(30, dtype=torch.int64), np.array([5, 21]), 'must lie in the text'),
    (torch.zeros(9, dtype=torch.int64), np.array([0]), 'more than 9'),
    (torch.zeros(30, dtype=torch.int64), np.array([2**62]), 'must lie in the text')])
def test_bad_input_is_an_error_before_it_reaches_the_c_code(ids, starts, message):
    with pytest.raises(ValueError, match=message):
        fused(make()[0]).gradients(ids, starts)


def test_a_text_whose_sorting_was_interrupted_is_sorted_again(monkeypatch):
    model, ids, starts = make()
    step = fused(model)
    step.gradients(torch.arange(500) % 5, starts)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr('fused.fused_step.sort_windows', lambda *_: 1 // 0)
        step.gradients(ids, starts)
    assert step.gradients(ids, starts) == pytest.approx(exact_gradients(model, ids, starts)[0], rel=100 * EPS)


def test_the_loss_of_a_model_that_is_certain_is_0_however_large_its_logits_are():
    model, _, starts = make()
    with torch.no_grad():
        model.transformer.wpe.weight *= 0
        model.lm_head.weight[:] = -1000 * torch.linspace(-1, 1, 14)
        model.lm_head.weight[3] *= -1
    assert fused(model).gradients(torch.full((500,), 3), starts) == 0


def test_no_threads_are_an_error():
    with pytest.raises(ValueError, match='at least one thread'):
        fused(make()[0], n_threads=0)


def test_moments_of_the_wrong_kind_are_an_error_although_address_and_strides_are_those_of_before():
    model, ids, starts = make()
    step = fused(model)
    fused_iteration(step, ids, starts, 1e-3, 1.0)
    state = step.optimizer.state[model.transformer.h[0].attn.c_attn.weight]
    whole = state['exp_avg']
    for wrong in (whole[:14], whole.view(torch.int32)):
        state['exp_avg'] = wrong
        with pytest.raises(ValueError, match='exp_avg'):
            step.update(1e-3, 1.0)


def test_gradients_of_the_wrong_kind_are_an_error_before_they_reach_the_c_code():
    model, ids, starts = make()
    step = fused(model)
    with pytest.raises(ValueError, match='gradient'):
        step.update(1e-3, 1.0)  # there are none yet
    step.gradients(ids, starts)
    wide, square = model.transformer.h[0].attn.c_attn.weight, model.transformer.h[0].attn.c_proj.weight
    for weight, grad in ((wide, torch.zeros(14, 42).t()), (square, square.grad.t())):  # the second has its old address
        whole, weight.grad = weight.grad, grad
        with pytest.raises(ValueError, match='gradient'):
            step.update(1e-3, 1.0)
        weight.grad = whole


@pytest.mark.parametrize('n_layer', [1, 2])
def test_weights_that_are_not_numbers_give_a_loss_that_is_none(n_layer):
    model, ids, starts = make(n_layer=n_layer)
    torch.nn.init.constant_(model.transformer.h[0].mlp.c_fc.weight, float('nan'))
    step = fused(model)
    assert np.isnan(step.gradients(ids, starts))
    step.update(1e-3, 1.0)
    assert all(p.isnan().all() for p in model.parameters())
    model.load_state_dict(make(n_layer=n_layer, seed=1)[0].state_dict())
    for some in (starts[:1], starts):  # one window leaves most lanes over
        assert np.isfinite(step.gradients(ids, some)) and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('other', [
    dict(bias=True), dict(dropout=0.1), dict(activation='gelu_new'), dict(n_embd=1024), dict(vocab_size=1000),
    dict(mlp_expansion=8)], ids=str)
def test_a_model_that_it_cannot_compute_is_not_supported_and_an_error(other):
    config = GPTConfig(**dict(block_size=9, vocab_size=17, n_layer=1, n_head=2, n_embd=14, bias=False) | other)
    assert not supports(config, 'cpu', 'float32', 882)
    with pytest.raises(ValueError, match='cannot compute'):
        fused(GPT(config))


def test_an_output_layer_of_its_own_is_an_error():
    model, *_ = make()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with pytest.raises(ValueError, match='has 1820 parameters and not 1582'):
        fused(model)


def test_only_small_models_on_a_cpu_in_float32_are_supported():
    config = dict(block_size=9, vocab_size=17, n_layer=2, n_head=2, n_embd=14, bias=False)
    assert supports(GPTConfig(**config), 'cpu', 'float32', 1)
    assert not supports(GPTConfig(**config), 'cuda', 'float32', 882)
    assert not supports(GPTConfig(**config), 'cpu', 'bfloat16', 882)
    assert not supports(GPTConfig(**config | dict(n_embd=56)), 'cpu', 'float32', 16), 'the table outweighs the windows'


@pytest.fixture
def compiled():
    return build()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.mark.parametrize('compiler', ['no-such-compiler', 'false'])
def test_a_compiler_that_does_not_work_is_one_sentence(cache, monkeypatch, compiler):
    monkeypatch.setenv('CXX', compiler)
    with pytest.raises(RuntimeError) as error:
        build()
    assert '\n' not in str(error.value) and compiler in str(error.value)


def test_a_compiler_that_cannot_be_named_is_one_sentence(cache, monkeypatch):
    monkeypatch.setenv('CXX', '"')
    with pytest.raises(RuntimeError, match='^CXX=" cannot be read'):
        build()


def script(path, *lines):
    """A compiler that is a shell script."""
    path.write_text('\n'.join(['#!/bin/sh', *lines, '']), encoding='utf-8')
    path.chmod(0o755)
    return str(path)


def test_a_library_that_cannot_be_loaded_is_one_sentence_and_leaves_nothing(cache, tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', script(tmp_path / 'compiler', 'for out; do :; done', 'echo nonsense > "$out"'))
    with pytest.raises(RuntimeError, match=r'compiler compiled fused_step.cpp, but the library cannot be loaded: .+'):
        build()
    assert not list((cache / 'fused_step').iterdir())


def test_a_compiler_without_openmp_is_told_of_and_gives_one_thread(cache, tmp_path, monkeypatch, capsys):
    compiler = next(filter(shutil.which, ('g++', 'clang++', 'c++')))
    monkeypatch.setenv('CXX', script(tmp_path / 'compiler', 'case "$*" in *-fopenmp*) exit 1;; esac',
                                     f'exec {compiler} "$@" -O0'))
    model, ids, starts = make()
    optimizer = model.configure_optimizers(0.0, 1e-2, (0.9, 0.99), 'cpu')
    step = load_fused_step('auto', model, optimizer, 'cpu', 'float32', batch_size=100, n_threads=2)
    assert 'no OpenMP' in capsys.readouterr().out
    assert step.gradients(ids, starts) == pytest.approx(exact_gradients(model, ids, starts)[0], rel=100 * EPS)


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='files have no owners')
def test_a_library_of_somebody_else_is_not_loaded(compiled, cache, tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', script(tmp_path / 'compiler', 'for out; do :; done', f'cp {compiled} "$out"'))
    theirs = Path(build())
    monkeypatch.setattr(compile_cpp, 'is_ours', lambda path: path != theirs)
    before = theirs.stat().st_ino
    assert Path(build()).stat().st_ino != before


def test_memory_that_cannot_be_had_is_no_exception_in_the_c_code():
    new = fused(make()[0]).library.step_new
    assert new((ctypes.c_int * 6)(1, 1, 14, 14, 9, -100), 1) is None  # as many bytes as no vector can have


def test_no_compiler_is_one_sentence(cache, monkeypatch):
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('PATH', str(cache))
    with pytest.raises(RuntimeError, match='no C.. compiler'):
        build()


def test_a_cache_folder_that_cannot_be_written_gives_way_to_a_temporary_one(cache, monkeypatch):
    cache.write_text('a file where the folder should be')
    monkeypatch.setattr(compile_cpp, 'FLAGS', [*compile_cpp.FLAGS, '-O0'])  # because that takes a second
    model, ids, starts = make()
    fused(model).gradients(ids, starts)
    assert cache not in Path(build()).parents and cache.is_file()


def test_without_any_folder_to_compile_into_training_is_told_so_and_goes_on(cache, monkeypatch, capsys):
    cache.write_text('a file where the folder should be')
    monkeypatch.setattr(tempfile, 'tempdir', str(cache / 'nowhere'))
    model, *_ = make()
    optimizer = model.configure_optimizers(0.0, 1e-2, (0.9, 0.99), 'cpu')
    assert load_fused_step('auto', model, optimizer, 'cpu', 'float32', batch_size=100, n_threads=1) is None
    said = capsys.readouterr().out
    assert re.fullmatch('the step cannot be compiled .*XDG_CACHE_HOME.*; training with torch.*\n', said)


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='folders have no modes')
def test_nobody_else_can_write_in_the_cache_folder(cache):
    for path in (cache, cache / 'fused_step'):
        path.mkdir()
        path.chmod(0o777)
    assert compile_cpp.cache_folder() == cache / 'fused_step'
    assert (cache / 'fused_step').stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='folders have no owners')
def test_a_cache_folder_of_somebody_else_gives_way_to_a_temporary_one(cache, monkeypatch):
    (cache / 'fused_step').mkdir(parents=True)
    monkeypatch.setattr(os, 'getuid', lambda: (cache / 'fused_step').stat().st_uid + 1)
    assert cache not in compile_cpp.cache_folder().parents


@pytest.mark.slow
@pytest.mark.parametrize('registers', ['AVX2', 'DEFAULT'])
def test_gradients_are_right_on_cpus_with_narrower_registers(cache, monkeypatch, registers):
    if registers == 'AVX2' and torch.backends.cpu.get_cpu_capability() not in ('AVX2', 'AVX512'):
        pytest.skip('this processor has no registers as wide')
    monkeypatch.setattr('torch.backends.cpu.get_cpu_capability', lambda: registers)
    monkeypatch.setattr(compile_cpp, 'FLAGS', [*compile_cpp.FLAGS, '-O1'])  # because that takes less time
    for shape in SHAPES:
        assert_exact_but_for_rounding(*make(*shape), n_threads=2)


@pytest.mark.slow
def test_processes_that_build_at_once_do_not_disturb_each_other(cache):
    code = ("import ctypes; from fused import compile_cpp, fused_step; compile_cpp.FLAGS.append('-O0'); "
            "ctypes.CDLL(fused_step.build()).step_new; print(fused_step.build())")
    runs = [subprocess.Popen([sys.executable, '-c', code], cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in '12']
    paths = {run.communicate()[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert [str(path) for path in (cache / 'fused_step').iterdir()] == list(paths), 'and nothing else is left'


@pytest.mark.slow
def test_a_damaged_library_is_compiled_anew_and_not_loaded(cache, monkeypatch):
    monkeypatch.setattr(compile_cpp, 'FLAGS', [*compile_cpp.FLAGS, '-O0'])
    path = Path(build())
    key, whole = path.stem.split('_')[0], path.read_bytes()
    no_library = path.with_name(f"{key}_{compile_cpp.digest(b'other')}.so")
    for damaged, content in ((path, whole[:5000]), (path, b''), (path, whole[:-1] + b'!'), (no_library, b'other')):
        path.unlink()  # this process has loaded it, and would die of a change in place
        damaged.write_bytes(content)
        again = Path(build())
        assert again != no_library and again.stem == f'{key}_{compile_cpp.digest(again.read_bytes())}'
        assert len(again.read_bytes()) == len(whole)
