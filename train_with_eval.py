"""
Train a small GPT and ask it questions all along: does it memorise or generalise?

$ python train_with_eval.py config/train_math_mini_14.py
$ python train_with_eval.py config/train_math_mini_14.py --seed=1 --out_dir=math_mini_14_seed_1
$ python train_with_eval.py config/train_math_mini_14.py --init_from=resume
$ python train_with_eval.py --init_from=gpt2 --dataset=my_bpe_text --block_size=64 --batch_size=8 --learning_rate=3e-5
$ torchrun --standalone --nproc_per_node=2 train_with_eval.py config/train_both_mini_mlt.py

nanoGPT's train.py plus evaluation. Everything about a run goes into its model folder, out_dir: results.csv (temp.csv
while it runs), the checkpoints ckpt*.pt, and the dataset's meta.pkl. Ctrl-C or SIGTERM stops and saves; a run that is
resumed goes on exactly as if it had never stopped.
"""

import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends at once, without a traceback

import fcntl
import importlib.util
import io
import math
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm

from atomic_io import atomic_open
from configurator import configure
from eval_utils import (DATA, GPT2_VOCABULARY, check_vocabulary, evaluate, find_checkpoint, load_checkpoint,
                        load_dataset, load_gpt2, model_from_checkpoint, pick_device, text_sha256)
from model import GPT, GPT2_MODELS, GPTConfig

# -----------------------------------------------------------------------------
# settings: the defaults are the paper's where its runs share them
# I/O
out_dir = 'out'  # the model folder; an earlier run in it is moved aside, not overwritten
eval_interval = 500  # iterations between estimates of the losses, for ckpt.pt (full evaluations estimate them too)
log_interval = 500  # iterations between lines of progress where the output is no terminal
eval_iters = 200  # batches of a sampled loss; a split with fewer windows than that is averaged exactly
eval_only = False  # if True, evaluate once, print it and exit; nothing is written
always_save_checkpoint = False  # if True, ckpt.pt is the latest instead of the one of best validation loss
init_from = 'scratch'  # 'scratch', 'resume', 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl' or a folder with one
wandb_log = False  # log the evaluations to Weights & Biases, too
wandb_project = 'too_big_to_think'  # its project
wandb_run_name = ''  # its name for the run; '': the model folder's
# evaluation: the dataset's questions
full_eval = True  # ask the questions of the dataset
full_eval_interval = 250  # iterations between the evaluations that ask them
num_samples = 10  # samples per question
temperature = 0.01  # of these samples: nearly greedy
top_k = 10  # sample from the k likeliest tokens only
# data
dataset = 'as_math'  # a folder of data/
gradient_accumulation_steps = 1  # batches per iteration
batch_size = 882  # windows of text per batch
block_size = 9  # characters of context: one line of as_math
# model
n_layer = 1  # transformer blocks
n_head = 1  # attention heads
n_embd = 14  # width: channels of each position
mlp_expansion = 1  # hidden width of the MLP, in multiples of n_embd
dropout = 0.0  # for small data and large models try 0.1+
bias = False  # biases in the LayerNorm and Linear layers
# AdamW
learning_rate = 1e-2  # peak learning rate
max_iters = 30000  # training iterations in all
weight_decay = 0.0  # of matrices and embeddings
beta1 = 0.9  # decay of the running mean of the gradient
beta2 = 0.99  # decay of the running mean of its square
grad_clip = 1.0  # clip the gradient's norm to this; 0.0: never
# learning rate decay
decay_lr = True  # warm up, then decay by a cosine; False: constant
warmup_iters = 2000  # iterations of linear warm-up
lr_decay_iters = 25000  # the cosine ends here
min_lr = 1e-4  # and this is where it ends
# system
seed = 1337  # of the weights, the batches, dropout and sampling
device = 'auto'  # 'cpu', 'cuda', 'cuda:0', 'mps'; auto: the fastest there is
dtype = 'auto'  # 'float32', 'bfloat16' or 'float16'; auto: float32, on cuda bfloat16 for widths of 256 and more
compile = True  # torch.compile the model; needs a C++ compiler
num_threads = 0  # CPU threads; 0: as many as the model is fastest with
backend = 'auto'  # of torchrun: 'nccl', 'gloo'; auto: whichever suits the device
config = configure(globals())
out_dir = config['out_dir'] = os.path.normpath(out_dir)
# -----------------------------------------------------------------------------

