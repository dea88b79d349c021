"""Ctrl-C and the signals that end a process ask a run to save and stop."""

import os
import signal
import socket
import threading
from types import SimpleNamespace

ENDING = ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGBREAK')  # Windows has no SIGHUP, and only Windows has SIGBREAK
WARNING = ('SIGUSR1', 'SIGUSR2', 'SIGXCPU')  # schedulers send these some time before the end
NUMBERS = {getattr(signal, name): name for name in ENDING + WARNING if hasattr(signal, name)}


def stop_by_signal():
    """From now on a signal asks for a stop: the returned object's `code` becomes 128 + the signal's number.

    The training loop looks at it, saves and exits. A second one of the ENDING signals ends the process at once. A
    thread listens, because Python calls a handler only when the main thread is in Python, and it may wait for another
    host in gloo.
    """
    stop, (listener, wakeup) = SimpleNamespace(code=0), socket.socketpair()
    wakeup.setblocking(False)

    def listen():
        ending = 0
        while received := listener.recv(1):
            ending += NUMBERS.get(received[0]) in ENDING
            if ending > 1:
                os._exit(stop.code)
            if received[0] in NUMBERS and not stop.code:
                stop.code = 128 + received[0]
    threading.Thread(target=listen, daemon=True).start()
    signal.set_wakeup_fd(wakeup.detach(), warn_on_full_buffer=False)
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and so do we
            signal.signal(number, lambda *_: None)
    return stop


def was_stopped(code):
    """Whether one of these signals ended a process. code: as subprocess returns it."""
    return -code in NUMBERS or code - 128 in NUMBERS
