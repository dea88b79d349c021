"""The training step of a tiny GPT on a CPU, in C++ (fused_step.cpp), because PyTorch's is many times slower.

    if supports(model.config, 'cpu', 'float32', batch_size):
        step = FusedStep(model, optimizer, n_threads=1)  # RuntimeError if there is no C++ compiler
        loss = step.gradients(ids, starts)  # instead of the forward and backward pass: fills every p.grad
        step.update(lr, grad_clip)  # instead of clip_grad_norm_ and optimizer.step()

The gradients are in p.grad and the moments in optimizer.state, where PyTorch has them, so that either step can go on
where the other stopped, and processes can share their gradients in between.
"""

import ctypes
import weakref

import numpy as np
import torch

from common.errors import UserError, say
from fused.compile_cpp import build

MAX_WIDTH, MAX_EXPANSION = 96, 4  # wider models gain less and less over the compiled step, see dev/LOG.md
MAX_BLOCK = 64  # every lane of a register has its own activations, so large models need much memory
MAX_TABLE = 64 * 66  # pairs of a position and a token, for which q, k and v are computed: more need much memory, too
MAX_SORTED = 1_000_000  # longer texts are not sorted: it takes seconds, and their windows seldom begin alike


def can_compute(config):
    """Whether the step has the formulas for this model, and memory."""
    return (config.dropout == 0 and not config.bias and config.activation == 'gelu' and config.n_embd <= MAX_WIDTH
            and config.mlp_expansion <= MAX_EXPANSION and config.block_size <= MAX_BLOCK
            and config.vocab_size * config.block_size <= MAX_TABLE)


def supports(config, device, dtype, batch_size):
    """Whether the step can compute this model, and is faster than PyTorch. batch_size: windows of a process."""
    return (device == 'cpu' and dtype == 'float32' and can_compute(config)
            # the table of all pairs must not outweigh the windows
            and (config.n_embd <= 32 or batch_size >= config.vocab_size))


def sort_windows(text, size):
    """The windows of a text, sorted: where each different one first starts, and each start's place in that; int64.

    Those of a long text stay as they are.
    """
    windows = np.lib.stride_tricks.sliding_window_view(text, size)
    if len(text) > MAX_SORTED:
        return (np.arange(len(windows), dtype=np.int64),) * 2
    as_bytes = windows.astype('>u4').view(f'V{4 * size}')[:, 0]  # with high bytes first they are sorted as ids
    _, first, place = np.unique(as_bytes, return_index=True, return_inverse=True)
    return first.astype(np.int64), place.astype(np.int64)


