"""
What scripts say: one kind of error for everything that the user can fix, and printing that never ends a run.

Code in common/ raises UserError with a whole sentence for the user: what is wrong, and what to do about it. A script
calls report_errors() first. Then such an error ends it as `error: sentence` on stderr, with exit code 1 and no
traceback.
"""

import difflib
import errno
import os
import re
import sys
from contextlib import contextmanager

OUT_OF_MEMORY = re.compile('(out of|allocate|not enough) memory')  # in torch's errors; numpy has a class for it


class UserError(Exception):
    """Something that the user can fix."""


def report_errors():
    """From now on this process prints what ends it as print_error does."""
    sys.excepthook = print_error
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            # a letter that a terminal lacks must not end a run, and what cannot be printed must be seen before the end
            stream.reconfigure(errors='backslashreplace', line_buffering=True)


def print_error(kind, error, traceback):
    """Print what ended a script: a UserError as its sentence, Ctrl-C and a closed pipe as nothing, others as usual."""
    if issubclass(kind, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif issubclass(kind, MemoryError) or issubclass(kind, RuntimeError) and OUT_OF_MEMORY.search(str(error)):
        print(f"error: not enough memory ({one_line(error)[:150]}): "
              "choose a smaller batch or model", file=sys.stderr)
    elif issubclass(kind, OSError) and error.filename is None and not say(''):  # stdout failed, and fails again
        if error.errno != errno.EPIPE:
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
    elif issubclass(kind, ModuleNotFoundError) and '.' not in (error.name or '.'):
        print(f"error: {error.name} is not installed for {sys.executable}: activate the environment "
              "(. .venv/bin/activate), or pip install -r requirements.txt", file=sys.stderr)
    elif not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)


@contextmanager
def explained(sentence, *kinds):
    """Turn exceptions of these kinds, by default any, into a UserError with this sentence; {} in it: what they say."""
    try:
        yield
    except UserError:
        raise
    except (kinds or (Exception,)) as e:  # noqa: B030
        raise UserError(sentence.replace('{}', one_line(e)))


def did_you_mean(name, known):
    """'did you mean math?' if that is a known name that is like this one, else ''."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def one_line(error):
    """The first line of an exception's text, or its class if it has none; for a file's errors, only what is wrong."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return 'it is not UTF-8 text'
    return ' '.join(str(error).strip().split('\n')[0].split()) or type(error).__name__


def say(text):
    """Print a line for the user; returns whether that worked. If not, as on a closed pipe, no more is printed."""
    try:
        print(text, flush=True)
        return True
    except OSError:
        discard_output()
        return False


def discard_output():
    """From now on this process prints nothing, and so Python cannot complain again when it flushes at the end."""
    sys.stdout = open(os.devnull, 'w', encoding='utf-8', errors='backslashreplace')


def printable(path):
    """A path as text that can be drawn. The name of a file may be of another encoding than the locale says."""
    return os.fsencode(path).decode(errors='replace')
