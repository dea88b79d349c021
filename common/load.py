"""The model that an evaluation script evaluates: from a model folder, or GPT-2."""

from common.checkpoint import load_model
from common.device import pick_device
from common.errors import UserError, printable
from common.gpt2 import load_pretrained


def load_evaluated(out_dir, init_from, checkpoint, device, kind):
    """(model, Meta, path, of_run, terminated, title) of what an evaluation script's settings name.

    Without a checkpoint, it is the best of the kind, 'math' or 'facts', else ckpt.pt. The Meta has the questions of
    this kind alone. path: of the checkpoint, or GPT-2's name. of_run: the num_samples, temperature and top_k with which
    it was trained, as far as they are known. terminated: False for GPT-2, which cannot know how our lines end.
    """
    if bool(out_dir) == bool(init_from):
        raise UserError("name the model folder with --out_dir=FOLDER, or GPT-2 with --init_from=gpt2")
    if init_from and checkpoint:
        raise UserError("--checkpoint names a file in a model folder, so use it with --out_dir")
    if init_from:
        (model, meta), path, settings = load_pretrained(init_from), init_from, {}
    else:
        names = [checkpoint] if checkpoint else [f'ckpt_best_{kind}.pt', 'ckpt.pt']
        model, meta, path, settings = load_model(out_dir, names)
    questions = [q for q in meta.questions if q.kind == kind]
    if not meta.questions:
        raise UserError(f"the dataset of {path} has no questions: try sample.py")
    if not questions:
        name, other = ('arithmetic', 'eval_capitals.py') if kind == 'math' else ('facts', 'eval_as_math.py')
        raise UserError(f"the dataset of {path} has no questions that are scored as {name}: try {other}")
    model.to(pick_device(device, model.config.n_embd))
    of_run = {key: settings[key] for key in ('num_samples', 'temperature', 'top_k') if key in settings}
    title = printable(path) + (f", iteration {settings['iter_num']:,}" if 'iter_num' in settings else '')
    return model, meta._replace(questions=questions), path, of_run, not (init_from and meta.tokenizer.bpe), title