class FusedStep:
    """The steps of one model with one optimizer, that of model.configure_optimizers.

    n_threads: more than four are not used. A process that is forked after a step with several cannot take another step.
    Raises ValueError if the model is not one that can_compute allows, and RuntimeError without a compiler or memory.
    """

    def __init__(self, model, optimizer, n_threads):
        if n_threads < 1:
            raise ValueError(f"the fused step needs at least one thread, not {n_threads}")
        c = model.config
        if not can_compute(c):
            raise ValueError("the fused step cannot compute this model: see can_compute")
        self.params, self.optimizer, self.config = list(model.parameters()), optimizer, c
        self.sizes = (ctypes.c_int64 * len(self.params))(*[p.numel() for p in self.params])
        self.ids, self.checked = object(), {}
        for p in self.params:
            if not optimizer.state[p]:  # as AdamW makes it in its first step
                optimizer.state[p].update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(p),
                                          exp_avg_sq=torch.zeros_like(p))
        self.library = ctypes.CDLL(build())
        self.library.step_new.restype, self.library.step_gradients.restype = ctypes.c_void_p, ctypes.c_float
        self.library.step_has_threads.restype = ctypes.c_bool
        shape = (ctypes.c_int * 6)(c.n_layer, c.n_head, c.n_embd, c.mlp_expansion * c.n_embd, c.block_size,
                                   c.vocab_size)
        if sum(self.sizes) != self.library.step_parameters(shape):
            raise ValueError(f"the fused step cannot compute a model that has {sum(self.sizes)} parameters and not "
                             f"{self.library.step_parameters(shape)}")
        self.handle = ctypes.c_void_p(self.library.step_new(shape, n_threads))
        if not self.handle:
            raise RuntimeError("there is not enough memory for the training step in C++")
        weakref.finalize(self, self.library.step_delete, self.handle)

    def pointers(self, name, tensors):
        """The addresses of one tensor for each parameter, which are checked if they are not those of the last time."""
        places = [(t.data_ptr(), t.dtype, t.shape, t.stride()) if t is not None else None for t in tensors]
        checked, array = self.checked.get(name, (None, None))
        if places != checked:
            sizes = [1] * len(tensors) if name == 'step' else self.sizes
            if not all(t is not None and t.dtype == torch.float32 and t.device.type == 'cpu' and t.is_contiguous()
                       and t.numel() == size for t, size in zip(tensors, sizes)):
                raise ValueError(f"the fused step needs every {name} as a contiguous float32 tensor on the CPU")
            array = (ctypes.c_void_p * len(places))(*[place[0] for place in places])
            self.checked[name] = places, array
        return array

    def gradients(self, ids, starts):
        """Fill every p.grad with the gradient of the mean loss of windows of a text; returns the loss.

        ids: (n,) whole numbers, the text. It is copied when it is first given, so it must not change afterwards.
        starts: (N,) int64, where in it windows of block_size ids and their targets begin. Equal windows are computed
        once, with more weight. Raises ValueError if the input is not that.
        """
        if ids is not self.ids:
            text = np.array(np.asarray(ids))  # a copy, so that nobody changes what has been checked
            c = self.config
            if text.dtype.kind not in 'iu' or text.ndim != 1 or len(text) <= c.block_size or (
                    text.min() < 0 or text.max() >= c.vocab_size):
                raise ValueError(f"ids must be more than {c.block_size} whole numbers from 0 to {c.vocab_size - 1}")
            self.first, self.place = sort_windows(text, c.block_size + 1)
            self.ids, self.text = ids, text.astype(np.int64)  # checked and sorted once, because that takes long
        starts = np.asarray(starts)
        if starts.dtype != np.int64 or starts.ndim != 1 or not len(starts):
            raise ValueError("starts must be an int64 vector that is not empty")
        if starts.min() < 0 or starts.max() >= len(self.place):
            raise ValueError(f"windows must lie in the text, but they start at {starts.min()} to {starts.max()}")
        places, counts = np.unique(self.place[starts], return_counts=True)
        first, weights = self.first[places], (counts / len(starts)).astype(np.float32)
        for p in self.params:
            if p.grad is None:
                p.grad = torch.empty_like(p)
        return self.library.step_gradients(
            self.handle, len(self.params), self.sizes, self.pointers('parameter', self.params),
            self.pointers('gradient', [p.grad for p in self.params]), ctypes.c_void_p(self.text.ctypes.data),
            ctypes.c_void_p(first.ctypes.data), ctypes.c_void_p(weights.ctypes.data), len(first))

    def update(self, lr, grad_clip):
        """Clip the gradients' norm to grad_clip, never if it is 0, and take AdamW's step at learning rate lr."""
        groups = self.optimizer.param_groups
        for group in groups:
            group['lr'] = lr
        decay_of = {p: group['weight_decay'] for group in groups for p in group['params']}
        (beta1, beta2), eps = groups[0]['betas'], groups[0]['eps']
        decay = (ctypes.c_double * len(self.params))(*[decay_of[p] for p in self.params])
        state = [self.optimizer.state[p] for p in self.params]
        self.library.step_update(
            len(self.params), self.sizes, self.pointers('parameter', self.params),
            self.pointers('gradient', [p.grad for p in self.params]),
            *[self.pointers(name, [s[name] for s in state]) for name in ('exp_avg', 'exp_avg_sq', 'step')], decay,
            *[ctypes.c_double(x) for x in (lr, beta1, beta2, eps, grad_clip)])


def load_fused_step(fused, model, optimizer, device, dtype, batch_size, n_threads):
    """The training step in C++ for this model, or None for nanoGPT's. fused: 'auto', 'True' or 'False'.

    batch_size: windows of this process in an iteration. Raises UserError if fused is 'True' and the step cannot be had;
    if it is 'auto' and there is no compiler, this prints a sentence and returns None.
    """
    can = supports(model.config, device, dtype, batch_size)
    if fused == 'True' and not can:
        raise UserError("fused=True is for small float32 models on a CPU, without dropout and biases: omit it")
    if fused == 'False' or not can:
        return None
    try:
        step = FusedStep(model, optimizer, n_threads)
        if n_threads > 1 and not step.library.step_has_threads():
            say("the C++ compiler has no OpenMP, so the training step computes on one thread")
        return step
    except RuntimeError as e:
        if fused == 'True':
            raise UserError(str(e))
        say(f"{e}; training with torch, which is slower")
        return None
