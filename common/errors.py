"""
What scripts say: one kind of error for everything that the user can mend, and printing that never ends a training.

Code in common/ raises UserError with a whole sentence for the user: what is wrong, and what to do about it. Importing this
file makes a script that does not catch it end with `error: sentence` on stderr and exit code 1, without a traceback.
"""

import os
import sys


class UserError(Exception):
    """Something that the user can mend: its text is one sentence that names the thing and the remedy."""


def print_error(kind, error, traceback):
    """Print what ended a script: a UserError as its sentence, Ctrl-C and a closed pipe as nothing, the rest as Python does."""
    if issubclass(kind, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif issubclass(kind, BrokenPipeError):  # as of `| head`; Python would complain when it flushes at the end
        sys.stdout = open(os.devnull, 'w')
    elif not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)


def one_line(error):
    """The first line of an exception's text, or its class if it has none: for sentences that quote a library's error."""
    return ' '.join(str(error).strip().split('\n')[0].split()) or type(error).__name__


def say(text):
    """Print a line for the user, or nothing from the moment on that nobody reads it any more, because the pipe is closed."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, 'w')


def is_terminal():
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


sys.excepthook = print_error
