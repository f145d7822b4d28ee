"""joblib's worker processes, begun while a sweep is still being checked: each takes 3 seconds, most of it for torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from threading import Thread
from typing import Any

from mnist_exp.system import signals


@contextmanager
def begun(launcher: dict[str, Any], count: int) -> Iterator[None]:
    """Have the workers of hydra/launcher=joblib start beside the block, where there is one and it has several.

    `launcher` is its config: joblib takes workers over only where all settings are equal.
    """
    if "joblib" not in launcher["_target_"] or count == 1:
        yield
        return
    settings = {key: value for key, value in launcher.items() if key != "_target_"} | {"backend": "loky"}
    start = Thread(target=_start, args=(settings, count))
    start.start()
    try:
        yield
    finally:
        start.join()


def _start(settings: dict[str, Any], count: int) -> None:
    from joblib import Parallel, delayed

    resource_tracker.ensure_running()  # Python 3.11 unblocks the signals when it starts it
    # Workers that can't be, or were killed: the launch meets the same, and tells it.
    with suppress(Exception), signals.blocked():
        Parallel(**settings)([delayed(_get_ready)()] * count)


def _get_ready() -> None:
    """What a worker does before its first job."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends one that has no job, without a traceback
    signals.unblock()
    import torch._dynamo  # noqa: F401  # an optimizer's first step would import it
