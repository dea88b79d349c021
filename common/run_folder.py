"""
The model folder of a training run: its lock, an earlier run moved aside, and what is left when the run ends.
"""

import atexit
import os
import re
import sys
from contextlib import suppress

from common.errors import UserError, explained, say
from common.files import write_file

# the names that training, evaluation and plotting give to the files of a model folder
RUN_FILE = r'(ckpt\w*\.pt|results\.csv|temp\.csv|answers\.csv\.gz(\.damaged)?|meta\.pkl|(vocab|tokenizer)\.json|merges\.txt)'
OURS = {'.lock', '.gitignore'}  # a folder that holds nothing else is empty
VOCABULARY = {'meta.pkl', 'vocab.json', 'merges.txt', 'tokenizer.json'}
OUTPUT_FILE = r'wandb|\w+\.(png|pdf|svg|gif|mp4|json)'


def lock_folder(folder):
    """Lock a folder for this process until it ends, however it ends; returns the lock, which the caller keeps.

    Raises UserError if another process holds it.
    """
    import filelock  # comes with torch; works on Windows, too
    lock = filelock.FileLock(os.path.join(folder, '.lock'))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another run is training in {folder}: wait for it, or choose another out_dir")
    return lock


def claim_folder(out_dir, resume):
    """Make out_dir the model folder of this run; unless it is to be resumed, an earlier run in it is moved aside.

    Returns the lock, which holds as long as it is referenced. Raises UserError if the folder holds anything that no run
    wrote, or if this program lives or runs in it, so that nothing else is ever moved.
    """
    folder = os.path.realpath(out_dir)  # if out_dir is a link, it stays, and what it leads to is moved
    here = [os.path.realpath(path) + os.sep for path in (os.getcwd(), os.path.dirname(os.path.dirname(__file__)))]
    if any(path.startswith(folder.rstrip(os.sep) + os.sep) for path in here):
        raise UserError(f"{out_dir} cannot be out_dir, because this program lives or runs in it: name a folder of its own")
    with explained(f"cannot use {out_dir} as out_dir: {{}}", OSError):
        if not resume:
            check_is_run(folder, out_dir)
        if not os.path.isdir(folder):
            os.makedirs(folder)
            atexit.register(remove_unused, folder)
        lock = lock_folder(folder)
        for name in os.listdir(folder):
            if re.fullmatch(RUN_FILE + r'\.\d+\.tmp', name):
                os.unlink(os.path.join(folder, name))  # half-written by a run that was killed
        if not resume and set(os.listdir(folder)) - OURS:
            lock = move_aside(folder, out_dir.rstrip(os.sep), lock)
        if not os.path.exists(os.path.join(folder, '.gitignore')):
            write_file(os.path.join(folder, '.gitignore'), '*\n')  # a run does not belong in anyone's repository
    return lock


def check_is_run(folder, out_dir):
    """Raise UserError if a folder holds a file that no run wrote, or only outputs, which may be anyone's."""
    names = set(os.listdir(folder)) - OURS if os.path.isdir(folder) else set()
    known = [name for name in names if re.fullmatch(RUN_FILE + r'(\.\d+\.tmp)?', name)]
    strange = [name for name in names if name not in known and not (known and re.fullmatch(OUTPUT_FILE, name))]
    if strange:
        raise UserError(f"{out_dir} holds {min(strange)}, which no run wrote, so it is not moved aside: choose another out_dir")


def move_aside(folder, out_dir, lock):
    """Rename a locked folder to FOLDER.1, .2, ..., and make an empty one in its place; returns the lock of that."""
    n = next(n for n in range(1, sys.maxsize) if not os.path.lexists(f'{folder}.{n}'))
    if os.name == 'nt':  # Windows does not rename a folder with an open file in it
        lock.release()
    os.rename(folder, f'{folder}.{n}')
    shown = folder if os.path.islink(out_dir) else out_dir
    say(f"moved the earlier run in {out_dir} to {shown}.{n}\n(to resume a run instead: --init_from=resume)")
    os.mkdir(folder)
    atexit.register(remove_unused, folder)
    return lock_folder(folder)


def remove_unused(folder):
    """Remove a model folder that this process has made, if it ends before the run has saved anything."""
    with suppress(OSError):
        names = set(os.listdir(folder))
        if names <= OURS | VOCABULARY:
            for name in names:
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)


def end_results(out_dir):
    """The run is over, however it ended: temp.csv, if there is one, becomes results.csv."""
    try:
        os.replace(os.path.join(out_dir, 'temp.csv'), os.path.join(out_dir, 'results.csv'))
    except FileNotFoundError:
        pass
    except OSError as e:  # this must not hide the error that ended the run
        say(f"{out_dir}/temp.csv is not called results.csv, because it cannot be renamed: {e.strerror}")
