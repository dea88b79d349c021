"""
Replay the authors' run of facts_mini_14 with our model: their initial weights, their order of batches, their precision.

$ python data/facts_char/prepare.py
$ python paper/replay.py

Our batches are a function of the iteration. Theirs came from torch's global generator, which also drew the initial
weights and the windows of every estimate of the loss. Here all of them are drawn in their order, so the losses are
theirs until rounding makes a difference. They trained in bfloat16 on a GPU, so this goes once in float32 and once in
bfloat16, on a CPU, and both again with another order of batches. Only capitals can be replayed, because the lines of
the other datasets are shuffled differently. Writes results/replay.csv, columns batches, dtype, iter, train_loss and
val_loss, which paper/authors.py draws. It takes some minutes.
"""

import sys
from itertools import product
from pathlib import Path

REPO = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(REPO))
from common.arguments import argument_parser
from common.errors import report_errors

if __name__ == '__main__':
    report_errors()  # before the imports that fail without the environment
import pandas as pd
import torch
from torch.nn import functional as F

from common.dataset import load_dataset
from common.files import write_file
from model import GPT, GPTConfig
from train_with_eval import get_lr  # with the defaults, which are the paper's


def replay(ids, vocab_size, n_embd=14, dtype='float32', order_seed=None, max_iters=2500):
    """Train on the authors' batches. Yields (iteration, training loss, validation loss) every 250 iterations, in nats.

    ids: the text of facts_char, 1-D. order_seed: of another order of batches, which begins after the weights have been
    drawn. Both losses are estimates on this text, as theirs are, from 100 batches each.
    """
    torch.manual_seed(1337)
    model = GPT(GPTConfig(24, vocab_size, n_layer=1, n_head=1, n_embd=n_embd, bias=False, mlp_expansion=1))
    optimizer = model.configure_optimizers(0.0, get_lr(0), (0.9, 0.99), 'cpu')
    windows = torch.tensor(ids.astype('int64')).unfold(0, 25, 1)
    autocast = torch.autocast('cpu', dtype=getattr(torch, dtype), enabled=dtype != 'float32')
    if order_seed is not None:
        torch.manual_seed(order_seed)

    def get_batch():
        return windows[torch.randint(len(windows), (576,))]

    def estimate_loss():
        with torch.no_grad(), autocast:  # each window once, because its loss is the same in every batch
            logits, _ = model(windows[:, :-1], windows[:, 1:])
        losses = F.cross_entropy(logits.float().transpose(1, 2), windows[:, 1:], reduction='none').mean(dim=1)
        return losses[torch.randint(len(windows), (100, 576))].mean().item()

    batch = get_batch()  # they draw one batch ahead, so the first one comes before the first estimate
    for iter_num in range(max_iters + 1):
        if iter_num % 250 == 0:
            yield iter_num, estimate_loss(), estimate_loss()
        for group in optimizer.param_groups:
            group['lr'] = get_lr(iter_num)
        with autocast:
            _, loss = model(batch[:, :-1], batch[:, 1:])
        loss.backward()
        batch = get_batch()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == '__main__':
    argument_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    meta, ids, _ = load_dataset('facts_char', 24)
    rows = []
    for (batches, order_seed), dtype in product((('theirs', None), ('other', 1)), ('float32', 'bfloat16')):
        for row in replay(ids, meta.tokenizer.vocab_size, dtype=dtype, order_seed=order_seed):
            rows.append((batches, dtype, *row))
            print(f'{batches} batches, {dtype}, iter {row[0]}: train loss {row[1]:.5f}, val loss {row[2]:.5f}',
                  flush=True)
    table = pd.DataFrame(rows, columns=['batches', 'dtype', 'iter', 'train_loss', 'val_loss'])
    write_file(REPO / 'results/replay.csv', table.to_csv(index=False, float_format='%.6f'))
