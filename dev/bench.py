"""
How fast, and compared with what: nanoGPT's plain step, the compiled one and the one in C++, on a CPU; evaluation; runs.

$ python dev/bench.py --json results/bench.json
$ python dev/bench.py --configs math_mini_14 --threads 2 --busy
$ python dev/bench.py --configs --full

A plain step stacks its batch from memory-mapped slices, one for each sample, runs the model eagerly, and its AdamW is
not fused. A plain evaluation asks one question and one sample at a time through GPT.generate, and estimates the losses
from 200 such batches of either split. All others are train_with_eval.py's own. The steps are processes that take
turns, so that a busy machine slows each of them. Each is measured with new weights and with those of a trained model,
because what a model has learnt changes how fast a processor computes it: those of results/, or else those after 3,000
iterations. Ratios are ratios of medians, and their ranges come from the quartiles. floor is the time that the
operations of the step would take at the speed of a large matrix product. --busy measures beside another process that
uses a core, too, and --full trains math 14, facts 14 and both 56 from start to end. The datasets must be prepared.
"""

import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))
from common.arguments import argument_parser
from common.errors import report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # as training has it
import numpy as np
import pandas as pd
import torch

import train_with_eval as train
from common.checkpoint import build_model, load_checkpoint
from common.dataset import DATA, load_dataset
from common.device import compile_model, compute_init
from common.evaluate import NEW_TOKENS, estimate_losses, grade
from common.files import write_file
from common.questions import is_right
from common.results import results_row
from configurator import configure
from fused.fused_step import FusedStep, supports

DEFAULTS = dict(vars(train))
SHAPE = 'n_layer n_head n_embd block_size bias dropout mlp_expansion'.split()


def plain_batch(config):
    """nanoGPT's get_batch."""
    data = np.memmap(DATA / config['dataset'] / 'train.bin', dtype=np.uint16, mode='r')
    size = config['block_size']
    ix = torch.randint(len(data) - size, (config['batch_size'],))
    return [torch.stack([torch.from_numpy(data[i + k:i + k + size].astype(np.int64)) for i in ix]) for k in (0, 1)]


def plain_step(model, config, ids):
    """nanoGPT's step: a function of the iteration."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=False)
    torch.use_deterministic_algorithms(False)

    def step(iter_num):
        _, loss = model(*plain_batch(config))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step


def compiled_step(model, config, ids):
    """nanoGPT's step as train_with_eval.py has it if it is not fused."""
    params = list(model.parameters())
    optimizer = model.configure_optimizers(config['weight_decay'], 1e-4, (0.9, 0.99), 'cpu')
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
    optimizer = model.configure_optimizers(config['weight_decay'], 1e-4, (0.9, 0.99), 'cpu')
    fused = FusedStep(model, optimizer, torch.get_num_threads())

    def step(iter_num):
        fused.gradients(ids, train.draw_starts(len(ids), iter_num))
        fused.update(1e-4, 1.0)
    return step


STEPS = {'plain': plain_step, 'compiled': compiled_step, 'fused': fused_step}


def settings(name):
    """The settings of a config, its dataset's vocabulary and questions, its text as ids, and a new model."""
    vars(train).update(DEFAULTS)  # a config has only what is different in it, and another one may have been set before
    config, _ = configure(vars(train), train.RANGES, [str(REPO / f'config/train_{name}.py')])  # for train's functions
    meta, ids, _ = load_dataset(config['dataset'])
    torch.manual_seed(1337)
    return config, meta, ids, build_model(vocab_size=meta.tokenizer.vocab_size, **{key: config[key] for key in SHAPE})


def serve(pipe, kind, name, threads):
    """A process that takes one kind of step: it gets weights and a number of iterations, and sends milliseconds.

    It ends when it gets None: one that is killed leaves semaphores behind, of which Python then warns.
    """
    torch.set_flush_denormal(kind != 'plain')  # before there are threads to inherit it
    config, _, ids, model = settings(name)
    compute_init('cpu', config['n_embd'], threads, 'auto')
    step, iter_num = STEPS[kind](model, config, ids), 0
    for weights, iters in iter(pipe.recv, None):
        model.load_state_dict(weights)
        start = time.perf_counter()
        for _ in range(iters):
            step(iter_num)
            iter_num += 1
        pipe.send((time.perf_counter() - start) / iters * 1e3)


