"""Work in a process of its own, which leaves no trace in this one: what has used CUDA, or threads, can't fork."""

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")
CAN_FORK = sys.platform == "linux"  # macOS has fork, but not its frameworks after one


def apart(work: Callable[[], T]) -> T:
    """What `work` returns or raises, in a forked process; in this one where there is no fork."""
    if not CAN_FORK:
        return work()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(work, there), daemon=True)
    process.start()
    there.close()
    try:
        result, error = here.recv()
    except EOFError:
        process.join()
        raise MemoryError(f"a process was killed, exit code {process.exitcode}") from None
    process.join()
    if error:
        raise error
    returned: T = result
    return returned


def _tell(work: Callable[[], Any], there: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one hears of it, and ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        there.send((work(), None))
    except Exception as error:
        error.add_note(traceback.format_exc())
        there.send((None, error))
