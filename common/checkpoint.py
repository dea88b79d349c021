"""
Checkpoints of the nanoGPT family: find and load one, build its model, decide whether its run may go on, keep the best.

Nothing in a checkpoint is executed.
"""

import os
import re
import warnings
from pathlib import Path

import pandas as pd
import torch

from common.dataset import find_meta, load_meta
from common.errors import UserError, explained, say
from common.results import check_rows, samples_right
from common.sweeps import seed_folders
from common.tokenizer import vocabulary_files
from model import GPT, GPTConfig

# In a sweep, settings that may differ from those with which a run began: where it runs, how long, and what it shows
MAY_DIFFER = {'out_dir', 'init_from', 'max_iters', 'log_interval', 'device', 'fused', 'compile', 'num_threads',
              'backend', 'wandb_log', 'wandb_project', 'wandb_entity', 'wandb_run_name'}
# model_args that only change the speed
HARMLESS = {'flash_attn', 'flash_attention', 'use_flash', 'flash', 'use_flash_attn'}


def load_checkpoint(path, to_resume=False):
    """Read a checkpoint dict of the nanoGPT family onto the CPU. to_resume: it must hold what a run needs to go on.

    Other code of the family writes a prefix _orig_mod. (torch.compile) or module. (DDP), the causal mask among the
    weights, and model_args without mlp_expansion.
    """
    checkpoint = read_checkpoint(path)
    check_checkpoint(checkpoint, path, to_resume)
    with explained(f"{path} is not one of our GPTs: {{}}"):
        state = {re.sub(r'^(_orig_mod\.|module\.)+', '', key): value for key, value in checkpoint['model'].items()}
        checkpoint['model'] = {key: value for key, value in state.items() if not key.endswith('.attn.bias')}  # the mask
        if 'mlp_expansion' not in checkpoint['model_args']:
            hidden, n_embd = state['transformer.h.0.mlp.c_fc.weight'].shape
            checkpoint['model_args']['mlp_expansion'] = hidden // n_embd
    return checkpoint


