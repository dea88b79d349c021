"""
Ctrl-C and the signals that end a process ask a run to save and stop.
"""

import os
import signal
from types import SimpleNamespace


def stop_by_signal():
    """From now on Ctrl-C, SIGTERM and SIGHUP ask for a stop: the returned object's `code` becomes 128 + the signal's number.

    The training loop looks at it, saves and exits. A second signal ends the process at once.
    """
    stop = SimpleNamespace(code=0)

    def ask(signum, frame):
        if stop.code:
            os._exit(stop.code)
        stop.code = 128 + signum
    for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and so do we
            signal.signal(number, ask)
    return stop