@cache
def trained_weights(name):
    """Those of results/, or those after 3,000 iterations."""
    path = REPO / 'results' / name / 'ckpt.pt'
    if path.exists():
        return load_checkpoint(path)['model']
    with tempfile.TemporaryDirectory() as folder:
        train_run(name, folder, '--max_iters=3000', '--lr_decay_iters=3000', '--full_eval=False')
        return load_checkpoint(f'{folder}/run/ckpt_last.pt')['model']


def bench_steps(name, threads):
    """Milliseconds per iteration: dict of 'new weights' and 'trained' to dicts of a step's name to a list."""
    config, _, _, model = settings(name)
    weights, wide = {'new weights': model.state_dict()}, config['n_embd'] > 100
    if not wide:
        weights['trained'] = trained_weights(name)
    iters, repeats = (1, 3) if wide else (10, 9)
    fusible = supports(model.config, 'cpu', 'float32', config['batch_size'])
    kinds = [kind for kind in STEPS if kind != 'fused' or fusible]
    context, pipes, processes = multiprocessing.get_context('spawn'), {}, []
    for kind in kinds:
        pipes[kind], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, kind, name, threads), daemon=True))
        processes[-1].start()
    times = {of: {kind: [] for kind in kinds} for of in weights}
    for _ in range(repeats + 1):
        for of, state in weights.items():
            for kind, pipe in pipes.items():
                pipe.send((state, iters))
                times[of][kind].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return {of: {kind: values[1:] for kind, values in table.items()} | {'floor': [floor(model, config)]}
            for of, table in times.items()}


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


@contextmanager
def busy():
    """Another process uses a core."""
    process = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        yield
    finally:
        process.kill()


def bench_evaluation(name):
    """Seconds for all questions, ten samples each, and for the losses: dict of what is measured to plain and ours."""
    config, meta, ids, model = settings(name)
    compute_init('cpu', config['n_embd'], 1, 'auto')
    model.eval()

    def plain_questions():
        correct = 0
        for question in meta.questions:
            for _ in range(10):
                idx = torch.tensor([meta.tokenizer.encode(question.prompt)])
                out = model.generate(idx, NEW_TOKENS[question.kind], temperature=0.01, top_k=10)
                completion = meta.tokenizer.decode(out[0, idx.size(1):].tolist()).split(question.terminator[-1])[0]
                correct += is_right(question.answer, question.terminator, completion)

    @torch.no_grad()
    def plain_losses():  # a twentieth of it
        for _ in range(20):
            model(*plain_batch(config))[1].item()

    def questions():  # this includes the exact probabilities, which the plain one lacks
        results_row(0, grade(model, meta.tokenizer, meta.questions), meta.questions, 0.0, 0.0)

    def losses():
        estimate_losses(model, ids, ids, config['batch_size'], 200, 0, nullcontext())
    table = {}
    for of, weights in {'new weights': model.state_dict(), 'trained': trained_weights(name)}.items():
        model.load_state_dict(weights)
        for what, plain, ours, parts in (('questions', plain_questions, questions, 1),
                                         ('losses', plain_losses, losses, 20)):
            times = table[f'{what}, {of}'] = {'plain': [], 'ours': []}
            for kind, function in [('plain', plain), *[('ours', ours)] * 5] * 3:
                torch.set_flush_denormal(kind != 'plain')
                start = time.perf_counter()
                function()
                times[kind].append((time.perf_counter() - start) * (parts if kind == 'plain' else 1))
    return table


def train_run(name, folder, *options):
    """Train with a config in folder/run: seconds from the command to the end, and the table that the run leaves."""
    command = [sys.executable, REPO / 'train_with_eval.py', REPO / f'config/train_{name}.py', f'--out_dir={folder}/run',
               '--device=cpu', *options]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    return seconds, pd.read_csv(f'{folder}/run/results.csv')


