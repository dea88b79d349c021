"""
Weights & Biases, for --wandb_log=True. Optional (pip install wandb), so it is imported only if it is used.
"""

import os

from common.errors import UserError, one_line


def start_wandb(project, entity, name, out_dir, config, run_id):
    """Start wandb's run for a model folder, or resume its run with this run_id. Returns wandb's run."""
    try:
        import wandb
    except ImportError as e:
        raise UserError(f"wandb_log needs wandb, which cannot be imported ({one_line(e)}): pip install wandb, or leave it off")
    try:
        return wandb.init(project=project, entity=entity or None, name=name or os.path.basename(out_dir), dir=out_dir,
                          config=config, id=run_id, resume='allow')
    except wandb.Error as e:
        raise UserError(f"wandb cannot start a run ({one_line(e)}): log in with `wandb login`, set WANDB_MODE=offline, or "
                        "leave wandb_log off")
