"""Runs functions in forked subprocesses: one that keeps this process free of CUDA and threads, or one for each core."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from mnist_exp.system import signals

T = TypeVar("T")
Item = TypeVar("Item")
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
    return _result_of(*_begin(function)) if CAN_FORK else function()


class Helper:
    """Works beside this process, in a forked subprocess, on what it is sent.

    Where there is no fork, and in a subprocess, which may have none of its own, this process works at the end.
    """

    def __init__(self, work: Callable[[Iterator[Any]], object], beside: bool = True) -> None:
        """Begin to work.

        Args:
            work: What to do with an iterator over what is sent, which waits for the next value. Only the values must be
                picklable.
            beside: False leaves the work to this process, at the end.
        """
        self._send: Callable[[Any], None]
        self._wait: Callable[[], object]
        self._process: BaseProcess | None = None
        if beside and _may_fork():
            inbox, outbox = multiprocessing.get_context("fork").Pipe(duplex=False)
            self._process, receiver = _begin(partial(_work_as_long_as_the_parent_lives, work, iter(inbox.recv, None)))
            self._send, self._wait = outbox.send, partial(_result_of, self._process, receiver)
            inbox.close()
        else:
            sent = deque[Any]()
            self._send, self._wait = sent.append, partial(work, iter(sent.popleft, None))

    def send(self, value: Any) -> None:
        """Send a value that is not None."""
        with suppress(BrokenPipeError):  # the work has ended already; `finish` says why
            self._send(value)

    def finish(self) -> None:
        """Wait until the work is done.

        Raises:
            MemoryError: The subprocess was killed by SIGKILL.
            ChildProcessError: The subprocess ended before the work.
            Exception: What the work raised.
        """
        self.send(None)
        self._wait()

    def close(self) -> None:
        """End the work where it is, if it is not done."""
        if self._process:
            self._process.kill()
            self._process.join()


def _work_as_long_as_the_parent_lives(work: Callable[[Iterator[Any]], object], sent: Iterator[Any]) -> None:
    _live_as_long_as_the_parent()
    work(sent)


def _begin(function: Callable[[], T]) -> tuple[BaseProcess, Connection]:
    """Call `function` in a forked subprocess. Return the process, and where its result arrives."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(function, sender), daemon=True)
    with signals.blocked():  # until the subprocess has its handlers
        process.start()
    sender.close()
    return process, receiver


def _result_of(process: BaseProcess, receiver: Connection) -> Any:
    """Wait for the result of a subprocess: see `run_in_subprocess`."""
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
    return result


def parallel(function: Callable[[Item], T], items: Sequence[Item], workers: int) -> Iterator[T]:
    """Yield the function's results in the order of the items, computed in forked subprocesses.

    Threads take their place where there is no fork, and in a subprocess, which may have none of its own. A single item
    is computed in this process.

    Args:
        function: What to call. It, the items and the results must be picklable.
        items: What to call it with.
        workers: The number of subprocesses.

    Raises:
        MemoryError: A subprocess was killed.
        Exception: What the function raised.
    """
    if min(len(items), workers) <= 1:
        yield from map(function, items)
        return
    pool = _pool(workers)
    try:
        with signals.blocked():  # until the subprocesses, which the first call starts, have their handlers
            results = pool.map(function, items)
        yield from results
    except BrokenProcessPool:
        raise MemoryError("a helper process was killed") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> Executor:
    if _may_fork():
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(workers, context, initializer=_live_as_long_as_the_parent)
    return ThreadPoolExecutor(workers)


def _may_fork() -> bool:
    return CAN_FORK and not multiprocessing.current_process().daemon


def _live_as_long_as_the_parent() -> None:
    """Leave stop signals to the parent process, and end when it ends, even if it is killed."""
    parent = multiprocessing.parent_process()
    assert parent
    _leave_signals_to_the_parent()
    threading.Thread(target=lambda: wait([parent.sentinel]) and os._exit(1), daemon=True).start()


def _leave_signals_to_the_parent() -> None:
    signals.ignore()  # the parent process receives them too, and ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals.unblock()


def _send_result(function: Callable[[], Any], sender: Connection) -> None:
    _leave_signals_to_the_parent()
    try:
        sender.send((function(), None))
    except Exception as error:
        error.add_note(traceback.format_exc())
        sender.send((None, error))
