"""
How fast, and compared with what: our training step and evaluation against the plain ones of nanoGPT, on a CPU.

$ python dev/bench.py
$ python dev/bench.py --sizes 14 --threads 1 2 --json bench.json

A plain step stacks its batch from memory-mapped slices, one for each sample, runs the model eagerly, and its AdamW is
not fused. A plain evaluation asks one question and one sample at a time through GPT.generate. Ours are
train_with_eval.py's own functions. All are measured in turns in one process, so that a busy machine slows each of them.
Ratios are ratios of medians, and their ranges come from the quartiles. The datasets must have been prepared.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
import train_with_eval as train
from common.checkpoint import build_model
from common.dataset import DATA, load_dataset
from common.device import compile_model, compute_init
from common.evaluate import NEW_TOKENS, grade, results_row
from common.questions import is_correct
from common.run_folder import write_file
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


def our_step(model, config, ids):
    """The step of train_with_eval.py: a function of the iteration."""
    params = list(model.parameters())
    optimizer = model.configure_optimizers(config['weight_decay'], 1e-3, (0.9, 0.99), 'cpu')
    compiled = compile_model(model, train.get_batch(ids, 0), nullcontext())

    def step(iter_num):
        train.forward_backward(compiled, train.get_batch(ids, iter_num), 1, nullcontext())
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


STEPS = [('plain', plain_step), ('ours', our_step)]  # the first is what the others are compared with


def bench_step(config_file, threads):
    """Milliseconds per iteration of every step: dict of name to list."""
    config = configure(vars(train), [str(config_file)], **train.RANGES)  # get_batch reads train's variables
    meta, ids, _ = load_dataset(config['dataset'], config['block_size'])
    compute_init('cpu', config['n_embd'], threads, 'auto')
    torch.compiler.reset()  # otherwise torch takes the next size for a dynamic shape, which is slower
    shape = 'n_layer n_head n_embd block_size bias dropout mlp_expansion'.split()
    args = {key: config[key] for key in shape}
    steps = {name: make(build_model(vocab_size=meta.tokenizer.vocab_size, **args), config, ids) for name, make in STEPS}
    iters, repeats = (1, 3) if config['n_embd'] > 100 else (50, 15)
    times = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            torch.use_deterministic_algorithms(name != 'plain', warn_only=True)  # as it is there
            start = time.perf_counter()
            for i in range(iters):
                step(repeat * iters + i)
            times[name].append((time.perf_counter() - start) / iters * 1e3)
    return {name: values[1:] for name, values in times.items()}  # the first has the allocations in it


def bench_evaluation(dataset, block_size):
    """Seconds for all questions of a dataset, ten samples each, put to an untrained model of width 14."""
    meta, *_ = load_dataset(dataset, block_size)
    compute_init('cpu', 14, 0, 'auto')
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


def bench_start(compile):
    """Seconds from the command to the end of a first iteration, with the cache of compilations warm."""
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, REPO / 'train_with_eval.py', f'--out_dir={folder}/run', '--max_iters=1',
                       '--full_eval=False', f'--compile={compile}', '--device=cpu']
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return times


def report(what, unit, times):
    """Print a line, medians and their ratios to the first; returns what --json writes, every measurement included."""
    quartiles = {name: np.percentile(values, [25, 50, 75]) for name, values in times.items()}
    base = quartiles[next(iter(times))]
    rows = {name: {'median': q[1], 'ratio': base[1] / q[1], 'ratio_low': base[0] / q[2], 'ratio_high': base[2] / q[0],
                   'all': times[name]} for name, q in quartiles.items()}
    cells = [f"{name} {row['median']:.3g} {unit}" + (f" ({row['ratio']:.1f}x, {row['ratio_low']:.1f} to "
             f"{row['ratio_high']:.1f})" if i else '') for i, (name, row) in enumerate(rows.items())]
    print(f"{what:<30}{', '.join(cells)}", flush=True)
    return {'what': what, 'unit': unit, **rows}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='*', default=['14', '28', '56', 'mlt'], help='sizes of math_mini (default: all)')
    parser.add_argument('--threads', nargs='*', type=int, default=[0], help="thread counts (default: training's own)")
    parser.add_argument('--json', metavar='FILE', help='also write the table, with every measurement, to FILE')
    args = parser.parse_args()
    cpu = platform.processor()
    if os.path.exists('/proc/cpuinfo'):
        cpu = next((line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), cpu)
    machine = f'{cpu}, {os.cpu_count()} cores; torch {torch.__version__}, Python {platform.python_version()}'
    print(machine)
    table = [report(f'step, math_mini_{size}' + f', {n} threads' * (n > 0), 'ms',
                    bench_step(REPO / f'config/train_math_mini_{size}.py', n))
             for size in args.sizes for n in args.threads]
    table.append(report('evaluation, as_math', 's', bench_evaluation('as_math', 9)))
    table.append(report('evaluation, both', 's', bench_evaluation('both_math_and_facts', 24)))
    table.append(report('start to first iteration', 's', {'eager': bench_start(False), 'compiled': bench_start(True)}))
    if args.json:
        write_file(args.json, json.dumps({'machine': machine, 'rows': table}, indent=1))