def bench_run(name, *options):
    """Seconds of a training, from the command to its end, with the caches of compilations warm: all, and its parts."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, results = train_run(name, folder, *options)
    return {'whole': [seconds], 'training': [results.train_s.iloc[-1]], 'evaluation': [results.eval_s.iloc[-1]]}


def bench_start():
    """Seconds from the command to the end of a first iteration."""
    ways = {'eager': ['--fused=False', '--compile=False'], 'compiled': ['--fused=False'], 'fused': []}
    return {key: [bench_run('math_mini_14', '--max_iters=1', '--full_eval=False', *way)['whole'][0] for _ in range(3)]
            for key, way in ways.items()}


def report(what, unit, times, ratios=True):
    """Print a line, medians and their ratios to the first; returns what --json writes, every measurement included."""
    quartiles = {name: np.percentile(values, [25, 50, 75]) for name, values in times.items()}
    first = next(iter(times))
    base = quartiles[first]
    cells = [f"{name} {q[1]:.3g} {unit}" + (f" ({base[1] / q[1]:.1f}x, {base[0] / q[2]:.1f} to {base[2] / q[0]:.1f})"
             if ratios and name not in (first, 'floor') else '') for name, q in quartiles.items()]
    print(f"{what:<40}{', '.join(cells)}", flush=True)
    return {'what': what, 'unit': unit, **{name: [float(f'{x:.4g}') for x in values] for name, values in times.items()}}


def machine():
    """The processor and what it has, as far as it tells, and the versions."""
    info = Path('/proc/cpuinfo').read_text(encoding='utf-8') if os.path.exists('/proc/cpuinfo') else ''
    cpu = re.search(r'model name\s*: (.*)', info)
    has = [torch.backends.cpu.get_cpu_capability(), *['AMX'] * ('amx_tile' in info)]
    return (f"{cpu[1] if cpu else platform.processor()}, {' and '.join(has)}, {os.cpu_count()} cores; torch "
            f"{torch.__version__}, Python {platform.python_version()}")


def write_table(path, rows):
    """Write rows into a file of tables, a table for each machine; those of the same name from before give way."""
    tables = json.loads(Path(path).read_text(encoding='utf-8')) if os.path.exists(path) else []
    ours = next((table for table in tables if table['machine'] == machine()), {'machine': machine(), 'rows': []})
    new = {row['what'] for row in rows}
    ours['rows'] = [row for row in ours['rows'] if row['what'] not in new] + rows
    tables = [table for table in tables if table['machine'] != machine()] + [ours]
    write_file(path, json.dumps(tables, indent=1) + '\n')


if __name__ == '__main__':
    parser = argument_parser(__doc__)
    names = [f'{kind}_mini_{size}' for kind in ('math', 'facts', 'both') for size in (14, 28, 56)] + ['math_mini_mlt']
    parser.add_argument('--configs', nargs='*', default=names, metavar='NAME', help='the steps of which configs')
    parser.add_argument('--threads', nargs='*', type=int, default=[1, 2], help='thread counts (default: 1 2)')
    parser.add_argument('--busy', action='store_true', help='also measure beside another process that uses a core')
    parser.add_argument('--full', action='store_true', help='measure whole runs instead of evaluation and start')
    parser.add_argument('--json', metavar='FILE', help='also write the table, with every measurement, to FILE')
    args = parser.parse_args()
    print(machine())
    rows = []
    for name, n in [(name, n) for name in args.configs for n in args.threads]:
        for beside in [''] + [', beside a busy process'] * args.busy:
            with busy() if beside else nullcontext():
                for of, times in bench_steps(name, n).items():
                    rows.append(report(f"{name}, {n} thread{'s' * (n > 1)}, {of}{beside}", 'ms', times))
    if args.full:
        for name in ('math_mini_14', 'facts_mini_14', 'both_mini_56'):
            rows.append(report(f'{name}, start to end', 's', bench_run(name), ratios=False))
    else:
        for name in ('math_mini_14', 'facts_mini_14'):
            rows += [report(f'{name}, {what}', 's', times) for what, times in bench_evaluation(name).items()]
        rows.append(report('start to first iteration', 's', bench_start()))
    if args.json:
        write_table(args.json, rows)
