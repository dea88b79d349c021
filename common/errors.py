"""
One kind of error for everything that the user can mend. Importing this makes scripts print it as one sentence.

Code in common/ raises UserError with a whole sentence for the user: what is wrong, and what to do about it. A script that
does not catch it ends with `error: sentence` on stderr and exit code 1, without a traceback.
"""

import sys


class UserError(Exception):
    """Something that the user can mend: its text is one sentence that names the thing and the remedy."""


def print_error(kind, error, traceback):
    """Print what ended a script: a UserError as its sentence, Ctrl-C as nothing, and everything else as Python does."""
    if issubclass(kind, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)


def one_line(error):
    """The first line of an exception's text, or its class if it has none: for sentences that quote a library's error."""
    return ' '.join(str(error).strip().split('\n')[0].split()) or type(error).__name__


sys.excepthook = print_error
