"""Weights & Biases, for --wandb_log=True. Optional (pip install wandb), so it is imported only if it is used."""

import os

from common.errors import explained


def import_wandb():
    with explained("wandb_log needs wandb, which cannot be imported ({}): pip install wandb, or omit "
                   "--wandb_log", ImportError):
        import wandb
    return wandb


def start_wandb(config, run_id):
    """Start wandb's run for a model folder, or resume the one of run_id; returns it."""
    wandb = import_wandb()
    with explained("wandb cannot start a run ({}): log in with `wandb login`, set WANDB_MODE=offline, or omit "
                   "--wandb_log", wandb.Error):
        return wandb.init(
            project=config['wandb_project'], entity=config['wandb_entity'] or None, dir=config['out_dir'],
            name=config['wandb_run_name'] or os.path.basename(config['out_dir']), config=config, id=run_id,
            resume='allow')
