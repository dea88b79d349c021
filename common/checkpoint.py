"""
Checkpoints of the nanoGPT family: load them safely, build a model from one, and find the right one in a model folder.

Nothing in a checkpoint is executed. There is nothing to run here.
"""

import re
import warnings
from pathlib import Path

import torch

from common.dataset import find_meta, load_meta
from common.errors import UserError, one_line, say
from common.tokenizer import GPT2_VOCABULARY
from model import GPT, GPTConfig

# Settings that may change when a run is resumed: where it runs, how long, and what it shows
PLACE = {'out_dir', 'init_from', 'seed', 'max_iters', 'eval_only', 'log_interval', 'device', 'compile', 'num_threads',
         'backend', 'wandb_log', 'wandb_project', 'wandb_entity', 'wandb_run_name'}
HARMLESS = {'flash_attn', 'flash_attention', 'use_flash', 'flash', 'use_flash_attn'}  # these model_args only change the speed


def load_checkpoint(path, to_resume=False):
    """Read a checkpoint dict of the nanoGPT family onto the CPU; raises UserError if it is not one.

    Accepts what other code of the family writes: a prefix _orig_mod. (torch.compile) or module. (DDP), the causal mask among
    the weights, and model_args without mlp_expansion. to_resume: whether it must hold what a run needs to go on.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"checkpoint {path} not found: train a model first, or name another with --checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # it warns about pickle protocols, in files that are refused anyway
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as e:  # garbage makes torch.load raise nearly anything; its texts run over many lines
        refused = re.search(r'GLOBAL (\S+)', str(e))
        if refused:
            raise UserError(f"checkpoint {path} cannot be read, because it holds {refused[1]}: only tensors, dicts, lists, "
                            "strings and numbers are read, because anything else could execute code")
        raise UserError(f"checkpoint {path} cannot be read ({type(e).__name__}): it is damaged or not a checkpoint")
    needed = ('model', 'model_args') + ('optimizer', 'iter_num', 'best_val_loss', 'config') * to_resume
    missing = [key for key in needed if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        kind = "checkpoint that can be resumed" if to_resume else "checkpoint of the nanoGPT family"
        raise UserError(f"{path} is not a {kind}: it has no {missing[0]!r}")
    try:
        state = {re.sub(r'^(_orig_mod\.|module\.)+', '', key): value for key, value in checkpoint['model'].items()}
        checkpoint['model'] = {key: value for key, value in state.items() if not key.endswith('.attn.bias')}  # the mask
        if 'mlp_expansion' not in checkpoint['model_args']:
            hidden, n_embd = state['transformer.h.0.mlp.c_fc.weight'].shape
            checkpoint['model_args']['mlp_expansion'] = hidden // n_embd
    except (TypeError, KeyError, AttributeError, ValueError) as e:
        raise UserError(f"{path} holds no GPT that can be built: {one_line(e)}")
    return checkpoint


def build_model(**args):
    """A GPT of this shape, with random weights; raises UserError if the shape is impossible or the memory is too small."""
    try:
        return GPT(GPTConfig(**args))
    except (ValueError, RuntimeError, MemoryError) as e:
        raise UserError(f"cannot build the model: {one_line(e)}")


def model_from_checkpoint(checkpoint, path='the checkpoint', dropout=None):
    """Build the GPT of a checkpoint dict and load its weights; returns it in eval mode on the CPU.

    dropout: replaces the checkpoint's. Raises UserError if it is not one of our GPTs, or its weights are not finite.
    """
    try:
        state, args = checkpoint['model'], {k: v for k, v in checkpoint['model_args'].items() if k not in HARMLESS}
        unknown = sorted(args.keys() - GPTConfig.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(f"its model_args have {unknown[0]}={args[unknown[0]]!r}, which is unknown here")
        model = GPT(GPTConfig(**args if dropout is None else {**args, 'dropout': dropout}))
        report = model.load_state_dict(state, strict=False)
        for key in [*report.missing_keys, *report.unexpected_keys]:
            raise ValueError(f"{key} is {'missing' if key in report.missing_keys else 'unknown'}")
        if not torch.equal(state['lm_head.weight'], state['transformer.wte.weight']):
            raise ValueError("lm_head.weight and transformer.wte.weight differ, but here they must be one (tied)")
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as e:
        reason = str(e).split('\n\t')[1] if '\n\t' in str(e) else one_line(e)  # torch's second line says which shape differs
        raise UserError(f"{path} holds no GPT that can be built: {reason}")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise UserError(f"{path} has weights that are not finite (NaN): its training has diverged, so it cannot answer")
    return model.eval()


def find_checkpoint(out_dir, names):
    """The first of the checkpoint files `names` that the model folder out_dir has."""
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        raise UserError(f"model folder {out_dir} not found: check its name, or train it with train_with_eval.py first")
    for name in names:
        if (out_dir / name).exists():
            return out_dir / name
    raise UserError(f"no {' or '.join(names)} in {out_dir}: train it first, or name another with --checkpoint")


def check_vocabulary(model, tokenizer, path, source, remedy):
    """Raise UserError with a remedy if the model of `path` and the tokenizer of `source` do not fit."""
    size = model.config.vocab_size  # GPT-2's vocabulary may be padded in the model, a dataset's own may not
    if tokenizer.vocab_size > size or (tokenizer.vocab_size < size and not tokenizer.bpe):
        source = "GPT-2's encoding" if tokenizer.bpe else source
        raise UserError(f"{path} has a vocabulary of {size}, but {source} one of {tokenizer.vocab_size}: {remedy}")


def load_model(out_dir, names):
    """(model, Meta, path, config) of the first checkpoint among `names` in a model folder; config has its run's settings.

    The vocabulary and the questions are those of the folder's own meta.pkl, which training puts there, or of its dataset's.
    """
    path = find_checkpoint(out_dir, names)
    checkpoint = load_checkpoint(path)
    model = model_from_checkpoint(checkpoint, path)
    config = checkpoint.get('config') or {}
    meta_path = Path(out_dir) / 'meta.pkl'
    if not meta_path.exists() and not (Path(out_dir) / GPT2_VOCABULARY[0]).exists():
        if not isinstance(config.get('dataset'), str):
            raise UserError(f"{path} does not say its dataset (config['dataset']): put that dataset's meta.pkl into {out_dir}")
        meta_path = find_meta(config['dataset'])
    meta = load_meta(meta_path, out_dir)
    check_vocabulary(model, meta.tokenizer, path, meta_path, "prepare the data that the model was trained on")
    return model, meta, path, config


def changed_settings(before, config):
    """The settings that have changed since a run began, except those in PLACE: list of str."""
    return [key for key in config if key in before and before[key] != config[key] and key not in PLACE]


def check_resumable(checkpoint, path, config):
    """Raise UserError if a run cannot be resumed with the settings `config`, and print those that have changed."""
    if checkpoint['iter_num'] > config['max_iters']:
        raise UserError(f"{path} is at iteration {checkpoint['iter_num']} already: resume with a larger --max_iters")
    before = {**checkpoint['config'], **checkpoint['model_args'], 'dropout': checkpoint['config'].get('dropout', 0.0)}
    for key in changed_settings(before, config):
        if key == 'dataset' or key in checkpoint['model_args'] and key != 'dropout':
            raise UserError(f"{path} was trained with {key}={before[key]!r}, not {config[key]!r}: resume with the same, or "
                            "start again in another out_dir")
        say(f"resuming with {key}={config[key]!r} (was {before[key]!r})")


def load_optimizer(optimizer, checkpoint, path, weight_decay, betas):
    """Load the optimizer's state from a checkpoint, except the settings that may have changed."""
    try:
        optimizer.load_state_dict(checkpoint['optimizer'])
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} cannot be resumed, because its optimizer does not fit the model: {one_line(e)}")
    for group, decay in zip(optimizer.param_groups, (weight_decay, 0.0)):
        group['weight_decay'], group['betas'] = decay, betas


def update_best(best, row):
    """Put an evaluation's row of results.csv into `best`; returns the names of the checkpoints for which it is the best so far.

    best: dict of 'val_loss', and the accuracies of 'math', 'facts' and 'combined', the mean of the two if neither is 0.
    """
    now = {'math': row['math_acc'], 'facts': row['facts_acc'], 'combined': (row['math_acc'] + row['facts_acc']) / 2}
    now['combined'] *= min(now['math'], now['facts']) > 0
    improved = [f'ckpt_best_{task}.pt' for task, acc in now.items() if acc > best[task]]
    improved += ['ckpt.pt'] * (row['val_loss'] < best['val_loss'])
    best.update({task: max(best[task], acc) for task, acc in now.items()}, val_loss=min(best['val_loss'], row['val_loss']))
    return improved
