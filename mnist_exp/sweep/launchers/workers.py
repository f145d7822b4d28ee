"""hydra/launcher=workers: hand a sweep over to workers, which take its jobs from its folder, on any machine.

A launcher that hands over has the four functions of this module. The command that plans calls `check` before it writes
anything, `submit` before it writes the list of jobs, and `start` when the list is there and its lock is free.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mnist_exp.store.ledger import Session
from mnist_exp.system import program, quoting
from mnist_exp.system.errors import ConfigError

log = logging.getLogger(__name__)


class HandOver(NamedTuple):
    """A sweep that is to be handed over.

    Attributes:
        launcher: The config of the launcher, resolved.
        folder: What `mnist-exp work` takes, absolute. For a learning-rate search it is the folder of its sweep.
        jobs: The number of jobs that are left to run.
        batches: The number of batches that they make; more workers than that find nothing to do.
        is_last: Whether nothing can follow these jobs: no round of a sequential sweep, no sweep after a search.
        by_worker: Whether a worker that closes a round or a search hands over what follows.
    """

    launcher: Mapping[str, Any]
    folder: Path
    jobs: int
    batches: int
    is_last: bool
    by_worker: bool = False


def check(hand_over: HandOver) -> None:
    """Raise ConfigError if the sweep can't be handed over. Nothing is written yet."""
    n_jobs = hand_over.launcher["n_jobs"]
    if n_jobs is not None and n_jobs < 1:
        raise ConfigError(
            f"hydra.launcher.n_jobs={n_jobs}: must be 1 or more jobs at once in a worker, or null for one per core"
        )


def submit(hand_over: HandOver) -> Session:
    """Do what must come before the list of jobs is written, and return what the session's entry keeps about it."""
    return {}


def withdraw(session: Session) -> None:
    """Take back what `submit` did, because the list of jobs could not be written; here: nothing."""


def start(hand_over: HandOver, session: Session) -> None:
    """Have workers start; here: say how to start one.

    Args:
        hand_over: The sweep.
        session: What `submit` returned.
    """
    if hand_over.by_worker:
        return  # it goes on by itself
    jobs = "1 job" if hand_over.jobs == 1 else f"{hand_over.jobs:,} jobs"
    batches = "1 batch" if hand_over.batches == 1 else f"{hand_over.batches:,} batches"
    log.info(
        f"ready for workers: {jobs} in {batches}. On every machine that sees this folder, run\n"
        f"  {program.tool('work')} {quoting.for_shell(str(hand_over.folder))}"
    )
