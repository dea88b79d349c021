"""
How fast, and compared with what: nanoGPT's plain step, the compiled one and the one in C++, on a CPU; evaluation; start-up.

$ python dev/bench.py
$ python dev/bench.py --configs math_mini_14 --threads 1 2 --busy --full --json results/bench.json

A plain step stacks its batch from memory-mapped slices, one for each sample, runs the model eagerly, and its AdamW is
not fused. A plain evaluation asks one question and one sample at a time through GPT.generate. All others are
train_with_eval.py's own functions. All are measured in turns in one process, so that a busy machine slows each of them.
Ratios are ratios of medians, and their ranges come from the quartiles. floor is the time that the operations of the step
would take at the speed of a large matrix product. --busy measures beside another process that uses a core, too, and
--full trains math_mini_14 from start to end. The datasets must have been prepared.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
from common.errors import report_errors, wrapped

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import numpy as np
import torch

import train_with_eval as train
from common.checkpoint import build_model
from common.dataset import DATA, load_dataset
from common.device import compile_model, compute_init
from common.evaluate import NEW_TOKENS, grade, results_row
from fused.fused_step import FusedStep, supports
from common.questions import is_correct
from common.files import write_file
from configurator import configure


def plain_step(model, config, ids):
    """nanoGPT's step: a function of the iteration."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=False)
    block_size, path = config['block_size'], DATA / config['dataset'] / 'train.bin'

    def step(iter_num):
        data = np.memmap(path, dtype=np.uint16, mode='r')
        ix = torch.randint(len(data) - block_size, (config['batch_size'],))
        x = torch.stack([torch.from_numpy(data[i:i + block_size].astype(np.int64)) for i in ix])
        y = torch.stack([torch.from_numpy(data[i + 1:i + 1 + block_size].astype(np.int64)) for i in ix])
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def compiled_step(model, config, ids):
    """nanoGPT's step as train_with_eval.py has it if it is not fused."""
    params = list(model.parameters())
    optimizer = model.configure_optimizers(config['weight_decay'], 1e-3, (0.9, 0.99), 'cpu')
    compiled = compile_model(model, train.get_batch(ids, train.draw_starts(len(ids), 0)), nullcontext())

    def step(iter_num):
        batch = train.get_batch(ids, train.draw_starts(len(ids), iter_num))
        train.forward_backward(compiled, batch, 1, nullcontext())
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def fused_step(model, config, ids):
    """The step in C++."""
    optimizer = model.configure_optimizers(config['weight_decay'], 1e-3, (0.9, 0.99), 'cpu')
    fused = FusedStep(model, optimizer, torch.get_num_threads())

    def step(iter_num):
        fused.gradients(ids, train.draw_starts(len(ids), iter_num))
        fused.update(1e-3, 1.0)
    return step


STEPS = {'plain': plain_step, 'compiled': compiled_step, 'fused': fused_step}


def floor(model, config):
    """Milliseconds that the products of a step take at the speed of a large one, on one core."""
    torch.set_num_threads(1)
    a, times = torch.randn(1024, 1024), []
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    flops = 2 * 1024**3 / min(times)
    c, t = model.config, config['block_size']
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and 'wpe' not in name)
    per_token = 6 * weights + 6 * c.n_layer * c.n_embd * (t + 1)  # causal attention: half of 12 * n_embd * T
    return config['batch_size'] * t * per_token / flops * 1e3


def bench_step(name, threads):
    """Milliseconds per iteration of every step: dict of name to list, and the floor."""
    path = str(REPO / f'config/train_{name}.py')
    config, _ = configure(vars(train), train.RANGES, [path])  # get_batch reads train's variables
    meta, ids, _ = load_dataset(config['dataset'])
    compute_init('cpu', config['n_embd'], threads, 'auto')
    torch.compiler.reset()  # otherwise torch takes the next size for a dynamic shape, which is slower
    args = {key: config[key] for key in 'n_layer n_head n_embd block_size bias dropout mlp_expansion'.split()}

    def build():
        return build_model(vocab_size=meta.tokenizer.vocab_size, **args)
    known = [key for key in STEPS if key != 'fused' or supports(build().config, 'cpu', 'float32', config['batch_size'])]
    steps = {key: STEPS[key](build(), config, ids) for key in known}
    iters, repeats = (1, 3) if config['n_embd'] > 100 else (20, 15)
    times = {key: [] for key in steps}
    for repeat in range(repeats + 1):
        for key, step in steps.items():
            torch.use_deterministic_algorithms(key != 'plain', warn_only=True)  # as it is there
            start = time.perf_counter()
            for i in range(iters):
                step(repeat * iters + i)
            times[key].append((time.perf_counter() - start) / iters * 1e3)
    return {key: values[1:] for key, values in times.items()} | {'floor': [floor(build(), config)]}


