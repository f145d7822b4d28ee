"""Starts joblib's worker processes while a sweep is being checked. Each needs 3 seconds, most of them for torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from threading import Thread
from typing import Any

from mnist_exp.system import signals


@contextmanager
def started(launcher: dict[str, Any], count: int) -> Iterator[None]:
    """Start the workers of hydra/launcher=joblib in parallel with the block. Other launchers have no workers.

    Args:
        launcher: The launcher's config. joblib reuses workers only if all settings are equal.
        count: The number of workers; one worker is not worth the start.
    """
    if "joblib" not in launcher["_target_"] or count == 1:
        yield
        return
    settings = {key: value for key, value in launcher.items() if key != "_target_"} | {"backend": "loky"}
    thread = Thread(target=_start, args=(settings, count))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _start(settings: dict[str, Any], count: int) -> None:
    """Start the workers. Errors are ignored, because the launch meets and reports the same ones."""
    from joblib import Parallel, delayed

    resource_tracker.ensure_running()  # Python 3.11 unblocks the signals when it starts the tracker
    with suppress(Exception), signals.blocked():
        Parallel(**settings)([delayed(_prepare_worker)()] * count)


def _prepare_worker() -> None:
    """Do what a worker does before its first job."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a job, without a traceback
    signals.unblock()
    import torch  # noqa: F401
