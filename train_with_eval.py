"""
Train a small GPT and test it throughout training: does it memorise or generalise?

$ python train_with_eval.py config/train_math_mini_14.py
$ python train_with_eval.py config/train_math_mini_14.py --seed=1 --out_dir=math_mini_14_seed_1
$ python train_with_eval.py --init_from=resume --out_dir=math_mini_14
$ torchrun --standalone --nproc_per_node=2 train_with_eval.py config/train_both_mini_mlt.py

This is nanoGPT's train.py plus evaluation. A run is kept in its model folder, out_dir: results.csv (temp.csv while it
runs), answers.csv.gz, the checkpoints ckpt*.pt and the dataset's meta.pkl. Ctrl-C or SIGTERM saves the run and ends it.
A resumed run continues exactly as if it had never stopped, with its own settings unless you give new ones.
"""

import io
import math
import os
import sys

from common.errors import UserError, discard_output, report_errors, say
from common.wandb_log import import_wandb, start_wandb
from configurator import configure, inherit_settings

# -----------------------------------------------------------------------------
# settings: the defaults are the paper's for arithmetic; a config file names its run, its width, and what else differs
# I/O
out_dir = 'out'  # the model folder; an earlier run in it is moved aside, not overwritten
eval_interval = 500  # iterations between estimates of the losses; full evaluations make them as well
log_interval = 500  # iterations between lines of progress if the output is not a terminal
eval_iters = 200  # random batches for an estimate of the loss; over a short text, the mean is exact instead
eval_only = False  # if True, evaluate once, print it and exit; nothing is written
always_save_checkpoint = False  # if True, ckpt.pt is the latest checkpoint, not the one with the best validation loss
init_from = 'scratch'  # 'scratch', 'resume', 'gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl' or a folder with a GPT-2
wandb_log = False  # log the evaluations to Weights & Biases as well
wandb_project = 'too_big_to_think'  # the project at Weights & Biases
wandb_entity = ''  # the user or team at Weights & Biases; '': your default
wandb_run_name = ''  # the run's name at Weights & Biases; '': the name of the model folder
# evaluation
full_eval = True  # evaluate on the dataset's questions during training
full_eval_interval = 250  # iterations between these full evaluations
num_samples = 10  # samples per question
temperature = 0.01  # temperature of the samples; 0.01 is nearly greedy, 0 is greedy
top_k = 10  # sample from the k likeliest tokens only
keep_weights = False  # keep the weights of every full evaluation for explore.py: 0.8 MB at width 14, 10 MB at 56
# data
dataset = 'as_math'  # a folder of data/
gradient_accumulation_steps = 1  # batches per iteration
batch_size = 882  # windows of text per batch
block_size = 9  # characters of context; 9 is one line of as_math
# model
n_layer = 1  # transformer blocks
n_head = 1  # attention heads
n_embd = 14  # width: channels of each position
mlp_expansion = 1  # hidden width of the MLP, in multiples of n_embd
dropout = 0.0  # fraction of activations dropped in training; for small data and large models try 0.1 or more
bias = False  # biases in the LayerNorm and Linear layers
# AdamW
learning_rate = 1e-2  # peak learning rate
max_iters = 30000  # training iterations in all
weight_decay = 0.0  # weight decay of matrices and embeddings
beta1 = 0.9  # decay of the running mean of the gradient
beta2 = 0.99  # decay of the running mean of the squared gradient
grad_clip = 1.0  # clip the gradient's norm to this; 0.0: never
# learning rate decay
decay_lr = True  # True: warm up, then decay along a cosine; False: the learning rate is constant
warmup_iters = 2000  # iterations of linear warm-up
lr_decay_iters = 25000  # the iteration at which the cosine ends
min_lr = 1e-4  # the learning rate at which the cosine ends
# system
seed = 1337  # seed of the weights, the batches, dropout and sampling
device = 'auto'  # 'cpu', 'cuda', 'cuda:0', 'mps'; auto: a GPU if there is one and the model is at least 128 wide
dtype = 'auto'  # 'float32' or 'bfloat16'; auto: bfloat16 for widths of 256 and more, if the hardware computes in it
fused = 'auto'  # 'True': the training step in C++; auto: if it supports the model (small, float32, CPU); 'False': never
compile = True  # compile the model with torch.compile if the step is not fused; both need a C++ compiler
num_threads = 0  # number of CPU threads; 0: two for models narrower than 128, torch's own number for wider ones
backend = 'auto'  # backend of torchrun's processes: 'nccl' or 'gloo'; auto: the one that suits the device
RANGES = {
    'eval_interval log_interval eval_iters full_eval_interval num_samples top_k gradient_accumulation_steps batch_size '
    'block_size n_layer n_head n_embd mlp_expansion lr_decay_iters': (1, math.inf),
    'temperature max_iters weight_decay grad_clip warmup_iters min_lr': (0, math.inf),
    'learning_rate': (sys.float_info.min, math.inf),
    'dropout beta1 beta2': (0, 1), 'seed': (0, 2**32), 'num_threads': (0, 1025),
    'dtype': 'auto float32 bfloat16', 'backend': 'auto nccl gloo', 'fused': 'auto True False'}
