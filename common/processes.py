"""torchrun's processes: they train on one batch together, so they must train the same model on the same text."""

import atexit
import hashlib
import os
import sys

import torch

from common.errors import UserError, explained

LOST = "another torchrun process has ended ({}): restart with --init_from=resume if anything was saved"
PER_HOST = {'out_dir', 'init_from', 'device', 'num_threads'}  # settings that may differ between hosts, as may wandb's
exit_codes = []  # of this process; the first one counts


def leave_gloo_behind():
    """From now on what has an exit code ends this process after the exit handlers that are registered from now on.

    Python takes nothing down then: there gloo's threads, which may still be busy, abort one process in twenty. An error
    has an exit code, and leave_together gives one.
    """
    show = sys.excepthook

    def excepthook(kind, error, traceback):
        exit_codes.append(130 if issubclass(kind, KeyboardInterrupt) else 1)
        show(kind, error, traceback)
    sys.excepthook = excepthook
    atexit.register(lambda: exit_codes and os._exit(exit_codes[0]))


def leave_together(code):
    """Wait until all processes have come as far. This one is then about to end, with an exit code."""
    with explained(LOST, RuntimeError):
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    exit_codes.append(code)


def check_same(config, model, **values):
    """Raise UserError, which names what differs, unless all processes have the same settings, weights and values."""
    digest = hashlib.sha256()
    for p in model.parameters():
        digest.update(p.detach().cpu().contiguous().numpy())
    ours = {key: value for key, value in config.items() if key not in PER_HOST and not key.startswith('wandb')}
    ours |= values | {'weights': digest.hexdigest()}
    everyone = [None] * torch.distributed.get_world_size()
    with explained(LOST, RuntimeError):
        torch.distributed.all_gather_object(everyone, ours)
    for rank, theirs in enumerate(everyone):
        for name in (name for name in everyone[0] if theirs.get(name) != everyone[0][name]):
            values = f"{str(everyone[0][name])[:20]} and {str(theirs.get(name))[:20]}"
            raise UserError(f"processes 0 and {rank} differ in {name} ({values}): start all of them with the same "
                            "settings, data and checkpoint")


def all_reduce(tensor, op):
    """torch's all_reduce, with a UserError if the other end is gone, for which gloo and nccl raise RuntimeError."""
    with explained(LOST, RuntimeError):
        torch.distributed.all_reduce(tensor, op)


def all_reduce_gradients(params, world_size):
    """Average the gradients over all processes, in one all-reduce, because each one takes time, however small."""
    flat = torch.cat([p.grad.flatten() for p in params])
    all_reduce(flat, torch.distributed.ReduceOp.SUM)
    for p, grad in zip(params, (flat / world_size).split([p.numel() for p in params])):
        p.grad.copy_(grad.view_as(p))


def all_reduce_max(number, device):
    number = torch.tensor(number, device=device)
    all_reduce(number, torch.distributed.ReduceOp.MAX)
    return int(number)
