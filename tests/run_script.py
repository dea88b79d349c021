"""
Runs a script of the project in a fresh process that has torch imported already.

A process for each call, as a user has, but forked from a server that has paid the seconds of `import torch` once.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(['torch', 'torch._dynamo', 'pandas', 'matplotlib.pyplot', 'tqdm'])


def child(script, args, cwd, out_path):
    os.chdir(cwd)
    for fd, suffix in ((1, 'stdout'), (2, 'stderr')):
        file = os.open(f'{out_path}.{suffix}', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, fd)
    sys.argv = [str(script), *args]
    sys.path = [str(Path(script).parent), *(p for p in sys.path if not p.startswith(str(Path(__file__).parents[1])) or 'site-packages' in p)]
    runpy.run_path(str(script), run_name='__main__')


def run_script(script, args, cwd, out_path, timeout):
    """Returns (exit code, stdout, stderr)."""
    process = context.Process(target=child, args=(script, [*map(str, args)], str(cwd), str(out_path)))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{script} took more than {timeout} s")
    stdout, stderr = (Path(f'{out_path}.{suffix}').read_text() for suffix in ('stdout', 'stderr'))
    return process.exitcode, stdout, stderr
