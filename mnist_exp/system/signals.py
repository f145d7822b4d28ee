"""The signals that ask a process to stop: raise them, defer them, forward them, or ignore them."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

NAMES = (
    "SIGINT",  # Ctrl-C
    "SIGTERM",  # Slurm and Kubernetes, before they kill
    "SIGHUP",  # a closed terminal
    *("SIGUSR1", "SIGUSR2"),  # Slurm and submitit, before a time limit and a preemption, if they are told to
)
STOP_SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)  # Windows lacks some


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop."""


_raised: list[int] = []  # the signals that were raised in this process


def caused(error: BaseException) -> bool:
    """Return whether a stop signal caused the error, directly or by interrupting other code."""
    return isinstance(error, KeyboardInterrupt) or bool(_raised)


def exit_code() -> int:
    """Return the exit code that a shell shows for a process that the signal ended."""
    return 128 + (_raised or [signal.SIGINT])[0]


def hide_unraisable() -> None:
    """Hide errors in destructors after a signal was raised: the signal causes them."""
    show = sys.unraisablehook
    sys.unraisablehook = lambda error: None if _raised else show(error)


def ignore() -> None:
    """Ignore further signals while the process shuts down."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def raise_stopped(number: int, _: Any) -> None:
    """Raise Stopped, and ignore further signals, so that a second Ctrl-C doesn't disturb the shutdown."""
    ignore()
    _raised.append(number)
    raise Stopped(number)


def install_handlers() -> None:
    """Raise Stopped at a stop signal from now on. Signals that are ignored stay ignored."""
    _raised.clear()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, raise_stopped)


@contextmanager
def blocked() -> Iterator[None]:
    """Block the signals in this thread, and in processes that the block starts until they call `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Deliver the signals again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def handled_by(handler: Any) -> Iterator[None]:
    """Call `handler` for a stop signal in the block. Signals that are ignored stay ignored."""
    before = _handlers()
    heard = [number for number, old in before.items() if old != signal.SIG_IGN]  # a script's `command &` ignores some
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            if signal.getsignal(number) == handler:  # unless the handler installed another one
                signal.signal(number, before[number])


def raising() -> AbstractContextManager[None]:
    """Raise Stopped at a stop signal in the block."""
    _raised.clear()
    return handled_by(raise_stopped)


@contextmanager
def contained() -> Iterator[None]:
    """Raise Stopped at a stop signal in the block; afterwards handle signals as before, because the process goes on.

    What asks for more than the end of the block, SIGTERM and SIGHUP, is delivered again after it.
    """
    before = _handlers()
    try:
        with raising():
            yield
    finally:
        stopped_by = _raised[:1]
        _raised.clear()
        for changed, handler in before.items():
            signal.signal(changed, handler)
        for number in set(stopped_by) - {signal.SIGINT}:
            signal.raise_signal(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Deliver stop signals after the block, so that it writes its files completely."""
    pending: list[int] = []
    with handled_by(lambda number, _: pending.append(number)):
        yield
    for number in pending[:1]:
        signal.raise_signal(number)
    if _raised:  # a destructor, say, swallowed an earlier one
        raise Stopped


def _handlers() -> dict[signal.Signals, Any]:
    """Return the handlers that this thread can change, and restore: no thread but the main one, and none in C."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    return {number: handler for number, handler in handlers.items() if handler is not None}
