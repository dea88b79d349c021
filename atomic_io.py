"""
Files that are written whole or not at all. Used by every script that writes one; nothing to run.
"""

import os
from contextlib import contextmanager


@contextmanager
def atomic_open(path, mode='w'):
    """Open `path` for writing; it appears, or is replaced, only when the block has ended without error.

    The bytes go to a temporary file in the same folder, are flushed to the disk (fsync) and renamed. After an error,
    a full disk too, the old file is as it was and the temporary one is gone. mode: 'w' (UTF-8 text) or 'wb'.
    """
    path = os.path.realpath(path)  # through a link, the file that it leads to
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        with open(path, mode) as f:  # a pipe, a terminal, /dev/null: nothing to be replaced
            yield f
        return
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        with open(temporary, mode, encoding=None if 'b' in mode else 'utf-8', newline=None if 'b' in mode else '') as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