if __name__ == '__main__':  # sweep.py executes what stands above this
    report_errors()
    config, given = configure(globals(), RANGES)
    if os.environ.get('RANK', '0') != '0':
        discard_output()  # only the master of torchrun's processes prints anything
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # threads that spin make a run beside others ten times slower
    if init_from not in ('scratch', 'resume') and not init_from.startswith('gpt2') and not os.path.isdir(init_from):
        raise UserError(f"init_from must be scratch, resume, gpt2 or a folder with GPT-2's weights, not {init_from!r}")
    if wandb_log:
        import_wandb()
    say(f"{out_dir}: starting, which takes a few seconds")
# -----------------------------------------------------------------------------

import numpy as np  # imports that take seconds come after the settings, so that a typo is reported at once
import pandas as pd
import torch

from common.answers import ANSWERS, append_answers
from common.checkpoint import (build_model, check_resumable, check_vocabulary, find_checkpoint, load_checkpoint,
                               load_optimizer, model_from_checkpoint, update_best)
from common.dataset import check_kept_meta, keep_meta, load_dataset, text_sha256
from common.device import compile_model, compute_init, pick_dtype
from common.evaluate import estimate_losses, grade
from common.files import cut_file, size_of, write_file
from common.gpt2 import load_gpt2
from common.processes import all_reduce_gradients, all_reduce_max, check_same, leave_together
from common.progress import Progress, describe_run
from common.results import results_row
from common.run_folder import claim_folder, end_results
from common.signals import stop_by_signal
from common.weights import WEIGHTS, append_weights
from fused.fused_step import load_fused_step


def draw_starts(n_tokens, iter_num, rank=0, world_size=1):
    """Where a process's windows of an iteration begin. Only seed and iteration decide, so no random state is kept."""
    n_windows, rng = gradient_accumulation_steps * batch_size, np.random.default_rng([seed, iter_num])
    return rng.integers(n_tokens - block_size, size=n_windows).reshape(world_size, -1)[rank]


def get_batch(ids, starts):
    """The windows of a text that begin at starts, inputs and targets together: int64 (windows, block_size + 1)."""
    windows = np.lib.stride_tricks.sliding_window_view(ids, block_size + 1)
    return torch.from_numpy(windows[starts].astype(np.int64))


def forward_backward(model, batch, micro_steps, autocast):
    """Add the gradient of the batch's mean loss, which is returned, to every p.grad, in micro_steps equal parts."""
    total = 0.0
    for part in batch.chunk(micro_steps):
        with autocast:
            _, loss = model(part[:, :-1], part[:, 1:])
        loss = loss / micro_steps
        loss.backward()
        total += loss.detach()
    return total


def get_lr(it):
    """Linear warm-up, then half a cosine down to min_lr."""
    if not decay_lr:
        return learning_rate
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))  # from 1 to 0
    return min_lr + coeff * (learning_rate - min_lr)


