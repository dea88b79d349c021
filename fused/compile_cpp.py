"""Compile fused_step.cpp into a library, once for each kind of CPU: it is kept in a folder of the user's cache.

    library = ctypes.CDLL(build())

CXX in the environment names another compiler than g++, clang++ or c++, with arguments if need be, such as
CXX='python -m ziglang c++' where pip has installed ziglang.
"""

import atexit
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name('fused_step.cpp')
# without -O3 loops are not unrolled, and the two last flags let sqrt and comparisons be vectors
FLAGS = ['-O3', '-std=c++17', '-shared', '-fPIC', '-fno-math-errno', '-fno-trapping-math']
# By torch's name of what a CPU has. With -march=native, g++ also tunes for the CPU, which made the step a seventh
# slower on an Intel processor.
REGISTERS = {'AVX512': ['-mavx512f', '-mavx512dq', '-mfma'], 'AVX2': ['-mavx2', '-mfma']}


def is_ours(path):
    """Whether this user owns a file. A library is code, so one that somebody else made is not loaded."""
    return not hasattr(os, 'getuid') or path.stat().st_uid == os.getuid()


def cache_folder():
    """The user's folder of compiled libraries; if it is not one that only the user can write, a temporary one."""
    try:
        folder = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'fused_step'
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_ours(folder):
            raise PermissionError
        folder.chmod(0o700)  # whatever made it may have let others write in it
        tempfile.TemporaryDirectory(dir=folder).cleanup()
    except (OSError, RuntimeError):  # RuntimeError if the user has no home
        try:
            folder = Path(tempfile.mkdtemp(prefix='fused_step_'))
        except OSError as error:
            raise RuntimeError(f"the step cannot be compiled ({error.strerror}): let XDG_CACHE_HOME name a folder that "
                               "can be written") from None
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def find_library(folder, key):
    """The path of a library that was compiled before, or None."""
    for library in folder.glob(f'{key}_*.so'):
        try:  # a damaged library would crash the process that loads it, so its name says what it holds
            if is_ours(library) and library.stem == f'{key}_{digest(library.read_bytes())}':
                ctypes.CDLL(str(library))  # fails if another machine that shares this folder has other libraries
                return str(library)
        except OSError:
            pass
    return None


def compile_library(command, folder, key):
    """Compile the step; returns the library's path. Raises RuntimeError with what the compiler did if that fails."""
    with tempfile.TemporaryDirectory(dir=folder) as own:  # processes that build at once do not write into one file
        library = Path(own, 'fused_step.so')
        try:
            subprocess.run([*command, SOURCE, '-o', library], capture_output=True, check=True, encoding='utf-8',
                           errors='replace', timeout=600)
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if 'error' in line]
            reason = lines[0] if lines else f'it ended with status {error.returncode}'
            raise RuntimeError(f"did not compile {SOURCE.name}: {reason}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"did not compile {SOURCE.name}: {error}") from None
        try:
            ctypes.CDLL(str(library))
            return str(library.replace(folder / f'{key}_{digest(library.read_bytes())}.so'))
        except OSError as error:
            raise RuntimeError(f"compiled {SOURCE.name}, but the library cannot be loaded: {error}") from None


def build():
    """Compile the step if need be; returns the library's path. Raises RuntimeError with one sentence if that fails."""
    try:
        named = shlex.split(os.environ.get('CXX', ''))
    except ValueError as error:
        raise RuntimeError(f"CXX={os.environ['CXX']} cannot be read as a command: {error}") from None
    compiler = named or [c for c in ('g++', 'clang++', 'c++') if shutil.which(c)][:1]
    if not compiler:
        raise RuntimeError("no C++ compiler was found: install g++ or clang++, or let CXX name another one")
    command = [*compiler, *FLAGS, *REGISTERS.get(torch.backends.cpu.get_cpu_capability(), [])]
    text = [path.read_bytes() for path in (SOURCE, *sorted(SOURCE.parent.glob('*.h')))]
    key, folder = digest(repr([text, command, platform.machine()]).encode()), cache_folder()
    library = find_library(folder, key)
    if library is not None:
        return library
    for openmp in (['-fopenmp'], []):  # some compilers lack it, or its library
        try:
            return compile_library([*command, *openmp], folder, key)
        except RuntimeError as error:
            problem = error
    raise RuntimeError(f"the C++ compiler {shlex.join(compiler)} {problem}")
