"""The model folder of a training run: its lock, an earlier run moved aside, and what is left when the run ends."""

import atexit
import errno
import os
import re
import socket
import sys
from contextlib import suppress

from common.errors import UserError, explained, one_line, say
from common.files import write_file

# the names that training, evaluation and plotting give to the files of a model folder
RUN_FILE = (r'(ckpt\w*\.pt|results\.csv|temp\.csv|answers\.csv\.gz|weights\.bin|meta\.pkl|'
            r'(vocab|tokenizer)\.json|merges\.txt)')
HOUSEKEEPING = {'.lock', '.gitignore'}
VOCABULARY = {'meta.pkl', 'vocab.json', 'merges.txt', 'tokenizer.json'}
# what systems, file servers, notebooks and this program put into any folder, but for a user's repository, and the runs
# that were moved aside within it
IGNORED = (r'(?!\.git$)[.@#$~].*|lost\+found|System Volume Information|thumbs\.db|desktop\.ini|earlier\.\d+')
# why a folder cannot be renamed, although it can be written into
UNMOVABLE = {errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS}
OUTPUT_FILE = r'wandb|\w+\.(png|pdf|svg|gif|mp4|json|html)(\.\d+\.tmp)?'


def contents(folder):
    """The names in a folder, without those that say nothing about whose it is."""
    return {name for name in os.listdir(folder) if not re.fullmatch(IGNORED, name, re.IGNORECASE)}


def lock_folder(folder, taken="another run is training in {}", remedy="wait for it, or choose another --out_dir"):
    """Lock a folder for this process until it ends, however it ends; returns the lock, a file that must stay open.

    If another process has locked it, the UserError names that one. Where locking is impossible, a warning is printed.
    """
    path = os.path.join(folder, '.lock')
    lock = open(path, 'a+b', buffering=0)
    try:
        import fcntl  # Windows has none
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        lock.seek(0)
        holder = lock.read().decode(errors='replace').strip() or "owner unknown"
        raise UserError(f"{taken.format(folder)} ({holder}): {remedy}; if that machine no longer exists, delete {path}")
    except (OSError, ImportError) as e:
        say(f"{folder} cannot be locked ({one_line(e)}): make sure that no other run uses it")
    with suppress(OSError):  # of a full disk
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return lock


def claim_folder(out_dir, resume):
    """Make out_dir the model folder of this run, and move an earlier run in it aside, unless that is to be resumed.

    Returns the lock, which holds as long as it is referenced. Nothing but runs is ever moved: a folder with anything
    else in it, or with this program, is refused.
    """
    folder = os.path.realpath(out_dir)  # if out_dir is a link, it stays, and what it leads to is moved
    here = [os.path.realpath(path) + os.sep for path in (os.getcwd(), os.path.dirname(os.path.dirname(__file__)))]
    if any(path.startswith(folder.rstrip(os.sep) + os.sep) for path in here):
        raise UserError(f"{out_dir or repr('')} contains this program or the current folder: choose another --out_dir")
    with explained(f"cannot use {out_dir} as out_dir: {{}}", OSError):
        if not resume:
            check_is_run(folder, out_dir)
        if not os.path.isdir(folder):
            os.makedirs(folder)
            atexit.register(remove_unused, folder)
        lock = lock_folder(folder)
        for name in os.listdir(folder):
            if re.fullmatch(rf'({RUN_FILE}|\.gitignore)\.\d+\.tmp', name):
                os.unlink(os.path.join(folder, name))  # half-written by a run that was killed
        if not resume and contents(folder):
            lock = move_aside(folder, out_dir.rstrip(os.sep), lock)
        if not os.path.exists(os.path.join(folder, '.gitignore')):
            write_file(os.path.join(folder, '.gitignore'), '*\n')  # a run does not belong in anyone's repository
    return lock


def check_is_run(folder, out_dir):
    """Raise UserError if a folder holds a file that no run wrote, or only outputs, which may be anyone's."""
    names = contents(folder) if os.path.isdir(folder) else set()
    known = [name for name in names if re.fullmatch(RUN_FILE + r'(\.\d+\.tmp)?', name)]
    strange = [name for name in names if name not in known and not (known and re.fullmatch(OUTPUT_FILE, name))]
    if strange:
        raise UserError(f"{out_dir} contains {min(strange)}, which no run wrote, so it was left alone: choose another "
                        "--out_dir")


def move_aside(folder, out_dir, lock):
    """Rename a locked folder to FOLDER.1, .2, ..., and make an empty one in its place; returns the lock of that.

    If it cannot be renamed, e.g. because a disk is mounted there, what is in it is moved to FOLDER/earlier.1, .2, ...
    """
    def free(name):
        return next(f'{name}.{n}' for n in range(1, sys.maxsize) if not os.path.lexists(f'{name}.{n}'))
    aside = free(folder)
    try:
        os.rename(folder, aside)
    except OSError as e:
        if e.errno not in UNMOVABLE:
            raise
        aside, names = free(os.path.join(folder, 'earlier')), contents(folder)
        os.mkdir(aside)
        for name in names:
            os.rename(os.path.join(folder, name), os.path.join(aside, name))
    else:
        os.mkdir(folder)
        atexit.register(remove_unused, folder)
        lock = lock_folder(folder)
    moved_to = aside if os.path.islink(out_dir) else out_dir + aside.removeprefix(folder)
    say(f"moved the earlier run in {out_dir} to {moved_to}\n(to resume a run instead: --init_from=resume)")
    return lock


def remove_unused(folder):
    """Remove a model folder that this process has made, if it ends before the run has saved anything."""
    with suppress(OSError):
        if contents(folder) <= VOCABULARY:
            for name in set(os.listdir(folder)) & (HOUSEKEEPING | VOCABULARY):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)


def end_results(out_dir):
    """The run is over, however it ended: temp.csv, if there is one, becomes results.csv."""
    try:
        os.replace(os.path.join(out_dir, 'temp.csv'), os.path.join(out_dir, 'results.csv'))
    except FileNotFoundError:
        pass
    except OSError as e:  # this must not hide the error that ended the run
        say(f"could not rename {out_dir}/temp.csv to results.csv ({e.strerror}): rename it yourself")
