"""Signals that ask this process to stop: raised, held back, passed on, or ignored."""

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; what Slurm and Kubernetes send before they kill; a closed terminal
SIGNALS = tuple(signal.Signals[name] for name in NAMES if name in signal.Signals.__members__)  # Windows lacks some


class Stopped(KeyboardInterrupt):
    """A signal that asks this process to stop."""


_asked: list[int] = []  # the signals that were raised in this process


def asked(error: BaseException) -> bool:
    """Whether an error comes of such a signal: raised by it, or by code that it caught in the middle of something."""
    return isinstance(error, KeyboardInterrupt) or bool(_asked)


def exit_code() -> int:
    """What a shell shows for a process that the signal ended."""
    return 128 + (_asked or [signal.SIGINT])[0]


def hide_unraisable() -> None:
    """Say nothing of an error in a destructor once a signal was raised: it is the signal, or comes of it."""
    show = sys.unraisablehook
    sys.unraisablehook = lambda error: None if _asked else show(error)


def ignore() -> None:
    """Let no further signal disturb this process, which is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop_once(number: int, _: Any) -> None:
    """Raise Stopped; a second signal, of an impatient user or from a parent, does not disturb what that begins."""
    ignore()
    _asked.append(number)
    raise Stopped(number)


def arm() -> None:
    """Raise Stopped when a signal asks for it, from now on; signals that are ignored stay so."""
    _asked.clear()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop_once)


@contextmanager
def blocked() -> Iterator[None]:
    """Hold the signals back from this thread, and from processes that the block starts, until these unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Let the signals in again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    """Have `handler` deal with the signals that ask this process to stop; those that it ignores stay ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, old in before.items() if old != signal.SIG_IGN]  # else begun with & by a script
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            if signal.getsignal(number) == handler:  # else it has decided otherwise
                signal.signal(number, before[number])


def stoppable() -> AbstractContextManager[None]:
    """Raise Stopped in the block when a signal asks this process to stop."""
    _asked.clear()
    return handling(stop_once)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold such signals back until the block is done: what belongs together is written together."""
    held: list[int] = []
    with handling(lambda number, _: held.append(number)):
        yield
    for number in held[:1]:
        signal.raise_signal(number)
    if _asked:  # it was raised before, and lost on its way, in a destructor say
        raise Stopped
