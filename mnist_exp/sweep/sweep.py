"""The state of one sweep in its folder: the ledger, the lock, the stop file, and the jobs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from mnist_exp.store import run_folder, workers
from mnist_exp.store.ledger import Job, Ledger, Session
from mnist_exp.store.result import Result
from mnist_exp.store.run_folder import ENDED_WELL, STOP_FILE, SWEEP_LOCK, WORKERS
from mnist_exp.store.workers import Worker
from mnist_exp.sweep.plan import DONE
from mnist_exp.system import files, quoting, signals
from mnist_exp.system.errors import ConfigError

CLOSED = ".closed"  # written when a worker has closed the sweep
RUNNING_FILE = ".running"  # every job holds a shared lock on it
INTERRUPTED = {128 + number for number in signals.STOP_SIGNALS}  # the exit codes of an interrupted run


class Outcome(TypedDict, total=False):
    """How a job ended, as the ledger records it."""

    status: str  # completed, pruned, failed, interrupted
    value: float | None  # the best validation loss
    data: str | None  # SHA-256 of the data that the job was trained on, if it is completed or pruned
    error: str | None
    failure: str | None  # how the run itself failed: diverged, out of memory, error
    result: Result | None  # of a completed job


class Sweep:
    """One sweep and its folder.

    Attributes:
        folder: The folder of the sweep.
        ledger: What has happened in it.
        stop_file: The file whose existence stops the sweep.
        name: The folder that commands know the sweep by.
    """

    def __init__(self, folder: Path, worker: Worker | None = None, name: Path | None = None) -> None:
        """Describe a sweep, without touching its folder.

        Args:
            folder: The folder of the sweep.
            worker: The worker that this process is. It writes its own part of the ledger, and stops only itself.
            name: Of a search, the folder of the sweep after it.
        """
        self.folder, self.name = folder, name or folder
        self.ledger = Ledger(folder, worker.name if worker else None)
        self.stop_file = worker.stop_file if worker else folder / STOP_FILE

    @property
    def exists(self) -> bool:
        """Whether the sweep has a ledger."""
        return self.ledger.path.exists()

    def read(self) -> tuple[list[Session], dict[int, Job]]:
        """Return the sessions and the jobs by number. An ended job whose results are gone has the status `lost`.

        Raises:
            ConfigError: The ledger is damaged.
        """
        sessions, jobs = self.ledger.read() if self.exists else ([], {})
        return sessions, {
            number: job._replace(status="lost") if self._is_lost(job) else job for number, job in jobs.items()
        }

    def _is_lost(self, job: Job) -> bool:
        folder = self.job_folder(job.number)
        return job.status in ENDED_WELL and not run_folder.has_status(folder, job.config_id, job.status)

    def require_whole_list(self) -> None:
        """Raise ConfigError if a crash tore the list of jobs."""
        sessions, jobs = self.ledger.read()
        if len(jobs) < sum(session.get("new", 0) for session in sessions):
            raise ConfigError(
                f"{self.ledger.path}: a crash tore its list of jobs; type the whole command again, with "
                f"{quoting.override('hydra.sweep.dir', self.folder)}"
            )

    def unfinished(self, retry_failed: bool) -> list[tuple[str, ...]]:
        """Return the overrides of the jobs that are left to run."""
        done = DONE if retry_failed else (*DONE, "failed")
        return [job.overrides for job in self.read()[1].values() if job.status not in done]

    def job_folder(self, number: int) -> Path:
        """Return the run folder of a job."""
        return self.folder / str(number)

    @property
    def is_closed(self) -> bool:
        """Whether a worker has closed the sweep after the last one wrote about a job."""
        closed = self.folder / CLOSED
        written = [path.stat().st_mtime for path in (self.folder / WORKERS).glob("*.jsonl")]
        return closed.exists() and closed.stat().st_mtime > max(written, default=0)

    def mark_closed(self) -> None:
        """Record that a worker has closed the sweep."""
        (self.folder / CLOSED).touch()

    @property
    def launcher(self) -> dict[str, Any] | None:
        """The config of the launcher that handed jobs over to workers last; None if none did."""
        found = [session["launcher"] for session in self.read()[0] if "launcher" in session]
        return found[-1] if found else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that runs this sweep. A job that outlives its sweep holds the lock as well.

        Raises:
            ConfigError: Another process works on the sweep.
        """
        message = f"{self.folder}: another process is working on this sweep"
        with files.locked_or_error(self.folder / SWEEP_LOCK, message):
            with files.locked_or_error(self.folder / RUNNING_FILE, message):
                pass
            yield

    @contextmanager
    def not_planned(self) -> Iterator[None]:
        """Keep every other command from changing the list of jobs in the block.

        Raises:
            BlockingIOError: Another command is about to change it.
        """
        with files.locked(self.folder / SWEEP_LOCK, shared=True):
            yield

    def require_no_workers(self) -> None:
        """Raise ConfigError if workers take jobs of this sweep."""
        if living := workers.Liveness(self.folder).living():
            hosts = ", ".join(sorted({facts["host"] for facts in living}))
            raise ConfigError(
                f"{self.name}: {len(living)} {'worker takes' if len(living) == 1 else 'workers take'} jobs of this "
                f"sweep (on {hosts}); wait for the end, or stop it with Ctrl-C there"
            )

    def running(self) -> AbstractContextManager[None]:
        """Hold the lock of a running job."""
        return files.locked(self.folder / RUNNING_FILE, shared=True)

    def stop(self, code: int | None = None) -> None:
        """Start no further job.

        Args:
            code: The exit code of the sweep; None leaves it as it is.
        """
        if code or not self.is_stopped:
            with suppress(OSError):  # a full disk; the jobs meet it as well
                files.write(self.stop_file, str(code or "").encode())

    @property
    def is_stopped(self) -> bool:
        """Whether no further job starts."""
        return self.stop_file.exists()

    @property
    def exit_code(self) -> int:
        """The exit code that a signal gave the sweep; 0 if there was none."""
        return int(self.stop_file.read_text() or 0) if self.is_stopped else 0

    def running_pids(self) -> set[int]:
        """Return the other processes on this machine that run jobs of this command, as far as the ledger knows."""
        here = (platform.node(), None)  # older versions did not say it
        jobs = [job for job in self.ledger.read()[1].values() if job.status == "running" and not job.worker]
        return {job.pid for job in jobs if job.pid and job.host in here} - {os.getpid()}

    def record_dead_jobs(self) -> None:
        """Mark jobs whose process died as completed, pruned, failed or interrupted, by what they left."""
        liveness = workers.Liveness(self.folder)
        running = [job for job in self.ledger.read()[1].values() if job.status == "running"]
        dead = [job for job in running if not job.worker or liveness.is_dead(job.worker)]
        if dead:
            self.ledger.append(*map(self.settled, dead))

    def settled(self, job: Job) -> dict[str, Any]:
        """Return what the ledger records about a job whose process died. It overrules what a dead worker wrote."""
        found = outcome(self.job_folder(job.number), job.config_id)
        return {"job": job.number, "attempt": job.attempt + 1, **found}


def outcome(
    folder: Path, config_id: str, code: int | None = None, error: str | None = None, failure: str | None = None
) -> Outcome:
    """Return what the ledger records about the end of a job.

    Args:
        folder: The run folder of the job.
        config_id: The config_id of the job.
        code: The exit code of the job's process; None if its parent process is gone.
        error: What the process raised, in one line.
        failure: How the process failed by itself, as errors.failure says.
    """
    try:
        summary = run_folder.read_summary(folder)
    except ConfigError:  # a damaged file says nothing
        summary = None
    if summary and summary["status"] in ENDED_WELL and summary["config_id"] == config_id:
        data, status = summary["data"], str(summary["status"])
        return {"status": status, "value": summary["best_val_loss"], "data": data["sha256"] if data else None}
    if code is None or code in INTERRUPTED:
        return {"status": "interrupted"}
    if summary and summary["status"] == "failed":
        return {"status": "failed", "error": summary["error"], "failure": summary["failure"]}
    error = error or f"exit code {code}: see {folder / run_folder.LOG}"
    return {"status": "failed", "error": error, "failure": failure}
