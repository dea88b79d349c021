"""Compile fused_step.cpp for this CPU into a library, once: it is kept in a folder of the user's cache.

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
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name('fused_step.cpp')
# without -O3 loops are not unrolled, and the two last flags let sqrt and comparisons be vectors
FLAGS = ['-O3', '-std=c++17', '-shared', '-fPIC', '-fno-math-errno', '-fno-trapping-math']
EXTRAS = (['-march=native', '-fopenmp'], ['-march=native'], ['-fopenmp'], [])  # the first that works is taken


def cache_folder():
    """The user's folder of compiled libraries; if that cannot be written, a temporary one, removed at the end."""
    usual = {'darwin': '~/Library/Caches', 'win32': os.environ.get('LOCALAPPDATA', '~')}.get(sys.platform, '~/.cache')
    try:
        named = Path(os.environ.get('XDG_CACHE_HOME', ''))  # which is to be ignored if it is relative
        folder = (named if named.is_absolute() else Path(usual).expanduser()) / 'fused_step'
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError if the user has no home
        folder = Path(tempfile.mkdtemp(prefix='fused_step_'))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def cpu_model():
    """What tells this CPU from others that cannot run code compiled for it."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return platform.machine(), platform.processor()
    return sorted({line for line in lines if line.startswith(('model', 'flags', 'CPU', 'Features'))})


def build():
    """Compile the step if need be; returns the library's path. Raises RuntimeError with one sentence if that fails."""
    try:
        named = shlex.split(os.environ.get('CXX', ''))
    except ValueError as error:
        raise RuntimeError(f"CXX={os.environ['CXX']} cannot be read as a command: {error}") from None
    compiler = named or [c for c in ('g++', 'clang++', 'c++') if shutil.which(c)][:1]
    if not compiler:
        raise RuntimeError("no C++ compiler was found: install g++ or clang++, or let CXX name another one")
    text = [path.read_bytes() for path in (SOURCE, *sorted(SOURCE.parent.glob('*.h')))]
    key = hashlib.sha256(repr([text, FLAGS, EXTRAS, compiler, cpu_model()]).encode()).hexdigest()[:16]
    library = cache_folder() / f'{SOURCE.stem}_{key}.so'
    digest = library.with_suffix('.sha256')  # a damaged library would crash the process that loads it
    try:
        if digest.read_bytes() == hashlib.sha256(library.read_bytes()).hexdigest().encode():
            ctypes.CDLL(str(library))  # another machine that shares this folder may have made it for other libraries
            return str(library)
    except OSError:
        pass
    ours = str(library.with_suffix(f'.{os.getpid()}'))  # processes that build at once do not write into one file
    for extra in EXTRAS:
        try:
            subprocess.run([*compiler, *FLAGS, *extra, SOURCE, '-o', ours], capture_output=True, check=True,
                           encoding='utf-8', errors='replace', timeout=600)
            ctypes.CDLL(ours)  # some compilers accept -fopenmp although they do not have its library
            Path(f'{ours}.sha256').write_bytes(hashlib.sha256(Path(ours).read_bytes()).hexdigest().encode())
            os.replace(f'{ours}.sha256', digest)
            os.replace(ours, library)
            return str(library)
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if 'error' in line]
            problem = (lines or [f'it ended with status {error.returncode}'])[0]
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
    raise RuntimeError(f"the C++ compiler {shlex.join(compiler)} did not compile {SOURCE.name}: {problem}")
