"""Imported before everything else: a signal ends the command with one line, and its three streams are open.

Imports take a quarter of a second, in which Ctrl-C would show a traceback. A file that is opened while standard output
is closed would take its place.
"""

import os
import signal
import sys
from typing import Any

from mnist_exp.system.signals import STOP_SIGNALS, hide_unraisable


def _open_streams() -> None:
    """Open those standard streams that are closed, to read and write nothing."""
    for number, name, mode in (0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            setattr(sys, name, os.fdopen(number, mode))


def _end(number: int, _: Any) -> None:
    try:
        os.write(1, b"interrupted\n")
    finally:
        os._exit(128 + number)  # nothing has started


_open_streams()
hide_unraisable()
for each in STOP_SIGNALS:
    if signal.getsignal(each) != signal.SIG_IGN:  # nohup ignores SIGHUP
        signal.signal(each, _end)
