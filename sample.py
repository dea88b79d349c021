"""
Generate text with a model: it continues the text that you give it.

$ python sample.py --out_dir=facts_mini_28 --start="Capital of " --num_samples=5 --max_new_tokens=40
$ python sample.py facts_mini_28 --start=FILE:prompt.txt --checkpoint=ckpt_last.pt
$ python sample.py --init_from=gpt2-xl --start="The capital of France is"

This is nanoGPT's sample.py. It prints each sample, including the start, and a line of dashes after it.
"""

import math
import os
from pathlib import Path

from common.errors import UserError, explained, report_errors
from configurator import configure

# -----------------------------------------------------------------------------
# settings
init_from = 'resume'  # 'resume': the model in out_dir; or 'gpt2', 'gpt2-medium', ... or a folder with its weights
out_dir = 'out'  # the model folder
checkpoint = 'ckpt.pt'  # checkpoint file in the model folder
start = '\n'  # the text that the samples continue; FILE:prompt.txt reads it from a file
num_samples = 10  # samples to draw
max_new_tokens = 500  # length of each sample, in tokens after the start
temperature = 0.8  # 1.0: the model's own probabilities; lower: likelier tokens; higher: wilder; 0: always the likeliest
top_k = 200  # sample from the k likeliest tokens only
seed = 1337  # seed of the sampling
device = 'auto'  # 'cpu', 'cuda', 'mps'; auto: a GPU if there is one and the model is at least 128 wide
RANGES = {'num_samples max_new_tokens top_k': (1, math.inf), 'temperature': (0, math.inf), 'seed': (0, 2**32)}
report_errors()
configure(globals(), RANGES)
# -----------------------------------------------------------------------------

source = '--start'
if start.startswith('FILE:'):
    source = os.path.expanduser(start.removeprefix('FILE:'))
    with explained(f"cannot read {source}: {{}}", OSError, UnicodeDecodeError):
        start = Path(source).read_text(encoding='utf-8-sig')  # -sig: Windows' Notepad writes a byte-order mark
if not start:
    raise UserError(f"{source} is empty: a model needs at least one token to continue")

import torch  # it takes seconds to import, so the settings are checked first

from common.checkpoint import load_model
from common.device import pick_device

if init_from == 'resume':
    model, meta, *_ = load_model(out_dir, [checkpoint])
else:
    from common.gpt2 import load_pretrained
    model, meta = load_pretrained(init_from)
device = pick_device(device, model.config.n_embd)
model.to(device)
torch.manual_seed(seed)
x = torch.tensor([meta.tokenizer.encode(start)], device=device)
for _ in range(num_samples):
    y = model.generate(x, max_new_tokens, temperature=temperature, top_k=top_k)
    print(meta.tokenizer.decode(y[0].tolist()))
    print('---------------')
