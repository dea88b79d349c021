"""Writes files whole or not at all, and appends to those that grow with a run."""

import os
from contextlib import suppress

from common.errors import UserError, explained, say


def write_file(path, content):
    """Write str (as UTF-8) or bytes to a file, whole or not at all.

    The bytes go to a temporary file in the same folder, are flushed to the disk (fsync) and renamed. After an error,
    such as a full disk, the old file is as it was and the temporary one is gone.
    """
    target = os.path.realpath(path)  # if path is a link, the file that it leads to
    is_device = os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target)
    temporary = target if is_device else f'{target}.{os.getpid()}.tmp'  # a pipe or /dev/null is not replaced
    try:
        with open(temporary, 'wb') as f:
            f.write(content.encode() if isinstance(content, str) else content)
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


def size_of(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def append_file(path, content):
    """Append bytes to a file. After an error it is as it was; after a kill it may have a part of them."""
    before = size_of(path)
    with explained(f"cannot write {path}: {{}}", OSError):
        try:
            with open(path, 'ab') as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
        except OSError:
            with suppress(OSError):  # what is wrong with the disk must not hide what went wrong first
                os.truncate(path, before)
            raise


def cut_file(path, size):
    """Drop what was appended after a file had this size, all of it or only a part, by a run that was killed.

    Raises UserError if a part of what it had then is missing.
    """
    now = size_of(path)
    if 0 < now < size:
        raise UserError(f"{path} has been cut off since the checkpoint was saved: copy it again, or delete it to go on "
                        "without what it had")
    if now < size:
        say(f"{path} is gone, so what it had is lost, and it begins anew")
    if now > size:  # else truncate would add zeros
        with explained(f"cannot write {path}: {{}}", OSError):
            os.truncate(path, size)