for key in ('eval_interval', 'log_interval', 'eval_iters', 'full_eval_interval', 'num_samples', 'temperature', 'top_k',
            'gradient_accumulation_steps', 'batch_size', 'block_size', 'learning_rate', 'lr_decay_iters'):
    if config[key] <= 0:
        sys.exit(f"error: {key} must be positive, not {config[key]}")
for key in ('max_iters', 'weight_decay', 'grad_clip', 'warmup_iters', 'min_lr', 'seed', 'num_threads'):
    if config[key] < 0:
        sys.exit(f"error: {key} must not be negative: {config[key]}")
if seed >= 2**32:
    sys.exit(f"error: seed must be below 2**32: {seed}")
if temperature < 1e-6:
    sys.exit(f"error: temperature must be at least 1e-6, not {temperature}")
if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
    sys.exit(f"error: beta1 and beta2 must be at least 0 and below 1, not {beta1} and {beta2}")
if lr_decay_iters <= warmup_iters and decay_lr:
    sys.exit(f"error: lr_decay_iters ({lr_decay_iters}) must be greater than warmup_iters ({warmup_iters})")
if init_from not in ('scratch', 'resume', *GPT2_MODELS) and not os.path.isdir(init_from):
    sys.exit(f"error: init_from must be 'scratch', 'resume', {', '.join(map(repr, GPT2_MODELS))} or a folder with the "
             f"weights of a GPT-2, not {init_from!r}")
if init_from not in ('scratch', 'resume') and os.path.realpath(init_from) == os.path.realpath(out_dir):
    sys.exit(f"error: {out_dir} cannot be both init_from and out_dir")
if wandb_log:
    try:
        import wandb
    except ImportError as e:
        sys.exit(f"error: wandb_log needs wandb, which cannot be imported ({e}): pip install wandb, or leave it off")

# torchrun starts one process for each device and tells them apart by these variables
ddp = 'RANK' in os.environ
rank, world_size = (int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])) if ddp else (0, 1)
master_process = rank == 0  # it alone evaluates, writes and shows progress
if ddp and device == 'auto' and torch.cuda.is_available():
    device = f"cuda:{os.environ['LOCAL_RANK']}"
device = pick_device(device)
device_type = device.split(':')[0]
# The global batch is cut into equal slices, so that any number of processes computes the same gradient.
rows_per_iter = gradient_accumulation_steps * batch_size
micro_steps = max(1, gradient_accumulation_steps // world_size)
if rows_per_iter % (world_size * micro_steps) != 0:
    sys.exit(f"error: gradient_accumulation_steps * batch_size = {rows_per_iter} cannot be shared by {world_size} processes")
micro_batch_size = rows_per_iter // (world_size * micro_steps)
if ddp:
    if device_type == 'cuda':
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend if backend != 'auto' else 'nccl' if device_type == 'cuda' else 'gloo')

# What the model starts from, before anything depends on its shape, for GPT-2 brings its own.
model = checkpoint = gpt2_folder = None
if init_from == 'resume':
    path = find_checkpoint(out_dir, ['ckpt_last.pt', 'ckpt.pt'])
    checkpoint = load_checkpoint(path)
    missing = [key for key in ('optimizer', 'iter_num', 'best_val_loss', 'config') if key not in checkpoint]
    if missing:
        sys.exit(f"error: {path} cannot be resumed, it has no {missing[0]!r}: start anew in another out_dir")
    checkpoint['model_args']['dropout'] = dropout
    model = model_from_checkpoint(checkpoint, path)
    began_from = checkpoint['config'].get('init_from', 'scratch')
    gpt2_folder = out_dir