def read_checkpoint(path):
    """What torch.load makes of a file, with a UserError for everything that it raises."""
    if not os.path.exists(path):
        raise UserError(f"checkpoint {path} not found: train a model first, or name another with --checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # it warns about pickle protocols, in files that are refused anyway
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as e:  # garbage makes torch.load raise nearly anything; its texts run over many lines
        refused = re.search(r'GLOBAL (\S+)', str(e))
        if refused:
            raise UserError(f"checkpoint {path} cannot be read, because it holds {refused[1]}: only tensors, dicts, "
                            "lists, strings and numbers are read, because anything else could execute code")
        raise UserError(f"checkpoint {path} cannot be read ({type(e).__name__}): it is damaged or not a checkpoint")


def check_checkpoint(checkpoint, path, to_resume):
    """Raise UserError if a checkpoint lacks what a model needs, or to_resume, a run; or if that makes no sense."""
    needed = ('model', 'model_args') + ('optimizer', 'iter_num', 'best_val_loss', 'config') * to_resume
    missing = [key for key in needed if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        what = "checkpoint that can be resumed" if to_resume else "checkpoint of the nanoGPT family"
        raise UserError(f"{path} is not a {what}: it has no {missing[0]!r}")
    types = {'iter_num': int, 'config': dict, 'rows': list, 'best_acc': dict} if to_resume else {}
    wrong = [key for key in types if key in checkpoint and not isinstance(checkpoint[key], types[key])]
    if wrong or to_resume and checkpoint['iter_num'] < 0:
        raise UserError(f"{path} is damaged: its {(wrong or ['iter_num'])[0]} makes no sense, so start again")
    if to_resume and checkpoint.get('rows'):
        with explained(f"{path} is damaged, and its rows cannot be used ({{}}): start again"):
            check_rows(pd.DataFrame(checkpoint['rows']))


def build_model(**args):
    with explained("cannot build the model: {}", TypeError, ValueError, RuntimeError, MemoryError):
        return GPT(GPTConfig(**args))


def model_from_checkpoint(checkpoint, path, dropout=None):
    """The GPT of a checkpoint dict, in eval mode on the CPU. path: for messages. dropout: replaces its own."""
    state, args = checkpoint['model'], {k: v for k, v in checkpoint['model_args'].items() if k not in HARMLESS}
    with explained(f"{path} is not one of our GPTs: {{}}"):
        for key in sorted(args.keys() - GPTConfig.__dataclass_fields__.keys()):
            raise ValueError(f"its model_args have {key}={args[key]!r}, which is unknown here")
        if f"transformer.h.{args['n_layer'] - 1}.ln_1.weight" not in state:  # before so many layers are built
            raise ValueError(f"it has fewer layers than n_layer={args['n_layer']}")
        model = GPT(GPTConfig(**args if dropout is None else {**args, 'dropout': dropout}))
        shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
        for key in [*shapes, *state]:  # torch's own message begins with a line that does not say what is wrong
            if key not in state or key not in shapes or state[key].shape != shapes[key]:
                problem = 'missing' if key not in state else 'unknown' if key not in shapes else 'of another shape'
                raise ValueError(f"{key} is {problem}")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
            raise ValueError("its weights are not finite (NaN), because its training has diverged")
        if not torch.equal(state['lm_head.weight'], state['transformer.wte.weight']):
            raise ValueError("lm_head.weight and transformer.wte.weight differ, but here they must be one (tied)")
        model.load_state_dict(state)
    return model.eval()


def find_checkpoint(out_dir, names):
    """The first of the checkpoint files `names` that the model folder out_dir has."""
    out_dir = Path(out_dir)
    if not os.path.isdir(out_dir):
        raise UserError(f"model folder {out_dir} not found: name another with --out_dir=FOLDER, or train a model there")
    for name in names:
        if (out_dir / name).exists():
            return out_dir / name
    for run in (run for config in [out_dir, *sorted(out_dir.iterdir())] for run in seed_folders(config).values()):
        raise UserError(f"{out_dir} holds several runs: choose one, e.g. --out_dir={run}")
    raise UserError(f"no {' or '.join(names)} in {out_dir}: train a model there, or name another with --checkpoint")


def check_vocabulary(model, tokenizer, path, source, remedy):
    """Raise UserError with a remedy if the model of `path` and the tokenizer of `source` do not fit."""
    size = model.config.vocab_size  # GPT-2's vocabulary may be padded in the model, a dataset's may not
    if tokenizer.vocab_size > size or (tokenizer.vocab_size < size and not tokenizer.bpe):
        source = "GPT-2's encoding" if tokenizer.bpe else source
        raise UserError(f"{path} has a vocabulary of {size}, but {source} one of {tokenizer.vocab_size}: {remedy}")


def load_model(out_dir, names):
    """(model, Meta, path, settings) of the first checkpoint among `names` in a model folder; settings have iter_num.

    The vocabulary and the questions are those of the folder's meta.pkl, which training puts there, or of its dataset's.
    """
    path = find_checkpoint(out_dir, names)
    checkpoint = load_checkpoint(path)
    model = model_from_checkpoint(checkpoint, path)
    settings = {**(checkpoint.get('config') or {}), 'iter_num': int(checkpoint.get('iter_num', 0))}
    meta_path = Path(out_dir) / 'meta.pkl'
    if not meta_path.exists() and not vocabulary_files(out_dir):
        if not isinstance(settings.get('dataset'), str):
            raise UserError(f"{path} does not name its dataset: copy that dataset's meta.pkl into {out_dir}")
        meta_path = find_meta(settings['dataset'])
    meta = load_meta(meta_path, out_dir)
    check_vocabulary(model, meta.tokenizer, path, meta_path, "run prepare.py with the options of the training")
    return model, meta, path, settings


def check_resumable(checkpoint, path, config, data_sha256, in_sweep=False):
    """Raise UserError if a run cannot be resumed with the settings `config` on this text, and print what has changed.

    in_sweep: all settings but MAY_DIFFER must be the same, because the runs of a sweep are compared; prints nothing.
    """
    other = "choose another --name for the sweep" if in_sweep else "start again in another out_dir"
    if checkpoint['iter_num'] > config['max_iters']:
        raise UserError(f"{path} is at iteration {checkpoint['iter_num']} already: choose a larger --max_iters, or "
                        f"{other}")
    before = {**checkpoint['config'], **checkpoint['model_args'], 'dropout': checkpoint['config'].get('dropout', 0.0)}
    may_differ = MAY_DIFFER if in_sweep else ('out_dir', 'init_from', 'eval_only')
    for key in [key for key in config if key in before and before[key] != config[key] and key not in may_differ]:
        if in_sweep or key == 'dataset' or key in checkpoint['model_args'] and key != 'dropout':
            raise UserError(f"{path} was trained with {key}={before[key]!r}, not {config[key]!r}: resume with the "
                            f"same, or {other}")
        say(f"resuming with {key}={config[key]!r} (was {before[key]!r})")
    if checkpoint.get('data_sha256', data_sha256) != data_sha256:
        raise UserError(f"{path} was trained on another text: run the prepare.py of data/{config['dataset']} with the "
                        f"options of that time, or {other}")


def load_optimizer(optimizer, checkpoint, path):
    """Load the optimizer's state from a checkpoint; its settings stay, because they may have been given anew."""
    settings = [{key: value for key, value in group.items() if key != 'params'} for group in optimizer.param_groups]
    with explained(f"{path} cannot be resumed, because its optimizer does not fit the model: {{}}",
                   AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        optimizer.load_state_dict(checkpoint['optimizer'])
        for group, group_settings in zip(optimizer.param_groups, settings):
            group.update(group_settings)
            for p in group['params'] if checkpoint['iter_num'] > 0 else []:
                if any(optimizer.state[p][key].shape != p.shape for key in ('exp_avg', 'exp_avg_sq')):
                    raise ValueError("its moments are of another shape")


def update_best(best, row):
    """Put an evaluation's row of results.csv into `best`; returns the checkpoints for which it is the best so far.

    best: the lowest 'val_loss', and the highest accuracies of 'math', 'facts' and 'combined' (of all samples, as in the
    paper). Of equal ones, that with the higher mean probability of the right answers ('math_prob', ...) is better.
    """
    scores = {kind: (row[f'{kind}_acc'], row[f'{kind}_prob']) for kind in ('math', 'facts')}
    math, facts = row['math_total'], row['facts_total']
    if math and facts:
        prob = (row['math_prob'] * math + row['facts_prob'] * facts) / (math + facts)
        scores['combined'] = float(samples_right(row) / (math + facts)), float(prob)
    improved = []
    for kind, (acc, prob) in scores.items():
        if acc > 0 and (acc, prob) > (best[kind], best.get(f'{kind}_prob', 0.0)):
            best |= {kind: acc, f'{kind}_prob': prob}
            improved.append(f'ckpt_best_{kind}.pt')
    if row['val_loss'] < best['val_loss']:
        best['val_loss'] = row['val_loss']
        improved.append('ckpt.pt')
    return improved
