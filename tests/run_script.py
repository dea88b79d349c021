"""
Runs a script of a copied project in a process that has torch imported already, and acts like a fresh interpreter.

There is a process for each call, as a user has it, but it is forked from a server that has paid the seconds of
`import torch` once. The server imports no module of this project, so that what the child imports is the copy's own; the
child checks that.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
ENVIRONMENT = Path(sys.prefix).resolve()  # it may lie in the repository, and pytest may be a script of its
context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(['torch', 'torch._dynamo', 'pandas', 'matplotlib.pyplot', 'scipy.stats', 'tqdm'])


def is_ours(path):
    """Whether a module's file or a folder of sys.path belongs to the repository itself, its environment aside."""
    path = path and Path(path).resolve()
    return bool(path) and path.is_relative_to(REPO) and not path.is_relative_to(ENVIRONMENT)


def child(script, args, cwd, out_path):
    """Run the script; stdout and stderr go to the files out_path.stdout and out_path.stderr."""
    os.chdir(cwd)
    for fd, suffix in ((1, 'stdout'), (2, 'stderr')):
        file = os.open(f'{out_path}.{suffix}', os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, fd)
    sys.argv = [str(script), *args]
    sys.path = [str(Path(script).parent), *(path for path in sys.path if not is_ours(path))]
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit:
        raise  # multiprocessing makes of its code what Python does
    except BaseException as e:
        sys.excepthook(*sys.exc_info())
        if isinstance(e, KeyboardInterrupt):  # Python dies of the signal then
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        sys.exit(1)
    finally:
        mixed = [name for name, module in list(sys.modules.items())
                 if name not in ('run_script', '__mp_main__') and is_ours(getattr(module, '__file__', None))]
        if mixed:
            sys.exit(f"the modules {mixed} are the repository's, not those of the copy {script}")


def run_script(script, args, cwd, out_path, timeout):
    """Returns (exit code, stdout, stderr)."""
    process = context.Process(target=child, args=(script, [*map(str, args)], str(cwd), str(out_path)))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{script} took more than {timeout} s")
    stdout, stderr = (Path(f'{out_path}.{suffix}').read_text(encoding='utf-8') for suffix in ('stdout', 'stderr'))
    return process.exitcode, stdout, stderr
