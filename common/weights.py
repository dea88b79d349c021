"""
The weights of a run at its full evaluations: weights.bin in a model folder, if training is asked to keep them.

It has a record for each evaluation: its iteration as int64, then all parameters as float32 in the order of
model.parameters().
"""

import os
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError, explained
from common.files import append_file, size_of

WEIGHTS = 'weights.bin'


def record_of(model):
    return np.dtype([('iter', '<i8'), ('weights', '<f4', (sum(p.numel() for p in model.parameters()),))])


def flat_weights(model):
    """All parameters of a model in one float32 array."""
    return torch.cat([p.detach().flatten() for p in model.parameters()]).float().cpu().numpy()


def append_weights(iter_num, model, out_dir):
    append_file(os.path.join(out_dir, WEIGHTS), np.array([(iter_num, flat_weights(model))], record_of(model)).tobytes())


def read_weights(folder, model):
    """The records of a model folder, memory-mapped; none if the run kept no weights."""
    path, record = Path(folder) / WEIGHTS, record_of(model)
    n = size_of(path) // record.itemsize
    if not n:
        return np.empty(0, record)
    with explained(f"{path} cannot be read: {{}}", OSError):
        records = np.memmap(path, record, 'r', shape=n)
    if (records['iter'] < 0).any() or (np.diff(records['iter']) < 0).any():
        raise UserError(f"{path} does not hold the weights of this model: delete it, or put it back into its folder")
    return records
