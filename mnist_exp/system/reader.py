"""Programs that run beside a command, read what it writes, and end with it.

The command holds one end of a pipe, which closes however it ends. So its reader never outlives it by more than a last
look, and signals from the terminal reach the command alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from mnist_exp.system import program

NICE = 5  # a reader takes the time that the command leaves


class Reader:
    """A module of this program that runs beside this process."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        """Start the module's main function, with the streams of this process.

        Raises:
            OSError: No process can be started.
        """
        here = [str(program.PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"mnist_exp.{module}", *arguments],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(here)},
        )

    def tell_end(self) -> None:
        """Tell the reader that this process writes nothing more."""
        assert self.process.stdin
        self.process.stdin.close()

    def has_ended(self, seconds: float) -> bool:
        """Wait for the reader's last look, at most so long, and return whether it has ended."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> int:
        """End the reader at once if it still runs, with what it has started, and return its exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # it began a session of its own
        return self.process.wait()


def command_ended(seconds: float) -> threading.Event:
    """Return, in a reader, an event that is set when the command beside which it runs has ended.

    Args:
        seconds: What the reader then has for its last look, before this process ends.
    """
    if hasattr(os, "nice"):
        os.nice(NICE)
    ended = threading.Event()

    def wait() -> None:
        os.read(0, 1)
        ended.set()
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    return ended
