"""The folder of a sweep: which one is meant, which is the newest, and whether a command works on it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mnist_exp.store.ledger import Job, Ledger
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.progress import Progress
from mnist_exp.store.run_folder import INTERRUPTED, LATEST, LEDGER, RUNNING, SEARCHES, SWEEP_LOCK, WORKERS
from mnist_exp.store.workers import Liveness
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError


class AtWork(NamedTuple):
    """Who works on a sweep."""

    command: bool  # whether a command does
    workers: frozenset[str]  # that are alive

    @property
    def anybody(self) -> bool:
        """Whether a command or a worker does."""
        return self.command or bool(self.workers)

    def status(self, job: Job | Progress) -> str:
        """Return the status of a job. One that was running when its process died is interrupted."""
        is_dead = job.worker not in self.workers if job.worker else not self.command
        return INTERRUPTED if job.status == RUNNING and is_dead else job.status

    def judged(self, job: Job) -> Job:
        """Return a job with this status."""
        return job._replace(status=self.status(job)) if job.status == RUNNING else job


def find(target: str) -> Path:
    """Return the folder of the sweep that a user names.

    Args:
        target: The folder of a sweep, or `latest`: the sweep under multirun/ that was written last.

    Raises:
        ConfigError: The target is not a sweep of this program.
    """
    if target == LATEST:
        return latest(target)
    folder = Path(target)
    if is_sweep(folder):
        return folder.parent if is_search(folder) else folder
    if not target:
        raise ConfigError(": no such folder")
    if folder.is_dir() and (folder.parent / LEDGER).is_file():
        raise ConfigError(f"{target}: a job of a sweep; name the folder of the sweep, {folder.parent}")
    raise ConfigError(f"{target}: {why_not(folder)}")


def why_not(folder: Path) -> str:
    """Return why a folder without a ledger is not that of a sweep, as the rest of a sentence."""
    if not folder.is_dir():
        return "no such folder"
    if (folder / METRICS).exists():
        return "a single run, not a sweep"
    for search in (folder / name for name in SEARCHES):
        if (search / LEDGER).is_file():
            return f"its search has not ended; {search} has the trials so far"
    return f"not a sweep of this program: it has no {LEDGER}"


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is that of a sweep, whose search may still be running."""
    return (folder / LEDGER).is_file() or any(is_search(folder / name) for name in SEARCHES)


def is_search(folder: Path) -> bool:
    """Return whether a folder holds a search, before a sweep in the folder above."""
    is_named_so = folder.name in SEARCHES and (folder / LEDGER).is_file()
    return is_named_so and any("then" in session for session in Ledger(folder).read()[0])


def latest(asked: str) -> Path:
    """Return the folder of the sweep under multirun/ that was written last.

    Args:
        asked: What the user typed, for the error message.

    Raises:
        ConfigError: There is no sweep.
    """
    found = list(_sweeps(Path("multirun")))
    if not found:
        raise ConfigError(f"{asked}: no sweep under {Path('multirun').resolve()}")
    return max(found, key=_written)


def at_work(folder: Path) -> AtWork:
    """Return who works on a sweep, by the clock of this machine: nothing is written.

    It is to be asked before the ledger is read: what is written last comes before the end.
    """
    now = time.time()
    living = Liveness(folder, clock=lambda _: now).living()
    return AtWork(is_active(folder), frozenset(facts["worker"] for facts in living))


def is_active(folder: Path) -> bool:
    """Return whether a command works on a sweep. A job that outlives its command counts: it holds the same lock."""
    return files.may_be_locked(folder / SWEEP_LOCK)


def _sweeps(folder: Path) -> Iterator[Path]:
    """Yield the sweeps in a folder, at any depth, without a look into their runs."""
    for child in folder.glob("*/"):
        if is_sweep(child):
            yield child
        elif not child.is_symlink():
            yield from _sweeps(child)


def _written(folder: Path) -> float:
    """Return when something last happened in a sweep."""
    searches = (folder / name / LEDGER for name in SEARCHES)
    ledgers = (folder / LEDGER, *searches, *folder.glob(f"{WORKERS}/*.jsonl"))
    return max(path.stat().st_mtime for path in ledgers if path.is_file())
