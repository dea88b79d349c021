"""
How fast, and compared with what: our training step and evaluation against the plain ones of nanoGPT.

$ python bench.py
$ python bench.py --sizes 14 --threads 1 2 --json bench.json

Plain training: a batch is stacked from per-sample memory-mapped slices, the model runs eagerly, AdamW is not fused.
Plain evaluation: one question and one sample at a time through GPT.generate. Ours is train_with_eval.py itself, run in
this process as a user would, timed by its own train_s column. The two are measured in turns, so that a busy machine slows
both; the ratio is that of their medians, and its range that of their quartiles.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from atomic_io import atomic_open
from eval_utils import DATA, MAX_NEW_TOKENS, STOP, evaluate, load_dataset
from model import GPT, GPTConfig

HERE = Path(__file__).resolve().parent


def plain_batch(path, block_size, batch_size):
    """nanoGPT's get_batch: the file is mapped anew each time, and each sample is a slice of its own."""
    data = np.memmap(path, dtype=np.uint16, mode='r')
    ix = torch.randint(len(data) - block_size, (batch_size,))
    x = torch.stack([torch.from_numpy(data[i:i + block_size].astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy(data[i + 1:i + 1 + block_size].astype(np.int64)) for i in ix])
    return x, y


def plain_answer(model, tokenizer, case, temperature=0.01, top_k=10):
    """One sample of one question by GPT.generate: the oracle of the tests, too."""
    idx = torch.tensor([tokenizer.encode(case[1])])
    out = model.generate(idx, MAX_NEW_TOKENS[case[0]], temperature, top_k)
    return tokenizer.decode(out[0, idx.size(1):].tolist()).split(STOP[case[0]])[0]


def plain_training(config, iters, repeats):
    """Milliseconds per iteration of the plain training loop: a list of `repeats` means over `iters` iterations."""
    tokenizer = load_dataset(config['dataset'])[0]
    fields = {k: v for k, v in config.items() if k in GPTConfig.__dataclass_fields__}
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **fields))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=False)
    times = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for _ in range(iters):
            x, y = plain_batch(DATA / config['dataset'] / 'train.bin', config['block_size'], config['batch_size'])
            _, loss = model(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        times.append((time.perf_counter() - start) / iters * 1e3)
    return times[1:]  # the first has the allocations in it


def our_training(path, iters, repeats, threads):
    """The same of train_with_eval.py, run in this process on a config file, and its settings: (times, config)."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [path, f'--out_dir={folder}/run', '--full_eval=False', f'--eval_interval={iters}',
                f'--max_iters={iters * (repeats + 1)}', f'--num_threads={threads}', '--eval_iters=1', '--device=cpu']
        sys.argv = ['train_with_eval.py', *map(str, argv)]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(str(HERE / 'train_with_eval.py'), run_name='__main__')
        except SystemExit as e:
            if e.code:
                raise
        seconds = pd.read_csv(f'{folder}/run/results.csv').train_s
        config = torch.load(f'{folder}/run/ckpt_last.pt', weights_only=True)['config']
    times = (seconds.diff()[1:] / iters * 1e3).tolist()
    return times[1:], config  # the first has the compilation in it


def compare(name, unit, plain, ours):
    """One row of the table: medians, and the ratio with the range of its quartiles."""
    quartiles = lambda values: np.percentile(values, [25, 50, 75])
    p, o = quartiles(plain), quartiles(ours)
    return {'what': name, 'unit': unit, 'plain': p[1], 'ours': o[1], 'ratio': p[1] / o[1],
            'ratio_low': p[0] / o[2], 'ratio_high': p[2] / o[0], 'plain_all': list(plain), 'ours_all': list(ours)}


def bench_training(size, kind, threads):
    path = HERE / f'config/train_{kind}_mini_{size}.py'
    iters, repeats = (2, 2) if size == 'mlt' else (100, 8)
    ours, config = our_training(path, iters, repeats, threads)
    plain = plain_training(config, max(1, iters // 4), repeats)  # with our run's threads
    again, _ = our_training(path, iters, repeats, threads)
    name = f'training step, {kind}_mini_{size}' + (f', {threads} threads' if threads else '')
    return compare(name, 'ms', plain, ours + again)


def bench_evaluation(kind, dataset):
    tokenizer = load_dataset(dataset)[0]
    torch.manual_seed(1337)
    block_size = 9 if kind == 'math' else 24
    model = GPT(GPTConfig(block_size=block_size, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_embd=14,
                          bias=False, mlp_expansion=1)).eval()
    ours, plain = [], []
    for _ in range(3):
        start = time.perf_counter()
        for case in tokenizer.cases:
            for _ in range(10):
                plain_answer(model, tokenizer, case)
        plain.append(time.perf_counter() - start)
        for _ in range(5):  # and this includes the exact probabilities, which the plain one has not
            start = time.perf_counter()
            evaluate(model, tokenizer)
            ours.append(time.perf_counter() - start)
    return compare(f'evaluation, {kind}_mini_14, untrained', 's', plain, ours)


def bench_start(compile):
    """Seconds from calling train_with_eval.py to the end of its first iteration, here with the cache of compilations warm."""
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, HERE / 'train_with_eval.py', f'--out_dir={folder}/run', '--max_iters=1',
                       '--full_eval=False', f'--compile={compile}', '--device=cpu']
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return times


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', nargs='*', default=['14', '28', '56', 'mlt'], help='of math_mini (default: %(default)s)')
    parser.add_argument('--threads', nargs='*', type=int, default=[0], help='numbers of threads (default: the automatic one)')
    parser.add_argument('--json', metavar='FILE', help='also write the table, with every measurement, to FILE')
    args = parser.parse_args()

    cpu = next((line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')),
               platform.processor()) if os.path.exists('/proc/cpuinfo') else platform.processor()
    machine = f'{cpu}, {os.cpu_count()} cores; torch {torch.__version__}, Python {platform.python_version()}'
    print(f'{machine}\n\n{"":<44}{"plain":>10}{"ours":>10}{"ratio":>8}')
    jobs = [lambda size=size, n=n: bench_training(size, 'math', n) for size in args.sizes for n in args.threads]
    jobs += [lambda: bench_evaluation('math', 'as_math'), lambda: bench_evaluation('both', 'both_math_and_facts'),
             lambda: compare('start to first iteration: eager, compiled', 's', bench_start(False), bench_start(True))]
    table = []
    for job in jobs:
        row = job()
        table.append(row)
        plain, ours = (f'{value:.0f}' if value >= 100 else f'{value:.3g}' for value in (row['plain'], row['ours']))
        print(f"{row['what']:<44}{plain:>7} {row['unit']:<2}{ours:>7} {row['unit']:<2}{row['ratio']:>7.2f}x"
              f"  ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})", flush=True)
    if args.json:
        with atomic_open(args.json) as f:
            json.dump({'machine': machine, 'rows': table}, f, indent=1)