elif init_from != 'scratch':
    model = load_gpt2(init_from, dropout)
    if block_size > model.config.block_size:
        sys.exit(f"error: block_size {block_size} is too large: {init_from} has {model.config.block_size} positions")
    model.crop_block_size(block_size)
    gpt2_folder = began_from = init_from  # where its vocabulary may be
if model is not None and began_from not in ('scratch', 'resume'):
    shape = {key: getattr(model.config, key) for key in ('n_layer', 'n_head', 'n_embd', 'mlp_expansion', 'bias')}
    config.update(shape, init_from=began_from)  # resuming the run once more has to know it, too
    globals().update(shape)

if dtype == 'auto':
    large = device_type == 'cuda' and n_embd >= 256  # the matrices of tiny models are too small to gain from bfloat16
    dtype = ('bfloat16' if torch.cuda.is_bf16_supported() else 'float16') if large else 'float32'
if dtype not in ('float32', 'bfloat16', 'float16') or (dtype == 'float16' and device_type == 'cpu'):
    sys.exit(f"error: dtype {dtype!r} cannot be used on {device_type}: choose float32 or bfloat16, on cuda also float16")
if device_type == 'cpu':
    # Two threads are best for the tiny models, also where there are many cores (bench.py --threads 1 2). torch's default
    # is a thread for each core, or OMP_NUM_THREADS, by which torchrun and sweep.py share out a machine. A fixed rule,
    # for the sums of other numbers of threads round differently.
    torch.set_num_threads(num_threads or (min(2, torch.get_num_threads()) if n_embd < 128 else torch.get_num_threads()))
# One seed, one result: else two threads, or a GPU's, add up the embedding's gradient in whatever order they come to it
# (compiled, on CPUs, also more slowly).
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
torch.use_deterministic_algorithms(True, warn_only=True)
torch.utils.deterministic.fill_uninitialized_memory = False  # that is for finding bugs, and takes time
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
autocast = torch.autocast(device_type, dtype=getattr(torch, dtype), enabled=dtype != 'float32')
scaler = torch.amp.GradScaler(device_type, enabled=dtype == 'float16')  # else it does nothing

# -----------------------------------------------------------------------------
# data: all of it lies on the device, and a batch is one indexing operation

tokenizer, train_ids, val_ids = load_dataset(dataset, gpt2_folder)
for split, ids in (('train', train_ids), ('val', val_ids)):
    if len(ids) <= block_size:
        sys.exit(f"error: block_size {block_size} is too large: data/{dataset}/{split}.bin has only {len(ids)} tokens")