if __name__ == '__main__':
    # where the model comes from: its own checkpoint, GPT-2, ...
    torch.set_flush_denormal(True)  # denormal numbers are slow on Intel; set before there are threads, which inherit it
    torch.manual_seed(seed)
    checkpoint, vocabulary_folder, path = {}, None, init_from
    if init_from == 'resume':
        path = find_checkpoint(out_dir, ['ckpt_last.pt', 'ckpt.pt'])
        checkpoint = load_checkpoint(path, to_resume=True)
        before = {**checkpoint['config'], **checkpoint['model_args'], 'out_dir': out_dir, 'init_from': init_from}
        config = inherit_settings(globals(), config, given, before, RANGES)  # what is not given is as it was
        model, vocabulary_folder = model_from_checkpoint(checkpoint, path, dropout), out_dir
    elif init_from != 'scratch':
        model, vocabulary_folder = load_gpt2(init_from, dropout, block_size), init_from
        config = inherit_settings(globals(), config, (), model.config.model_args(), RANGES)

    # ... or scratch, with the vocabulary of the data
    meta, train_ids, val_ids = load_dataset(dataset, block_size, vocabulary_folder)
    if init_from == 'scratch':
        model = build_model(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, bias=bias,
                            vocab_size=meta.tokenizer.vocab_size, dropout=dropout, mlp_expansion=mlp_expansion)
    data_sha256 = text_sha256(train_ids)

    # what does not fit together
    if init_from == 'resume':
        check_resumable(checkpoint, path, config, data_sha256)
    check_vocabulary(model, meta.tokenizer, path, f'data/{dataset}', "choose the data that it was trained on")
    if decay_lr and lr_decay_iters <= warmup_iters:
        raise UserError(f"lr_decay_iters ({lr_decay_iters}) must be greater than warmup_iters ({warmup_iters})")
    if decay_lr and min_lr < learning_rate and max_iters < lr_decay_iters:
        say(f"max_iters ({max_iters}) is below lr_decay_iters ({lr_decay_iters}), so the final learning rate is still "
            "high: set --lr_decay_iters as well")

    # device and processes
    device, rank, world_size = compute_init(device, n_embd, num_threads, backend)
    dtype, device_type = pick_dtype(dtype, device, n_embd), device.split(':')[0]
    autocast = torch.autocast(device_type, dtype=getattr(torch, dtype), enabled=dtype != 'float32')
    ddp, master_process = 'RANK' in os.environ, rank == 0  # the master alone evaluates, writes and shows progress
    writes = master_process and not eval_only
    if ddp:
        check_same(config, model, text=data_sha256, iteration=checkpoint.get('iter_num', 0))
    n_windows = gradient_accumulation_steps * batch_size  # of an iteration, which the processes share
    micro_steps = max(1, gradient_accumulation_steps // world_size)
    if n_windows % (world_size * micro_steps):
        raise UserError(f"gradient_accumulation_steps * batch_size cannot be shared equally by {world_size} processes: "
                        "change one of them")

    # optimizer
    params = list(model.to(device).train().parameters())
    optimizer = model.configure_optimizers(weight_decay, learning_rate, (beta1, beta2), device_type)
    if checkpoint:
        load_optimizer(optimizer, checkpoint, path)

    # the training step: in C++ for small models on a CPU, and nanoGPT's with torch.compile for all others
    raw_model = model  # the one that is saved and evaluated
    fused_step = None if eval_only else load_fused_step(
        fused, model, optimizer, device, dtype, n_windows // world_size, torch.get_num_threads())
    if compile and not fused_step and not eval_only and device_type != 'mps':  # torch.compile is not ready there
        batch = get_batch(train_ids, draw_starts(len(train_ids), 0, rank, world_size)).to(device)
        model = compile_model(raw_model, batch.chunk(micro_steps)[0], autocast)

    # the model folder, and what the run has found so far
    iter_num = checkpoint.get('iter_num', 0)
    rows = [row for row in checkpoint.get('rows', []) if row['iter'] < iter_num]  # of results.csv
    best = {'math': 0.0, 'facts': 0.0, 'combined': 0.0, **checkpoint.get('best_acc', {}),
            'val_loss': float(checkpoint.get('best_val_loss', 'inf'))}
    n_params = raw_model.get_num_params(non_embedding=False)
    if writes:
        lock = claim_folder(out_dir, resume=init_from == 'resume')  # it holds as long as this variable
        check_kept_meta(meta, out_dir)
        keep_meta(meta, out_dir)
        for name, size in checkpoint.get('sizes', {}).items():  # the evaluation at iter_num is repeated
            cut_file(os.path.join(out_dir, name), size)
    wandb_run = start_wandb(config, checkpoint.get('wandb_id')) if wandb_log and writes else None
    way = 'fused in C++' if fused_step else 'eager' if model is raw_model else 'compiled'
    say(describe_run(dataset, meta, train_ids, raw_model, f"on {device} in {dtype}, {way}"))
    progress = Progress(out_dir, iter_num, max_iters, log_interval, checkpoint.get('seconds', {}), quiet=not writes)
    stop = stop_by_signal()
    checkpoint = None  # free the memory

    def save(*names):
        """Write nanoGPT's checkpoint, and what exact resumption needs, under each of the names."""
        buffer = io.BytesIO()
        torch.save({'model': raw_model.state_dict(), 'optimizer': optimizer.state_dict(),
                    'model_args': raw_model.config.model_args(), 'iter_num': iter_num,
                    'best_val_loss': best['val_loss'], 'config': config, 'best_acc': best, 'rows': rows,
                    'seconds': progress.seconds, 'n_params': n_params,
                    'data_sha256': data_sha256, 'wandb_id': wandb_run and wandb_run.id,
                    'sizes': {name: size_of(os.path.join(out_dir, name)) for name in (ANSWERS, WEIGHTS)}}, buffer)
        for name in names:
            write_file(os.path.join(out_dir, name), buffer.getbuffer())

    def evaluate_and_save():
        """Estimate the losses, save, then evaluate on the questions: a run killed in between repeats all of it."""
        progress.clock('train_s')
        losses = estimate_losses(raw_model, train_ids, val_ids, batch_size, eval_iters, [seed, iter_num], autocast)
        if writes:
            save('ckpt_last.pt')
        is_full = full_eval and (iter_num % full_eval_interval == 0 or iter_num == max_iters or eval_only)
        questions = meta.questions if is_full else []
        table = grade(raw_model, meta.tokenizer, questions, num_samples, temperature, top_k, seed + iter_num)
        progress.clock('eval_s')
        row = results_row(iter_num, table, questions, *losses)
        seconds = {key: round(value, 3) for key, value in progress.seconds.items()}
        row |= {'lr': get_lr(iter_num), **seconds, 'n_params': n_params}
        if is_full or not full_eval:
            rows.append(row)
            if wandb_run:
                wandb_run.log(row, step=iter_num)
        improved = update_best(best, row) + ['ckpt.pt'] * always_save_checkpoint
        if writes:
            if improved:
                save(*improved)
            append_answers(iter_num, table, out_dir)
            if keep_weights and is_full:
                append_weights(iter_num, raw_model, out_dir)
            write_file(os.path.join(out_dir, 'temp.csv'), pd.DataFrame(rows).to_csv(index=False))
        progress.clock('eval_s')
        return row

    # training loop
    loss, ahead = None, {}
    try:
        while True:
            on_beat = iter_num % eval_interval == 0 or (full_eval and iter_num % full_eval_interval == 0)
            if master_process and (on_beat or iter_num == max_iters or eval_only):
                row = evaluate_and_save()
            progress.show(iter_num, loss, rows)

            # termination conditions
            stopped = all_reduce_max(stop.code, device) if ddp else stop.code  # all processes stop, or none
            if stopped or eval_only or iter_num >= max_iters:
                break

            # forward and backward: afterwards every p.grad is the gradient of the batch's mean loss
            if dropout > 0.0:
                torch.manual_seed(int(np.random.SeedSequence([seed, rank, iter_num]).generate_state(1)[0]))
            if iter_num not in ahead:  # several at once, because a step pushes what this needs out of the cache
                ahead = {i: draw_starts(len(train_ids), i, rank, world_size) for i in range(iter_num, iter_num + 16)}
            if fused_step:
                loss = fused_step.gradients(train_ids, ahead[iter_num])
            else:
                loss = forward_backward(model, get_batch(train_ids, ahead[iter_num]).to(device), micro_steps, autocast)
            if ddp:
                all_reduce_gradients(params, world_size)

            # clip the gradient and step the optimizer
            if fused_step:
                fused_step.update(get_lr(iter_num), grad_clip)
            else:
                for group in optimizer.param_groups:
                    group['lr'] = get_lr(iter_num)
                if grad_clip > 0.0:
                    torch.nn.utils.clip_grad_norm_(params, grad_clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            iter_num += 1
        if stopped and writes and not on_beat:
            if not all(bool(torch.isfinite(p).all()) for p in params):
                raise UserError("the weights are not finite: training has diverged, so try a smaller learning_rate; "
                                "the saved checkpoints are from before")
            progress.clock('train_s')
            save('ckpt_last.pt')
    finally:
        progress.close()
        if writes:
            end_results(out_dir)
    if wandb_run:
        wandb_run.finish(exit_code=stopped)
    if eval_only and master_process:
        say('\n'.join(f"{key:>16} {value}" for key, value in row.items()))
    elif writes:
        progress.end(iter_num, stopped, rows, meta.questions)
    if ddp:
        leave_together(stopped)
    sys.exit(stopped)
