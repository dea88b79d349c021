"""
Pretends that this machine has two GPUs, so that the code for them runs, and is checked, on a CPU.

$ python tests/pretend_cuda.py 8 train_with_eval.py config/train_math_mini_mlt.py --compile=False --max_iters=4

The number is the major version of the GPUs' compute capability: below 8 they lack bfloat16. All tensors are in the
CPU's memory, and this file remembers which of them a GPU would have. An operation on tensors of two devices raises
torch's own kind of error, and so does .numpy() of a GPU's. torch.cuda checks its arguments as it does with a GPU. This
shows nothing of kernels, torch.compile, nccl, memory and speed, nor of a backward pass from one device to another.
"""

import os
import runpy
import sys
import weakref
from types import SimpleNamespace

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, GPUS = torch.device('cpu'), 2
places = weakref.WeakKeyDictionary()  # storage -> its device, for those that are not on the CPU
current = [0]  # the index of the current GPU
# these really take tensors of two devices: copies, and an indexed tensor may have its indices on the CPU
INDEXED = {'aten::index', 'aten::index_put', 'aten::index_put_', 'aten::_index_put_impl_'}
MIXED = {'aten::copy_'} | INDEXED
CASTS = {'aten::_to_copy', 'aten::to'}  # these name the device where the tensor really is; Tensor.to is replaced below


def place_of(tensor):
    return places.get(tensor.untyped_storage(), CPU)


def put(tensor, device):
    places[tensor.untyped_storage()] = device
    return tensor


def full(device):
    """A torch.device with its index, as torch gives it to a tensor; raises for a GPU that is not there."""
    device = torch.device('cuda', device) if isinstance(device, int) else torch.device(device)
    if device.type == 'cuda' and (device.index or 0) >= GPUS:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return torch.device('cuda', current[0]) if device == torch.device('cuda') else device


class Follow(TorchDispatchMode):
    """Follows the devices through every operation, those of the backward pass too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func._schema.name
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        found = {place_of(x) for x in tensors if x.dim() or place_of(x) != CPU}  # a number on the CPU goes anywhere
        if len(found) > 1 and (name not in MIXED or name in INDEXED and place_of(tensors[0]) == CPU):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} in {name}")
        place = next(iter(found - {CPU}), CPU)
        if kwargs.get('device') is not None and name not in CASTS:
            place, kwargs['device'] = full(kwargs['device']), CPU
        given, out = {x.untyped_storage() for x in tensors}, func(*args, **kwargs)
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage() not in given:
                put(x, place)
        return out


def pretend(major):
    """From now on torch has GPUs of this compute capability, in this process."""
    for name, value in dict(is_available=True, device_count=GPUS, _lazy_init=None, synchronize=None).items():
        setattr(torch.cuda, name, lambda *args, value=value: value)
    torch.cuda.current_device = lambda: current[0]
    torch._C._cuda_setDevice = lambda index: current.__setitem__(0, full(index).index)
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(major=major)
    torch.backends.cuda.is_built = lambda: False  # nobody captures CUDA graphs
    real_to, real_numpy, real_tensor, real_autocast = torch.Tensor.to, torch.Tensor.numpy, torch.tensor, torch.autocast

    def to(self, *args, **kwargs):
        given = (*args, *kwargs.values())
        device = next((full(x) for x in given if isinstance(x, (str, torch.device))), None)
        out = real_to(self, next((x for x in given if isinstance(x, torch.dtype)), self.dtype))
        return out if device in (None, place_of(out)) else put(out.clone(), device)

    def numpy(self, *args, **kwargs):
        if place_of(self) != CPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return real_numpy(self, *args, **kwargs)

    torch.Tensor.to, torch.Tensor.numpy, torch.Tensor.cpu = to, numpy, lambda self: to(self, CPU)
    torch.Tensor.device, torch.Tensor.is_cuda = property(place_of), property(lambda self: place_of(self) != CPU)
    torch.tensor = lambda data, *args, device=CPU, **kwargs: put(real_tensor(data, *args, **kwargs), full(device))
    torch.autocast = lambda device_type, **kwargs: real_autocast('cpu', **kwargs)
    Follow().__enter__()


if __name__ == '__main__':
    pretend(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name='__main__')