train_windows = train_ids.to(device).unfold(0, block_size + 1, 1)  # (windows, block_size + 1): a view, not a copy
val_windows = val_ids.to(device).unfold(0, block_size + 1, 1)
splits_are_equal = torch.equal(train_ids, val_ids)
CHUNK = 100  # iterations whose batches are drawn at once
# A batch drawn from a tiny text holds many windows twice: about a fifth of the paper's. On CPUs each goes through the
# model once, weighted by its count. Dropout must not drop the same from both, and CUDA graphs want batches of one size.
merge_repeats = device_type == 'cpu' and dropout == 0.0
# On CPUs a batch goes through the model in pieces whose activations stay in the cache from one kernel to the next. 50,000
# floats an activation and thread are near the best on a core with 1 MiB of L2, but no fewer than 1,000 positions.
rows_at_once = micro_batch_size
if device_type == 'cpu':
    positions = max(1_000, 50_000 * torch.get_num_threads() // n_embd)
    rows_at_once = max(1, positions // block_size)


def draw_batches(chunk):
    """Batches of this process for a chunk of iterations: CHUNK lists of micro-batches (window indices, weights).

    A row's weight is its share of this process's mean loss. A function of the seed and the chunk alone, so that a
    resumed run needs no state; the indices of the whole batch are drawn on every process, and each keeps its slice.
    """
    rng = np.random.default_rng([seed, chunk])
    drawn = rng.integers(len(train_windows), size=(CHUNK, rows_per_iter))
    drawn = drawn.reshape(CHUNK, world_size, -1)[:, rank]
    n_rows = drawn.shape[1]
    if merge_repeats:
        merged = [np.unique(ix, return_counts=True) for ix in drawn]
        batches = [(torch.from_numpy(ix), torch.from_numpy(counts) / n_rows) for ix, counts in merged]
    else:
        weight = torch.full((n_rows,), 1 / n_rows, device=device)
        batches = [(ix, weight) for ix in torch.from_numpy(drawn).to(device)]
    micro_batches = []
    for ix, weight in batches:
        pieces = math.ceil(len(ix) / rows_at_once)
        micro_batches.append(list(zip(ix.tensor_split(pieces), weight.tensor_split(pieces))))
    return micro_batches


@torch.inference_mode()
def estimate_loss(windows, iter_num):
    """Mean cross-entropy of a split: exact over all its windows where these are few, else over eval_iters batches."""
    model.eval()
    if len(windows) <= eval_iters * batch_size:
        batches = torch.arange(len(windows), device=device).split(batch_size)
    else:
        rng = np.random.default_rng([seed, iter_num])
        batches = torch.from_numpy(rng.integers(len(windows), size=(eval_iters, batch_size))).to(device)
    total = torch.zeros((), device=device)
    for ix in batches:
        w = windows[ix]
        with autocast:
            total += model(w[:, :-1], w[:, 1:])[1] * len(ix)
    model.train()
    return total.item() / sum(map(len, batches))


# -----------------------------------------------------------------------------
# model

torch.manual_seed(seed)
if init_from == 'scratch':
    try:
        model = GPT(GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, bias=bias,
                              vocab_size=tokenizer.vocab_size, dropout=dropout, mlp_expansion=mlp_expansion))
    except (ValueError, RuntimeError, MemoryError) as e:  # an impossible shape, or one that does not fit the memory
        sys.exit(f"error: cannot build the model: {str(e).splitlines()[0]}")
elif init_from != 'resume':
    check_vocabulary(model, tokenizer, init_from, f'data/{dataset}/meta.pkl',
                     "choose a dataset in GPT-2's encoding, which has no meta.pkl, or train from scratch")
model.train()
model_args = model.config.model_args()
data_sha256 = text_sha256(dataset)
iter_num = 0
rows = []  # of results.csv
best_val_loss = float('inf')
best_acc = {'math': 0.0, 'facts': 0.0, 'combined': 0.0}
if checkpoint is not None:
    if checkpoint['iter_num'] > max_iters:
        sys.exit(f"error: {path} is at iteration {checkpoint['iter_num']} already: resume with a larger --max_iters")
    before = {**checkpoint['config'], **model_args, 'dropout': checkpoint['config'].get('dropout', dropout)}
    for key, value in config.items():
        if key in before and before[key] != value and key not in ('init_from', 'out_dir', 'eval_only'):
            if key in ('dataset', *model_args) and key != 'dropout':
                sys.exit(f"error: {path} was trained with {key}={before[key]!r}, not {value!r}: "
                         f"resume with the same, or start anew in another out_dir")
            if master_process:
                print(f"resuming with {key}={value!r} (was {before[key]!r})")
    check_vocabulary(model, tokenizer, path, f'data/{dataset}/meta.pkl', "prepare the data that it was trained on")
    if checkpoint.get('data_sha256', data_sha256) != data_sha256:
        sys.exit(f"error: {path} was trained on another text: data/{dataset} has been prepared with other options since")
    iter_num = checkpoint['iter_num']
    best_val_loss = float(checkpoint['best_val_loss'])
    best_acc.update(checkpoint.get('best_acc', {}))
    rows = checkpoint.get('rows', [])
model.to(device)
optimizer = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)
if checkpoint is not None:
    try:
        optimizer.load_state_dict(checkpoint['optimizer'])
    except (ValueError, KeyError, TypeError) as e:
        sys.exit(f"error: {path} cannot be resumed, its optimizer is another's: {e}")
    for group, decay in zip(optimizer.param_groups, (weight_decay, 0.0)):
        group['weight_decay'], group['betas'] = decay, (beta1, beta2)
    if checkpoint.get('scaler'):
        scaler.load_state_dict(checkpoint['scaler'])
