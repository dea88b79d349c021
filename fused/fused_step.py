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

INT, DOUBLE, POINTER = ctypes.c_int, ctypes.c_double, ctypes.c_void_p
FUNCTIONS = {  # at the end of fused_step.cpp: what each one returns, and its arguments
    'step_parameters': (INT, [POINTER]),
    'step_has_threads': (ctypes.c_bool, []),
    'step_new': (POINTER, [POINTER, INT]),
    'step_delete': (None, [POINTER]),
    'step_gradients': (ctypes.c_float, [POINTER, INT, *[POINTER] * 6, INT]),
    'step_update': (None, [INT, *[POINTER] * 7, *[DOUBLE] * 5])}


def load_library():
    """The step, compiled if need be. Raises RuntimeError with one sentence if that fails."""
    library = ctypes.CDLL(build())
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


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
    """The windows of a text, sorted: where each different one first starts, and the rank of the window at each start.

    Both are int64. The windows of a long text stay as they are.
    """
    windows = np.lib.stride_tricks.sliding_window_view(text, size)
    if len(text) > MAX_SORTED:
        return (np.arange(len(windows), dtype=np.int64),) * 2
    as_bytes = windows.astype('>u4').view(f'V{4 * size}')[:, 0]  # with high bytes first they are sorted as ids
    _, first_starts, ranks = np.unique(as_bytes, return_index=True, return_inverse=True)
    return first_starts.astype(np.int64), ranks.astype(np.int64)


def count_windows(ranks, n):
    """Which of the n windows of a text a batch has, in order, and how often. ranks: of its windows, int64."""
    if n > 16 * len(ranks):  # so many that to go through all of them would take longer than to sort the batch
        return np.unique(ranks, return_counts=True)
    counts = np.bincount(ranks)
    different = counts.nonzero()[0]
    return different, counts[different]


def read_text(ids, config):
    """A checked copy of a text, as int64, and what sort_windows makes of its windows, which have their targets."""
    text = np.array(np.asarray(ids))
    if text.dtype.kind not in 'iu' or text.ndim != 1 or len(text) <= config.block_size or (
            text.min() < 0 or text.max() >= config.vocab_size):
        raise ValueError(f"ids must be more than {config.block_size} whole numbers from 0 to {config.vocab_size - 1}")
    return text.astype(np.int64), *sort_windows(text, config.block_size + 1)


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
        self.text = None  # of the last call: ids, and what read_text made of them
        self.checked = {}  # of the last call: what the tensors of each kind are, and an array of their addresses
        for p in self.params:
            if not optimizer.state[p]:  # as AdamW makes it in its first step
                optimizer.state[p].update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(p),
                                          exp_avg_sq=torch.zeros_like(p))
        self.library = load_library()
        shape = (INT * 6)(c.n_layer, c.n_head, c.n_embd, c.mlp_expansion * c.n_embd, c.block_size, c.vocab_size)
        n_parameters = self.library.step_parameters(shape)
        if sum(self.sizes) != n_parameters:  # each tensor is copied to where the step expects it
            raise ValueError(f"the fused step cannot compute a model that has {sum(self.sizes)} parameters and not "
                             f"{n_parameters}")
        self.handle = self.library.step_new(shape, n_threads)
        if self.handle is None:
            raise RuntimeError("there is not enough memory for the training step in C++")
        weakref.finalize(self, self.library.step_delete, self.handle)

    def pointers(self, name, tensors):
        """The addresses of one tensor for each parameter. They are checked if they are not those of the last time."""
        layouts = [(t.data_ptr(), t.dtype, t.shape, t.stride()) if t is not None else None for t in tensors]
        checked, array = self.checked.get(name, (None, None))
        if layouts != checked:
            sizes = [1] * len(tensors) if name == 'step' else self.sizes
            if not all(t is not None and t.dtype == torch.float32 and t.device.type == 'cpu' and t.is_contiguous()
                       and t.numel() == size for t, size in zip(tensors, sizes)):
                raise ValueError(f"the fused step needs every {name} as a contiguous float32 tensor on the CPU")
            array = (POINTER * len(tensors))(*[t.data_ptr() for t in tensors])
            self.checked[name] = layouts, array
        return array

    def gradients(self, ids, starts):
        """Fill every p.grad with the gradient of the mean loss of windows of a text; returns the loss.

        ids: (n,) whole numbers, the text. It is copied when it is first given, so it must not change afterwards.
        starts: (N,) int64, where in it windows of block_size ids and their targets begin. Equal windows are computed
        once, with more weight. Raises ValueError if the input is not that.
        """
        if self.text is None or ids is not self.text[0]:
            self.text = ids, *read_text(ids, self.config)  # all at once, in case that this is interrupted
        _, text, first_starts, ranks = self.text
        starts = np.asarray(starts)
        if starts.dtype != np.int64 or starts.ndim != 1 or not len(starts):
            raise ValueError("starts must be an int64 vector that is not empty")
        if starts.min() < 0 or starts.max() >= len(ranks):
            raise ValueError(f"windows must lie in the text, but they start at {starts.min()} to {starts.max()}")
        different, counts = count_windows(ranks[starts], len(first_starts))
        windows, weights = first_starts[different], (counts / len(starts)).astype(np.float32)
        for p in self.params:
            if p.grad is None:
                p.grad = torch.empty_like(p)
        return self.library.step_gradients(
            self.handle, len(self.params), self.sizes, self.pointers('parameter', self.params),
            self.pointers('gradient', [p.grad for p in self.params]),
            *[array.ctypes.data for array in (text, windows, weights)], len(windows))

    def update(self, lr, grad_clip):
        """Clip the gradients' norm to grad_clip, never if it is 0, and take AdamW's step at learning rate lr."""
        groups = self.optimizer.param_groups
        for group in groups:
            group['lr'] = lr
        decay_of = {p: group['weight_decay'] for group in groups for p in group['params']}
        (beta1, beta2), eps = groups[0]['betas'], groups[0]['eps']
        decay = (DOUBLE * len(self.params))(*[decay_of[p] for p in self.params])
        state = [self.optimizer.state[p] for p in self.params]
        self.library.step_update(
            len(self.params), self.sizes, self.pointers('parameter', self.params),
            self.pointers('gradient', [p.grad for p in self.params]),
            *[self.pointers(name, [s[name] for s in state]) for name in ('exp_avg', 'exp_avg_sq', 'step')],
            decay, lr, beta1, beta2, eps, grad_clip)


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
