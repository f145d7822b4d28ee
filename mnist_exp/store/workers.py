"""The workers of a sweep: a file for each, which says who it is, what it did, and whether it lives.

    workers/node7-4711-09ab.jsonl

The first line names the worker, its machine and its process; events of jobs follow, as in the ledger; the last line of
a worker that ended in order says so. A living worker holds a lock on its file, and touches it every few seconds.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from mnist_exp.store.run_folder import WORKERS
from mnist_exp.system import files

CLOCK = ".clock"  # beside the workers' files: touching it tells the time of the file server, which judges heartbeats
HEARTBEAT = 15  # seconds between two touches
SILENCE = 120  # seconds without a touch after which a worker is dead
BOOT = Path("/proc/sys/kernel/random/boot_id")  # equal for processes that see the same locks
OF_SLURM = re.compile(r"-(?P<job>\d+)_(?P<task>\d+)-(?P<restart>\d+)-[0-9a-f]{4}$")  # the end of a worker's name


class Slurm(TypedDict):
    """The Slurm task that a worker is."""

    job: str  # of the array
    task: int
    restart: int  # how often Slurm has requeued it


class Facts(TypedDict):
    """The first line of a worker's file."""

    worker: str  # its name
    host: str
    boot: str | None  # of the machine's kernel
    pid: int
    started: str
    slurm: Slurm | None
    n_jobs: int  # that it trains side by side


class Worker(NamedTuple):
    """This process, as a worker of a sweep.

    Attributes:
        folder: The folder of the sweep.
        facts: What others know about it.
    """

    folder: Path
    facts: Facts

    @property
    def name(self) -> str:
        """The name of the worker, which no other ever has."""
        return self.facts["worker"]

    @property
    def path(self) -> Path:
        """The worker's file."""
        return file_of(self.folder, self.name)

    @property
    def stop_file(self) -> Path:
        """The file whose existence stops this worker alone."""
        return self.path.with_suffix(".stop")


@contextmanager
def living(folder: Path, n_jobs: int, on_silence: Callable[[], None]) -> Iterator[Worker]:
    """Be a worker of a sweep in the block, whose file others can see.

    Args:
        folder: The folder of the sweep.
        n_jobs: How many jobs the worker trains side by side.
        on_silence: What to call, in a thread, if the worker was silent for so long that others hold it for dead: the
            machine was suspended, say.

    Raises:
        OSError: The folder can't be written.
    """
    worker = Worker(folder, _facts(n_jobs))
    with ExitStack() as life:
        _create(worker, life)
        life.callback(worker.stop_file.unlink, missing_ok=True)
        ended = threading.Event()
        thread = threading.Thread(target=_beat, args=(worker.path, ended, on_silence), daemon=True)
        thread.start()
        life.callback(thread.join)
        life.callback(ended.set)
        yield worker


def end(worker: Worker) -> None:
    """Write that a worker has ended in order: nobody has to wait until its silence shows it.

    Raises:
        OSError: The file can't be written.
    """
    _append(worker.path, {"worker": worker.name, "status": "ended"})


def file_of(folder: Path, name: str) -> Path:
    """Return the file of a worker."""
    return folder / WORKERS / f"{name}.jsonl"


def names(folder: Path) -> list[str]:
    """Return the names of all workers that a sweep has ever had."""
    return sorted(path.stem for path in (folder / WORKERS).glob("*.jsonl"))


def read(folder: Path, name: str) -> Facts | None:
    """Return the first line of a worker's file; None if it is gone, or damaged."""
    try:
        with open(file_of(folder, name), "rb") as file:
            return cast(Facts, files.unseal_lines([file.readline().rstrip(b"\n")])[0])
    except (OSError, ValueError):
        return None