checkpoint = None  # free the memory

params = [p for p in model.parameters() if p.requires_grad]
one = torch.ones((), device=device)  # scaled, it is the factor of float16's losses; else it stays 1


def forward_backward(window, weight, loss_scale):
    """(*gradients, loss) of windows (B, block_size + 1) of token ids, whose losses count by their weights (B,).

    The gradients are of the loss times loss_scale, the loss is not. One function, so that forward and backward pass
    compile into one graph: with loss.backward() on a compiled model, a tiny model waits for Python between the two.
    """
    targets = window[:, 1:]
    with autocast:
        logits, _ = model(window[:, :-1], targets)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction='none')
    loss = losses.view(targets.shape).mean(1) @ weight  # in float32: autocast would take the product in half precision
    return *torch.autograd.grad(loss * loss_scale, params), loss.detach()


def compiler_found():
    """Whether torch.compile can work here: it makes C++ for CPUs and Triton kernels for GPUs."""
    if device_type == 'cuda':
        return importlib.util.find_spec('triton') is not None
    return device_type == 'cpu' and any(map(shutil.which, [os.environ.get('CXX', 'g++'), 'clang++']))


if compile and not compiler_found():
    if master_process:
        print("no compiler found: training eagerly, which is slower")
    compile = False
# tiny models on a GPU wait for kernel launches: CUDA graphs replay all of a step with one
cuda_graphs = compile and device_type == 'cuda' and n_embd < 256
if compile:
    torch._dynamo.config.trace_autograd_ops = True  # lets autograd.grad into the graph
    # One graph or none: were it broken before the backward pass, width 14 would train a sixth slower, and say nothing.
    eager = forward_backward
    forward_backward = torch.compile(eager, mode='reduce-overhead' if cuda_graphs else None, fullgraph=True)
    try:  # compile now: a compiler that is there may yet not work, for want of Python's headers, say
        ix, weight = draw_batches(0)[0][0]
        window = train_windows[ix]
        if device_type == 'cpu':  # micro-batches differ in size, and nothing else does
            torch._dynamo.maybe_mark_dynamic(window, 0)
            torch._dynamo.maybe_mark_dynamic(weight, 0)
        forward_backward(window, weight, scaler.scale(one))
    except torch._dynamo.exc.TorchDynamoException as e:
        if master_process:
            print(f"the compiler failed ({' '.join(str(e).split())[:100]} ...): training eagerly, which is slower")
        forward_backward, compile, cuda_graphs = eager, False, False


def get_lr(it):
    """Learning rate of an iteration: linear warm-up, then half a cosine down to min_lr."""
    if not decay_lr:
        return learning_rate
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * decay_ratio)) * (learning_rate - min_lr)


# -----------------------------------------------------------------------------
# the model folder

def write_file(name, content):
    """Write bytes to a file of the model folder, whole or not at all; exits with a clear message if it cannot."""
    try:
        with atomic_open(os.path.join(out_dir, name), 'wb') as f:
            f.write(content)
    except OSError as e:
        sys.exit(f"error: cannot write {os.path.join(out_dir, name)}: {e.strerror}. What was there before is intact; "
                 "make room and go on with --init_from=resume")


