"""Where a model runs, in which precision, and what makes one seed give one result."""

import importlib
import os

import torch

from common.cores import usable_cores
from common.errors import UserError, explained, one_line, say
from common.processes import leave_gloo_behind


def pick_device(device, n_embd):
    """'auto' becomes a GPU if there is one and the model is wide enough to gain from it, else cpu."""
    device = device.lower()
    if device == 'auto':
        # it takes longer to launch the kernels of a tiny model than to run them
        gpu = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
        device = gpu if n_embd >= 128 else 'cpu'
    if device == 'cuda':
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # torchrun starts a process for each GPU
    with explained(f"device {device!r} is not available here: omit --device, or use --device=cpu",
                   AssertionError, RuntimeError, ValueError):
        if device.split(':')[0] not in ('cpu', 'cuda', 'mps'):
            raise ValueError(device)
        torch.empty(0, device=device)
    return device


def pick_dtype(dtype, device, n_embd):
    """'auto' becomes bfloat16 for wide models where the hardware computes in it, else float32."""
    if device.startswith('cuda'):
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
        if dtype == 'bfloat16' and not torch.cuda.is_bf16_supported():
            raise UserError("this GPU does not support bfloat16: use --dtype=float32")
    else:  # what other processors and mps do with it has not been measured
        can = torch.cpu.get_capabilities() if device == 'cpu' else {}
        in_hardware = can.get('amx_bf16') or can.get('avx512_bf16')
    if dtype == 'auto':
        return 'bfloat16' if n_embd >= 256 and in_hardware else 'float32'
    return dtype


def compute_init(device, n_embd, num_threads, backend):
    """Set torch up for one process of a training: returns (device, rank, world_size), (device, 0, 1) without torchrun.

    num_threads and backend are train_with_eval.py's settings.
    """
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # for determinism on a GPU, before anything runs there
    rank, world_size, ddp = 0, 1, 'RANK' in os.environ
    if ddp:
        with explained("RANK, WORLD_SIZE or another of torchrun's variables is missing or wrong ({}): start with "
                       "torchrun, or unset RANK", KeyError, ValueError):
            rank, world_size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    device = pick_device(device, n_embd)
    if device.startswith('cuda'):
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    if ddp:
        backend = backend if backend != 'auto' else 'nccl' if 'cuda' in device else 'gloo'
        leave_gloo_behind()
        with explained(f"torchrun's processes cannot communicate over {backend} ({{}}): start with torchrun, and omit "
                       "--backend", RuntimeError, ValueError):
            torch.distributed.init_process_group(backend)
    if device == 'cpu':
        # this is a fixed rule, because sums round differently with another number of threads
        threads = min(torch.get_num_threads(), usable_cores())
        torch.set_num_threads(num_threads or (min(2, threads) if n_embd < 128 else threads))
    make_deterministic()
    return device, rank, world_size


def make_deterministic():
    """From now on one seed gives one result, on one machine."""
    # Deterministic algorithms and AdamW import torch.compile's modules, which make their cache folder. Where it cannot
    # be made, only compiling must fail, so for the import it is one that exists.
    cache_dir = os.environ.get('TORCHINDUCTOR_CACHE_DIR')
    os.environ['TORCHINDUCTOR_CACHE_DIR'] = os.curdir
    importlib.import_module('torch._dynamo')
    if cache_dir is None:
        del os.environ['TORCHINDUCTOR_CACHE_DIR']
    else:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache_dir
    # Without this, parallel threads sum the embedding gradient in varying order, and one seed gives different results.
    # It only warns, because mps has no deterministic embedding. On cuda it warns of attention to long sequences.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # this is for finding bugs, and takes time


def compile_model(model, batch, autocast):
    """torch.compile(model), or the model itself, and a printed sentence, if no compiler works.

    Both passes are compiled here and now on the batch, windows (B, T + 1), because a compiler may exist but fail, e.g.
    without Python headers. Later batches must have the same size.
    """
    try:
        compiled = torch.compile(model)
        with autocast:
            compiled(batch[:, :-1], batch[:, 1:])[1].backward()
    except Exception as e:  # a missing compiler, cache folder or header makes torch raise nearly anything
        file = f": {e.filename}" if getattr(e, 'filename', None) else ''
        say(f"torch.compile failed ({one_line(e)[:100]}{file}): training eagerly, which is slower")
        compiled = model
    model.zero_grad(set_to_none=True)
    return compiled
