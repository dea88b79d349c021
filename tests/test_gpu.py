"""The code for a GPU, where scripts believe in one (pretend_cuda.py): all tensors are where they must be."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import REPO, TIMING, TINY

MATH, MLT = 'config/train_math_mini_14.py', 'config/train_math_mini_mlt.py'
QUICK = ['--max_iters=2', '--num_samples=1', '--temperature=0']
SMALLER = ['--n_layer=2', '--n_embd=258']  # than mlt, and wide enough for bfloat16, with dropout and six heads


@pytest.fixture
def gpu(project):
    """The project, and on_gpu(SCRIPT, ...) as its check(SCRIPT, ...) with a GPU."""
    shutil.copy(REPO / 'tests/pretend_cuda.py', project.folder)
    project.on_gpu = lambda *args, major=8: project.check('pretend_cuda.py', major, *args)
    return project


def trained(out):
    """What a run says about where and how it trains."""
    return re.search(r'parameters on (.*)', out)[1]


def results(gpu, out_dir):
    return pd.read_csv(gpu.folder / out_dir / 'results.csv').drop(columns=TIMING)


def test_what_a_gpu_refuses_is_refused_and_devices_and_precisions_are_picked(gpu):
    (gpu.folder / 'script.py').write_text("""
import os
from types import SimpleNamespace
import pytest
import torch
from torch.nn import functional as F
from common.device import compute_init, pick_device, pick_dtype
from common.errors import UserError

there, here = torch.randn(3, 4, device='cuda'), torch.randn(3, 4)
for mixed in (lambda: there + here, lambda: F.embedding(torch.tensor([1]), there), lambda: there @ here.T,
              lambda: here[torch.tensor([1], device='cuda')]):
    with pytest.raises(RuntimeError, match='same device'):
        mixed()
with pytest.raises(TypeError, match='Use Tensor.cpu'):
    there.numpy()
assert there.T.device == (there * 2)[torch.tensor([1])].device == torch.device('cuda:0')
assert (there.cpu() + here).numpy().any()
with pytest.raises(ValueError, match='specified index'):
    torch.cuda.set_device('cuda')

assert pick_device('auto', 384) == pick_device('cuda', 14) == 'cuda:0' and pick_device('auto', 14) == 'cpu'
os.environ['LOCAL_RANK'] = '1'  # torchrun's second process
assert pick_device('auto', 384) == pick_device('cuda', 14) == 'cuda:1' and pick_device('cuda:0', 14) == 'cuda:0'
assert compute_init('cuda', 14, 1, 'auto')[0] == 'cuda:1' and torch.cuda.current_device() == 1
assert torch.are_deterministic_algorithms_enabled()
os.environ['LOCAL_RANK'] = '2'
with pytest.raises(UserError, match="device 'cuda:2' is not available"):
    pick_device('auto', 384)

assert [pick_dtype('auto', 'cuda:0', n_embd) for n_embd in (255, 256)] == ['float32', 'bfloat16']
torch.cuda.get_device_properties = lambda device: SimpleNamespace(major=7)  # T4 and V100 only emulate bfloat16
assert pick_dtype('auto', 'cuda:0', 384) == 'float32' and pick_dtype('bfloat16', 'cuda:0', 384) == 'bfloat16'
print('all is as expected')
""")
    assert 'all is as expected' in gpu.on_gpu('script.py')


def test_a_large_model_trains_in_bfloat16_on_a_gpu_and_is_evaluated_there(gpu):
    out = gpu.on_gpu('train_with_eval.py', MLT, *TINY, *QUICK, *SMALLER)
    assert trained(out) == 'cuda:0 in bfloat16, eager' and list(results(gpu, 'math_mini_mlt').iter) == [0, 2]
    assert '98 questions' in gpu.on_gpu('eval_as_math.py', '--out_dir=math_mini_mlt', '--operation=addition')
    gpu.on_gpu('sample.py', '--out_dir=math_mini_mlt', '--num_samples=2', '--max_new_tokens=12')
    gpu.on_gpu('plot_model.py', '--out_dir=math_mini_mlt')
    assert (gpu.folder / 'math_mini_mlt/model.png').exists()


def test_a_gpu_without_bfloat16_trains_it_in_float32(gpu):
    out = gpu.on_gpu('train_with_eval.py', MLT, *TINY, *QUICK, *SMALLER, major=7)
    assert trained(out) == 'cuda:0 in float32, eager'


def test_mod_math_trains_on_a_gpu(gpu):
    gpu.check('data/mod_math/prepare.py', '--name=mod_7', '--modulus=7')
    out = gpu.on_gpu('train_with_eval.py', 'config/train_mod_math.py', *TINY, *QUICK, '--dataset=mod_7')
    assert trained(out) == 'cuda:0 in float32, eager' and list(results(gpu, 'mod_math').iter) == [0, 2]


def test_a_run_goes_on_on_another_device_as_it_would_have_on_its_own(gpu):
    to_the_end = [*TINY, '--max_iters=8', '--fused=False', '--decay_lr=False']
    gpu.check('train_with_eval.py', MATH, *to_the_end, '--out_dir=cpu')
    resume = ['train_with_eval.py', '--init_from=resume', '--out_dir=moved']
    out = gpu.on_gpu('train_with_eval.py', MATH, *to_the_end, '--out_dir=moved', '--device=cuda', '--max_iters=2')
    assert trained(out) == 'cuda:0 in float32, eager'
    out = gpu.check(*resume, '--device=cpu', '--max_iters=4')
    assert "resuming with device='cpu' (was 'cuda')" in out and trained(out) == 'cpu in float32, eager'
    assert trained(gpu.on_gpu(*resume, '--device=cuda', '--max_iters=8')) == 'cuda:0 in float32, eager'
    one, other = results(gpu, 'cpu'), results(gpu, 'moved')
    assert list(other.iter) == [0, 2, 4, 6, 8] and one.train_loss.iloc[-1] < 0.99 * one.train_loss[0]
    assert list(other.train_loss) == pytest.approx(list(one.train_loss), rel=1e-4)  # one seed, whatever the device


@pytest.mark.parametrize('script, folder', [('eval_as_math.py', 'math_mini_14'), ('eval_capitals.py', 'facts_mini_14'),
                                            ('sample.py', 'facts_mini_14')])
def test_a_gpu_says_what_the_cpu_says(gpu, script, folder):
    args = script, f'--out_dir={folder}', '--temperature=0', '--num_samples=2'
    assert gpu.on_gpu(*args, '--device=cuda') == gpu.check(*args)


def test_a_process_of_torchrun_trains_on_its_gpu(gpu):
    args = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=1', 'pretend_cuda.py', '8',
            'train_with_eval.py', MATH, *TINY, '--device=cuda', '--backend=gloo', '--out_dir=one']
    process = subprocess.run(args, cwd=gpu.folder, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0 and trained(process.stdout) == 'cuda:0 in float32, eager', process.stderr
    assert list(results(gpu, 'one').iter) == [0, 2, 4]