def write_rows(name):
    write_file(name, pd.DataFrame(rows).to_csv(index=False).encode())


def checkpoint_bytes():
    """nanoGPT's checkpoint, and what exact resumption needs. No random state is in it: batches, dropout and sampling
    are functions of the seed and the iteration."""
    buffer = io.BytesIO()
    torch.save({
        'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'model_args': model_args,
        'iter_num': iter_num, 'best_val_loss': best_val_loss, 'config': config,
        'best_acc': best_acc, 'rows': rows, 'data_sha256': data_sha256, 'scaler': scaler.state_dict(),
    }, buffer)
    return buffer.getvalue()


def lock_folder(folder):
    """Lock a folder for this process; exits where another training run holds it."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"error: another run is training in {folder}: wait for it, or choose another out_dir")
    return fd


if master_process and not eval_only:
    try:
        os.makedirs(out_dir, exist_ok=True)
        lock = lock_folder(out_dir)  # held until this process ends, however it ends
        if init_from != 'resume' and any(name.endswith(('.pt', '.csv')) for name in os.listdir(out_dir)):
            n = next(n for n in range(1, sys.maxsize) if not os.path.lexists(f'{out_dir}.{n}'))
            os.rename(out_dir, f'{out_dir}.{n}')
            print(f"moved the earlier run in {out_dir} to {out_dir}.{n} (to go on with a run: --init_from=resume)")
            os.close(lock)
            os.mkdir(out_dir)
            lock = lock_folder(out_dir)
        for name in os.listdir(out_dir):  # half-written files of a run that was killed
            if re.fullmatch(r'(ckpt\w*\.pt|\w+\.csv|meta\.pkl|vocab\.json|merges\.txt)\.\d+\.tmp', name):
                os.unlink(os.path.join(out_dir, name))
    except OSError as e:
        sys.exit(f"error: cannot use {out_dir} as out_dir: {e.strerror}")
    if (DATA / dataset / 'meta.pkl').exists():  # so that the folder can be evaluated whatever becomes of the data
        write_file('meta.pkl', (DATA / dataset / 'meta.pkl').read_bytes())
    elif gpt2_folder and all((Path(gpt2_folder) / name).exists() for name in GPT2_VOCABULARY):
        for name in GPT2_VOCABULARY:
            write_file(name, (Path(gpt2_folder) / name).read_bytes())

wandb_run = None
if wandb_log and master_process and not eval_only:
    try:
        wandb_run = wandb.init(project=wandb_project, name=wandb_run_name or os.path.basename(out_dir), dir=out_dir,
                               config=config)
    except wandb.Error as e:
        sys.exit(f"error: wandb cannot start a run ({' '.join(str(e).split())}): log in with `wandb login`, set "
                 "WANDB_MODE=offline, or leave wandb_log off")

# -----------------------------------------------------------------------------
# training loop

exit_code = 0  # of a stop that has been asked for


def request_stop(signum, frame):
    """Finish the iteration, save, and exit; a second signal ends at once."""
    global exit_code
    if exit_code:
        sys.exit(exit_code)
    exit_code = 128 + signum


def status():
    """Losses and scores of the last evaluation, for people."""
    row = rows[-1] if rows else {}
    parts = [f"val loss {row['val_loss']:.4f}"] if row else []
    for name, correct, total in (('sums', row.get('add_correct', 0) + row.get('sub_correct', 0),
                                  row.get('add_total', 0) + row.get('sub_total', 0)),
                                 ('held out', row.get('heldout_correct', 0), row.get('heldout_total', 0)),
                                 ('facts', row.get('facts_correct', 0), row.get('facts_total', 0))):
        if total:
            parts.append(f"{name} {correct / total:.1%}")
    return ', '.join(parts)


def weights_are_finite():
    return all(bool(torch.isfinite(param).all()) for param in params)


for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, request_stop)
start_iter = iter_num
train_s, eval_s = (rows[-1]['train_s'], rows[-1]['eval_s']) if rows else (0.0, 0.0)
if master_process:
    print(f"{dataset}: {len(train_ids):,} tokens, vocabulary {tokenizer.vocab_size}, "
          f"{len(tokenizer.cases)} questions, {sum(case[3] for case in tokenizer.cases)} of them held out")
    print(f"model: {model.get_num_params(non_embedding=False):,} parameters; "
          f"{device}, {dtype}, {'compiled' if compile else 'eager'}")
log_lines = not (sys.stdout.isatty() and sys.stderr.isatty())
bar = tqdm(total=max_iters, initial=iter_num, desc=os.path.basename(out_dir), dynamic_ncols=True,
           disable=not (master_process and sys.stderr.isatty()) or eval_only)
batches = None
t0 = time.perf_counter()
try:
    while True:
        # evaluate, and save what is best and what is latest
        on_beat = iter_num % eval_interval == 0 or (full_eval and iter_num % full_eval_interval == 0)
        evaluated = bool(rows) and rows[-1]['iter'] == iter_num  # before the stop that this run resumes from
        if master_process and (eval_only or (on_beat or iter_num == max_iters) and not evaluated):
            train_s += time.perf_counter() - t0
            t0 = time.perf_counter()
            if not on_beat and not eval_only and weights_are_finite():
                # A resumed run does not stop here, so it must not find this evaluation's traces.
                write_file('ckpt_last.pt', checkpoint_bytes())
            train_loss = estimate_loss(train_windows, iter_num)
            val_loss = train_loss if splits_are_equal else estimate_loss(val_windows, iter_num)
            if not math.isfinite(train_loss + val_loss):
                print(f"error: the loss is {train_loss} at iteration {iter_num}: training has diverged, try a smaller "
                      f"learning_rate. The checkpoints in {out_dir} are of before", file=sys.stderr)
                exit_code = 1
            else:
                row = {'iter': iter_num}
                asks = full_eval and (iter_num % full_eval_interval == 0 or iter_num == max_iters or eval_only)
                asked = tokenizer if asks else tokenizer._replace(cases=[])
                scores = evaluate(model, asked, num_samples, temperature, top_k, seed + iter_num)
                classic = list(scores).index('seen_acc')  # the losses stand before our own columns
                row.update(list(scores.items())[:classic])
                row.update(train_loss=train_loss, val_loss=val_loss)
                row.update(list(scores.items())[classic:])
                eval_s += time.perf_counter() - t0
                row.update(lr=get_lr(iter_num), train_s=round(train_s, 3), eval_s=round(eval_s, 3))
                if asks or not full_eval:
                    rows.append(row)
                    if wandb_run:
                        wandb_run.log(row, step=iter_num)
                if eval_only:
                    print('\n'.join(f"{key:>16} {value}" for key, value in row.items()))
                else:
                    reached = {'math': row['math_acc'], 'facts': row['facts_acc'], 'combined': 0.0}
                    if row['math_acc'] > 0 and row['facts_acc'] > 0:
                        reached['combined'] = (row['math_acc'] + row['facts_acc']) / 2
                    improved = [f'ckpt_best_{task}.pt' for task in best_acc if reached[task] > best_acc[task]]
                    best_acc = {task: max(best_acc[task], reached[task]) for task in best_acc}
                    if val_loss < best_val_loss or always_save_checkpoint:
                        improved.append('ckpt.pt')
                    best_val_loss = min(best_val_loss, val_loss)
                    content = checkpoint_bytes()
                    for name in improved:
                        write_file(name, content)
                    write_rows('temp.csv')
                    if on_beat:
                        write_file('ckpt_last.pt', content)  # last: what it knows of is on the disk by now
                bar.set_postfix_str(status())
            t0 = time.perf_counter()
        if log_lines and master_process and not eval_only and (iter_num % log_interval == 0 or iter_num == start_iter):
            seconds = train_s + time.perf_counter() - t0
            trained = f"loss {loss.item():.4f}, " if iter_num > start_iter else ""
            pace = f", {seconds / iter_num * 1e3:.2f} ms/iter" if iter_num else ""
            print(f"iter {iter_num}: {trained}{status()}{pace}", flush=True)
        if ddp:  # all processes stop together or not at all
            flag = torch.tensor(exit_code, device=device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            exit_code = int(flag)
        if exit_code or eval_only or iter_num >= max_iters:
            break

        # forward, backward, update
        if batches is None or iter_num % CHUNK == 0:
            batches = draw_batches(iter_num // CHUNK)
        lr = get_lr(iter_num)
        for group in optimizer.param_groups:
            group['lr'] = lr
        if dropout > 0.0:
            torch.manual_seed(int(np.random.SeedSequence([seed, rank, iter_num]).generate_state(1)[0]))
        micro_batches = batches[iter_num % CHUNK]
        loss_scale = scaler.scale(one)
        for i, (ix, weight) in enumerate(micro_batches):
            outputs = forward_backward(train_windows[ix], weight, loss_scale)
            if i == 0:  # a CUDA graph's next replay overwrites what the last one returned
                total = [output.clone() for output in outputs] if cuda_graphs and len(micro_batches) > 1 else outputs
            else:
                torch._foreach_add_(total, outputs)
        if ddp:  # every process has an equal slice of the batch, so the mean of their gradients is the batch's
            flat = torch.cat([tensor.flatten() for tensor in total])  # one all-reduce: each takes its time, however small
            torch.distributed.all_reduce(flat)
            flat /= world_size
            total = [part.view_as(tensor) for part, tensor in zip(flat.split([t.numel() for t in total]), total)]
            outputs = None  # frees the gradients before the reduction
        *grads, loss = total
        for param, grad in zip(params, grads):
            param.grad = grad
        if grad_clip > 0.0:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(params, grad_clip)
        scaler.step(optimizer)
        scaler.update()
        iter_num += 1
        bar.update()
    if exit_code > 128 and iter_num < max_iters and master_process and not eval_only and weights_are_finite():
        write_file('ckpt_last.pt', checkpoint_bytes())
except RuntimeError as e:  # what gloo and nccl raise when the other end is gone
    if not ddp:
        raise
    print(f"error: process {rank} cannot go on, another may have died ({str(e).splitlines()[0]}): "
          f"go on from the newest checkpoint with --init_from=resume", file=sys.stderr)
    exit_code = 1
finally:
    bar.close()
    if master_process and not eval_only and rows:
        write_rows('results.csv')
        if os.path.exists(os.path.join(out_dir, 'temp.csv')):
            os.unlink(os.path.join(out_dir, 'temp.csv'))
if wandb_run:
    wandb_run.finish(exit_code=exit_code)
if ddp and exit_code != 1:  # it would wait for processes that are gone
    torch.distributed.destroy_process_group()
if master_process and not eval_only:
    if exit_code > 128:
        print(f"stopped at iteration {iter_num}, all saved in {out_dir}; to go on: "
              f"python {shlex.join(arg for arg in sys.argv if not arg.startswith('--init_from='))} --init_from=resume")
    elif exit_code == 0:
        print(f"done at iteration {iter_num}: {status()}; training {train_s:.0f} s, evaluation {eval_s:.0f} s")
        print(f"results and checkpoints are in {out_dir}; next:")
        print(f"  python plot_results.py --model_folder {out_dir}")
        if any(case[0] != 'facts' for case in tokenizer.cases):
            print(f"  python eval_as_math.py --out_dir={out_dir}")
        if any(case[0] == 'facts' for case in tokenizer.cases):
            print(f"  python eval_capitals.py --out_dir={out_dir}")
sys.exit(exit_code)
