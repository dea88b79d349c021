"""
Let a model write: samples that go on from a beginning, all of them as one batch.

$ python sample.py --out_dir=facts_mini_28 --start="Capital of " --num_samples=5 --max_new_tokens=40
$ python sample.py --out_dir=facts_mini_28 --start=FILE:prompt.txt --checkpoint=ckpt_last.pt
$ python sample.py --init_from=gpt2-xl --start="The capital of France is"

nanoGPT's sample.py. Prints each sample, beginning included, and a line of dashes after it.
"""

import os
import sys

import torch

from configurator import configure
from eval_utils import check_spelling, generate_batch, load_model, load_pretrained, pick_device
from model import GPT2_MODELS

# -----------------------------------------------------------------------------
init_from = 'resume'  # 'resume': the model in out_dir; or 'gpt2', 'gpt2-medium', ... or a folder with its weights
out_dir = 'out'  # the model folder
checkpoint = 'ckpt.pt'  # file in it
start = '\n'  # what the samples go on from; FILE:prompt.txt reads it from a file
num_samples = 10  # samples to draw
max_new_tokens = 500  # length of each, in tokens after the beginning
temperature = 0.8  # 1.0: as the model says, lower: likelier tokens, higher: wilder ones
top_k = 200  # sample from the k likeliest tokens only
seed = 1337  # of the sampling
device = 'auto'  # 'cpu', 'cuda', 'cuda:0', 'mps'; auto: the fastest there is
config = configure(globals())
# -----------------------------------------------------------------------------

for key in ('num_samples', 'max_new_tokens', 'top_k'):
    if config[key] <= 0:
        sys.exit(f"error: {key} must be positive, not {config[key]}")
if temperature < 1e-6:
    sys.exit(f"error: temperature must be at least 1e-6, not {temperature}")
if not 0 <= seed < 2**32:
    sys.exit(f"error: seed must be at least 0 and below 2**32, not {seed}")
if init_from != 'resume' and init_from not in GPT2_MODELS and not os.path.isdir(init_from):
    sys.exit(f"error: init_from must be 'resume', {', '.join(map(repr, GPT2_MODELS))} or a folder with the weights of "
             f"a GPT-2, not {init_from!r}")
source = '--start'
if start.startswith('FILE:'):
    source = start.removeprefix('FILE:')
    try:
        with open(source, encoding='utf-8') as f:
            start = f.read()
    except (OSError, UnicodeDecodeError) as e:
        sys.exit(f"error: cannot read {source}: {getattr(e, 'strerror', None) or 'it is not UTF-8 text'}")
if not start:
    sys.exit(f"error: {source} is empty: a model needs a first token to go on from")

device = pick_device(device)
if init_from == 'resume':
    model, tokenizer, path = load_model(out_dir, [checkpoint], device)
else:
    model, tokenizer, path = load_pretrained(init_from, device)
check_spelling(tokenizer, start, source)
ids = tokenizer.encode(start)
prompts = torch.tensor([ids], device=device).repeat(num_samples, 1)
for new in generate_batch(model, prompts, max_new_tokens, temperature, top_k, seed=seed).tolist():
    print(tokenizer.decode(ids + new))
    print('---------------')
