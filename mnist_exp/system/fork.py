"""Runs a function in a forked subprocess, so that this process stays free of CUDA and threads, and can fork again."""

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mnist_exp.system import signals

T = TypeVar("T")
CAN_FORK = sys.platform == "linux"  # macOS has fork, but its frameworks don't survive it


def run_in_subprocess(function: Callable[[], T]) -> T:
    """Call `function` in a forked subprocess; in this process where there is no fork.

    Returns:
        What the function returns. It must be picklable.

    Raises:
        MemoryError: The subprocess was killed by SIGKILL.
        ChildProcessError: The subprocess ended without a result.
        Exception: What the function raised.
    """
    if not CAN_FORK:
        return function()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(function, sender), daemon=True)
    with signals.blocked():  # until the subprocess has its handlers
        process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        if code == -signal.SIGKILL:
            raise MemoryError("a helper process was killed by SIGKILL") from None
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise ChildProcessError(f"a helper process was ended {how}") from None
    process.join()
    if error:
        raise error
    returned: T = result
    return returned


def _send_result(function: Callable[[], Any], sender: Connection) -> None:
    signals.ignore()  # the parent process receives them too, and ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals.unblock()
    try:
        sender.send((function(), None))
    except Exception as error:
        error.add_note(traceback.format_exc())
        sender.send((None, error))
