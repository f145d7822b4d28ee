"""What a command does before it imports anything else: a signal ends it with one line, and its three streams are open.

Imports take a quarter of a second. Meanwhile a Ctrl-C would be told with a traceback; and a file that is opened while
the standard output is closed would take its place.
"""

import os
import signal
import sys
from typing import Any

from mnist_exp.system.signals import STOP_SIGNALS, hide_unraisable


def _open_streams() -> None:
    """Have what is closed of the standard streams read and write nothing."""
    for number, name, mode in (0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, mode))


def _end(number: int, _: Any) -> None:
    try:
        os.write(1, b"interrupted\n")
    finally:
        os._exit(128 + number)  # nothing has been begun


_open_streams()
hide_unraisable()
for each in STOP_SIGNALS:
    if signal.getsignal(each) != signal.SIG_IGN:  # by nohup, say
        signal.signal(each, _end)