@contextmanager
def busy():
    """Another process uses a core."""
    process = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        yield
    finally:
        process.kill()


def bench_evaluation(dataset, block_size):
    """Seconds for all questions of a dataset, ten samples each, put to an untrained model of width 14."""
    meta, *_ = load_dataset(dataset, block_size)
    compute_init('cpu', 14, 1, 'auto')
    torch.manual_seed(1337)
    model = build_model(n_layer=1, n_head=1, n_embd=14, block_size=block_size, bias=False, mlp_expansion=1, dropout=0.0,
                        vocab_size=meta.tokenizer.vocab_size).eval()

    def plain():
        correct = 0
        for question in meta.questions:
            for _ in range(10):
                idx = torch.tensor([meta.tokenizer.encode(question.prompt)])
                out = model.generate(idx, NEW_TOKENS[question.kind], temperature=0.01, top_k=10)
                completion = meta.tokenizer.decode(out[0, idx.size(1):].tolist()).split(question.terminator[-1])[0]
                correct += is_correct(question, completion)

    def ours():  # this includes the exact probabilities, which the plain one lacks
        results_row(0, grade(model, meta), meta.questions, 0.0, 0.0)
    times = {'plain': [], 'ours': []}
    for name, function in [('plain', plain), *[('ours', ours)] * 5] * 3:
        start = time.perf_counter()
        function()
        times[name].append(time.perf_counter() - start)
    return times


def seconds_of(*options):
    """Seconds from the command to the end of a training, with the caches of compilations warm."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, REPO / 'train_with_eval.py', f'--out_dir={folder}/run', '--device=cpu', *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def bench_start():
    """Seconds from the command to the end of a first iteration."""
    ways = {'eager': ['--fused=False', '--compile=False'], 'compiled': ['--fused=False'], 'fused': []}
    return {key: [seconds_of('--max_iters=1', '--full_eval=False', *way) for _ in range(3)] for key, way in ways.items()}


def report(what, unit, times):
    """Print a line, medians and their ratios to the first; returns what --json writes, every measurement included."""
    quartiles = {name: np.percentile(values, [25, 50, 75]) for name, values in times.items()}
    first = next(iter(times))
    base = quartiles[first]
    rows = {name: {'median': q[1], 'ratio': base[1] / q[1], 'ratio_low': base[0] / q[2], 'ratio_high': base[2] / q[0],
                   'all': times[name]} for name, q in quartiles.items()}
    cells = [f"{name} {row['median']:.3g} {unit}" + (f" ({row['ratio']:.1f}x, {row['ratio_low']:.1f} to "
             f"{row['ratio_high']:.1f})" if name not in (first, 'floor') else '') for name, row in rows.items()]
    print(f"{what:<32}{', '.join(cells)}", flush=True)
    return {'what': what, 'unit': unit, **rows}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=wrapped(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [f'{kind}_mini_{size}' for kind in ('math', 'both') for size in (14, 28, 56)] + ['math_mini_mlt']
    parser.add_argument('--configs', nargs='*', default=names, metavar='NAME', help='the steps of which configs')
    parser.add_argument('--threads', nargs='*', type=int, default=[1, 2], help='thread counts (default: 1 2)')
    parser.add_argument('--busy', action='store_true', help='also measure beside another process that uses a core')
    parser.add_argument('--full', action='store_true', help='also train math_mini_14 from start to end')
    parser.add_argument('--json', metavar='FILE', help='also write the table, with every measurement, to FILE')
    args = parser.parse_args()
    cpu = platform.processor()
    if os.path.exists('/proc/cpuinfo'):
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
        cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), cpu)
    machine = f'{cpu}, {os.cpu_count()} cores; torch {torch.__version__}, Python {platform.python_version()}'
    print(machine)
    table = []
    for name, n in [(name, n) for name in args.configs for n in args.threads]:
        table.append(report(f'{name}, {n} thread' + 's' * (n > 1), 'ms', bench_step(name, n)))
        if args.busy and name != 'math_mini_mlt':
            with busy():
                table.append(report('  beside a busy process', 'ms', bench_step(name, n)))
    table.append(report('evaluation, as_math', 's', bench_evaluation('as_math', 9)))
    table.append(report('evaluation, both', 's', bench_evaluation('both_math_and_facts', 24)))
    table.append(report('start to first iteration', 's', bench_start()))
    if args.full:
        path = str(REPO / 'config/train_math_mini_14.py')
        times = {f'{n} thread' + 's' * (n > 1): [seconds_of(path, f'--num_threads={n}')] for n in args.threads}
        table.append(report('math_mini_14 from start to end', 's', times))
    if args.json:
        write_file(args.json, json.dumps({'machine': machine, 'rows': table}, indent=1))