class Liveness:
    """Tells which workers of a sweep are dead. Who is dead once is never asked about again."""

    def __init__(self, folder: Path, clock: Callable[[Path], float] | None = None) -> None:
        """Judge the workers of the sweep in a folder.

        Args:
            folder: The folder of the sweep.
            clock: Returns the time in the folder of the workers; by default the file server's, for which it is written.
        """
        self.folder, self._clock, self._dead = folder, clock or _time_at, {""}

    def is_dead(self, name: str) -> bool:
        """Return whether a worker will never go on."""
        if name not in self._dead and self._seems_dead(name):
            self._dead.add(name)
        return name in self._dead

    def living(self) -> list[Facts]:
        """Return the facts of the workers that live."""
        alive = [name for name in names(self.folder) if not self.is_dead(name)]
        return [facts for name in alive if (facts := read(self.folder, name))]

    def _seems_dead(self, name: str) -> bool:
        path, facts = file_of(self.folder, name), read(self.folder, name)
        try:
            is_on_this_machine = facts is not None and facts["boot"] == _boot() is not None
            return (
                has_ended(path)
                or (is_on_this_machine and not files.is_locked(path))
                or self._was_restarted(name)
                or self._clock(path.parent) - path.stat().st_mtime > SILENCE
            )
        except FileNotFoundError:
            return True

    def _was_restarted(self, name: str) -> bool:
        """Return whether Slurm has started the task of this worker again."""
        own = _slurm_of(name)
        others = filter(None, map(_slurm_of, names(self.folder))) if own else ()
        return any(other[:2] == own[:2] and other[2] > own[2] for other in others if own)


def _slurm_of(name: str) -> tuple[str, int, int] | None:
    """Return job, task and restart in the name of a worker."""
    found = OF_SLURM.search(name)
    return (found["job"], int(found["task"]), int(found["restart"])) if found else None


def slurm_task(environment: Mapping[str, str] = os.environ) -> Slurm | None:
    """Return the Slurm task that this process runs in; None outside Slurm."""
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
    if not job:
        return None
    return {
        "job": job,
        "task": int(environment.get("SLURM_ARRAY_TASK_ID", 0)),
        "restart": int(environment.get("SLURM_RESTART_COUNT", 0)),
    }


def _facts(n_jobs: int) -> Facts:
    slurm, host = slurm_task(), platform.node()
    place = f"{slurm['job']}_{slurm['task']}-{slurm['restart']}" if slurm else str(os.getpid())
    return {
        "worker": f"{re.sub(r'[^A-Za-z0-9.-]', '.', host)}-{place}-{secrets.token_hex(2)}",
        "host": host,
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _now(),
        "slurm": slurm,
        "n_jobs": n_jobs,
    }


def _create(worker: Worker, life: ExitStack) -> None:
    """Write a worker's file. It gets its name when it is locked: nobody sees a worker that seems to be dead."""
    worker.path.parent.mkdir(exist_ok=True)
    temporary = worker.path.with_name(f".{worker.name}.tmp")
    life.callback(temporary.unlink, missing_ok=True)
    _append(temporary, dict(worker.facts))
    life.enter_context(files.locked(temporary))
    temporary.rename(worker.path)


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    with open(path, "a") as file:
        file.write(files.seal_line({"time": _now(), **entry}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _beat(path: Path, ended: threading.Event, on_silence: Callable[[], None]) -> None:
    """Touch a worker's file until it ends, and notice if that did not happen for too long."""
    last = path.stat().st_mtime
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):  # the file server does not answer now
            os.utime(path)
            now = path.stat().st_mtime
            if now - last > SILENCE:
                on_silence()
                return
            last = now


def has_ended(path: Path) -> bool:
    """Return whether a worker's file says that it has ended in order."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        last = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        entry = json.loads(last)
    except ValueError:  # torn
        return False
    return isinstance(entry, dict) and "worker" in entry and entry.get("status") == "ended"


def _time_at(folder: Path) -> float:
    """Return the time by the clock of the file server; by that of this machine if the folder can't be written."""
    clock = folder / CLOCK
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:
        return time.time()


def _boot() -> str | None:
    """Return what is equal for processes under one kernel; None where it is unknown."""
    try:
        return BOOT.read_text().strip()
    except OSError:  # not Linux
        return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
