"""
The model that an evaluation script evaluates: from a model folder, or GPT-2.
"""

from pathlib import Path
from typing import NamedTuple

from common.checkpoint import load_model
from common.dataset import Meta
from common.device import pick_device
from common.errors import UserError, printable
from common.gpt2 import load_pretrained
from model import GPT


class Evaluated(NamedTuple):
    model: GPT
    meta: Meta  # its questions are those of one kind
    path: Path | str  # the checkpoint, or GPT-2's name
    sampling: dict  # num_samples, temperature and top_k of its run, as far as they are known
    knows_terminator: bool  # whether it can know how our lines end: OpenAI's GPT-2 cannot
    title: str  # its path, and its iteration if that is known


def load_evaluated(out_dir, init_from, checkpoint, device, kind):
    """The model that the settings of an evaluation script name, and its questions of a kind ('math' or 'facts').

    Without a checkpoint, the best of this kind is taken, else ckpt.pt. Raises UserError if there is no such model or
    question.
    """
    if bool(out_dir) == bool(init_from):
        raise UserError("name the model folder with --out_dir=FOLDER, or GPT-2 with --init_from=gpt2")
    if init_from and checkpoint:
        raise UserError("--checkpoint names a file in a model folder, so use it with --out_dir")
    if init_from:
        (model, meta), path, config = load_pretrained(init_from), init_from, {}
    else:
        names = [checkpoint] if checkpoint else [f'ckpt_best_{kind}.pt', 'ckpt.pt']
        model, meta, path, config = load_model(out_dir, names)
    questions = [q for q in meta.questions if q.kind == kind]
    if not meta.questions:
        raise UserError(f"the dataset of {path} has no questions: try sample.py")
    if not questions:
        what, other = ('number', 'eval_capitals.py') if kind == 'math' else ('text', 'eval_as_math.py')
        raise UserError(f"the dataset of {path} has no question whose answer is a {what}: try {other}")
    model.to(pick_device(device, model.config.n_embd))
    sampling = {key: config[key] for key in ('num_samples', 'temperature', 'top_k') if key in config}
    title = printable(path) + (f", iteration {config['iter_num']:,}" if 'iter_num' in config else '')
    knows_terminator = not (init_from and meta.tokenizer.bpe)
    return Evaluated(model, meta._replace(questions=questions), path, sampling, knows_terminator, title)
