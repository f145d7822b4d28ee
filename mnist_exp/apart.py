"""Work in a process of its own, which leaves no trace in this one: what has used CUDA, or threads, can't fork."""

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from mnist_exp import stops

T = TypeVar("T")
CAN_FORK = sys.platform == "linux"  # macOS has fork, but not its frameworks after one


def apart(work: Callable[[], T]) -> T:
    """What `work` returns or raises, in a forked process; in this one where there is no fork."""
    if not CAN_FORK:
        return work()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(work, there), daemon=True)
    with stops.blocked():  # until the process knows what to do
        process.start()
    there.close()
    try:
        result, error = here.recv()
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


def _tell(work: Callable[[], Any], there: Connection) -> None:
    stops.ignore()  # the process that waits for this one hears of them, and ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stops.unblock()
    try:
        there.send((work(), None))
    except Exception as error:
        error.add_note(traceback.format_exc())
        there.send((None, error))
