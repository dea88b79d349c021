"""
Files that are written whole or not at all.
"""

import os
from contextlib import contextmanager, suppress

from common.errors import UserError, explained


@contextmanager
def atomic_open(path, mode='w'):
    """Open `path` for writing; it appears, or is replaced, only when the block has ended without error.

    The bytes go to a temporary file in the same folder, are flushed to the disk (fsync) and renamed. After an error,
    such as a full disk, the old file is as it was and the temporary one is gone. mode: 'w' (UTF-8 text) or 'wb'.
    Raises UserError if the file cannot be written.
    """
    target = os.path.realpath(path)  # if path is a link, the file that it leads to
    is_device = os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target)
    temporary = target if is_device else f'{target}.{os.getpid()}.tmp'  # a pipe or /dev/null is not replaced
    try:
        with open(temporary, mode, encoding=None if 'b' in mode else 'utf-8', newline=None if 'b' in mode else '') as f:
            yield f
            f.flush()
            if not is_device:
                os.fsync(f.fileno())
        if not is_device:
            os.replace(temporary, target)
    except BaseException as e:
        if not is_device:
            with suppress(OSError):  # it may not be there, and a failing disk must not hide what failed first
                os.unlink(temporary)
        if isinstance(e, OSError):
            intact = "; what was there before is intact" if os.path.exists(target) else ""
            problem = e.strerror if os.path.isdir(os.path.dirname(target)) else "its folder is not there"
            raise UserError(f"cannot write {path}: {problem}{intact}")
        raise


def write_file(path, content):
    """Write str or bytes to a file, whole or not at all."""
    with atomic_open(path, 'w' if isinstance(content, str) else 'wb') as f:
        f.write(content)


def append_file(path, content):
    """Append bytes to a file, and leave it as it was if they do not fit. Raises UserError if they cannot be written."""
    before = os.path.getsize(path) if os.path.exists(path) else 0
    with explained(f"cannot write {path}: {{}}", OSError):
        try:
            with open(path, 'ab') as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
        except OSError:
            with suppress(OSError):  # what is wrong with the disk must not hide what went wrong first
                os.truncate(path, before)  # nothing could read a file that ends in half of what was added
            raise
