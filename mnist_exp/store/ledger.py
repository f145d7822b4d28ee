"""The ledger of a sweep: one line of JSON per event, with a checksum, appended and synced to the disk.

`ledger.jsonl` has the sessions and the list of jobs. Each worker of a sweep on several machines writes a file of its
own under `workers/`, and readers merge the files: the attempt that an event belongs to says where it stands.
"""

from __future__ import annotations

import gc
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict, cast

from filelock import FileLock

from mnist_exp import config
from mnist_exp.store.provenance import Machine
from mnist_exp.store.run_folder import LEDGER, SPLIT_KEYS, WORKERS, GitFacts
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

VERSION = 3  # of the format of the lines
READABLE = (2, VERSION)
PROGRAM = "mnist_exp"


class Session(TypedDict, total=False):
    """A command that worked on a sweep."""

    program: str
    ledger: int  # VERSION
    time: str
    command: str
    versions: dict[str, str]
    git: GitFacts | None
    machine: Machine
    allow_changed: bool  # it could continue although code, packages or data had changed
    new: int  # the number of jobs that follow; if some are missing, a crash tore the list
    then: list[list[str]]  # of a learning-rate search: the overrides of the jobs that come after it
    trials: list[list[Any]]  # of a learning-rate search: for each of these jobs the number of rates, and the seeds
    then_until: dict[str, float]  # of a learning-rate search: `until` of the sweep that comes after it
    search: dict[str, Any]  # of a search over intervals and choices: what it searches, and how
    until: dict[str, float]  # of a sequential sweep: max_seeds, and smallest, in percentage points
    launcher: dict[str, Any]  # of a session that hands its jobs over to workers: the launcher's config
    slurm: dict[str, Any]  # the ids of its jobs at Slurm


class Seeds(NamedTuple):
    """What tells the runs of an arm apart."""

    split: int  # data.seed, which cuts the images into training, validation and perhaps test images
    run: int  # seed, which covers all else that is random


class Job(NamedTuple):
    """One job of a sweep, as the ledger knows it."""

    number: int
    overrides: tuple[str, ...]
    config_id: str
    arm: str  # the config_id without config.SEEDS: equal for jobs that differ in nothing else
    seed: int
    choices: dict[str, Any]  # every key of its config, and the option of each group
    status: str = (
        "pending"  # running, completed, pruned, failed, interrupted; replaced: its config is no longer asked for
    )
    value: float | None = None  # the best validation loss
    error: str | None = None
    failure: str | None = None  # how the run itself failed, as errors.failure says
    data: str | None = None  # SHA-256 of the data that a completed or pruned job was trained on
    pid: int | None = None  # of the process that ran it last
    started: str | None = None
    ended: str | None = None
    attempt: int = 0  # counts its introductions and the workers that took it; a later attempt overrules earlier ones
    batch: int | None = None  # the number of the jobs that a worker takes at once; None: no worker takes it
    host: str | None = None  # of the process that ran it last
    worker: str | None = None  # that ran it last; None: a process of the command itself

    def id_beside(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Return a value that is equal for jobs of equal config_id whose values of `keys` are equal too."""
        return self.config_id, *(json.dumps(self.choices.get(key), sort_keys=True) for key in keys)

    def arm_beside(self, keys: Sequence[str]) -> str:
        """Return a name that is equal for jobs of one arm whose values of `keys` are equal too."""
        return " ".join([self.arm, *self.id_beside(keys)[1:]])

    @property
    def seeds(self) -> Seeds:
        """The values of config.SEEDS."""
        return Seeds(int(self.choices.get("data.seed", 0)), self.seed)

    @property
    def source(self) -> str:
        """A value that is equal for jobs which ask for the same data set, however they split it."""
        ignored = {f"data.{key}" for key in (*SPLIT_KEYS, "root")}
        keys = {key for key in self.choices if key.partition(".")[0] == "data"} - ignored
        return repr([(key, self.choices[key]) for key in sorted(keys)])

    def introduction(self) -> dict[str, Any]:
        """Return the ledger's first entry about the job, or about another attempt at it."""
        fields = ("overrides", "config_id", "arm", "seed", "choices")
        later = {"attempt": self.attempt or None, "batch": self.batch}
        return (
            {"job": self.number, "status": "pending"}
            | {field: value for field, value in later.items() if value is not None}
            | {field: getattr(self, field) for field in fields}
        )


def introductions(jobs: Iterable[Job]) -> Iterator[dict[str, Any]]:
    """Yield the ledger's first entry about each job, as short as it can be.

    Choices that a job shares with an earlier one of these jobs are left out: `"like": 7` names that job.
    """
    first: dict[tuple[str, ...], Job] = {}
    for job in jobs:
        like = first.setdefault(tuple(job.choices), job)
        if like is job:
            yield job.introduction()
        else:
            own = {key: value for key, value in job.choices.items() if not is_same(value, like.choices[key])}
            yield job._replace(choices=own).introduction() | {"like": like.number}


def is_same(one: Any, other: Any) -> bool:
    """Return whether JSON has the same text for two values: 1, 1.0 and true are equal in Python."""
    return one is other or repr(one) == repr(other)


def keys_beside_identity(jobs: Iterable[Job]) -> tuple[str, ...]:
    """Return the typed keys that tell jobs of equal config_id apart, such as `threads` in `threads=1,2`."""
    jobs_of_id: defaultdict[str, list[Job]] = defaultdict(list)
    typed: dict[str, None] = {}
    for job in jobs:
        jobs_of_id[job.config_id].append(job)
        typed |= dict.fromkeys(map(config.key_of, job.overrides))
    return tuple(
        key
        for key in typed
        if not config.is_in_identity(key)
        and any(len({job.id_beside([key]) for job in same}) > 1 for same in jobs_of_id.values())
    )


KEYS = {"job", "time", *Job._fields} - {"number"}  # of an entry about a job


class _Event(NamedTuple):
    """An entry about a job, and where it stands."""

    attempt: int
    entry: dict[str, Any]
    path: Path
    line: int


class Ledger:
    """The files `ledger.jsonl` and `workers/*.jsonl` in the folder of a sweep.

    Every process of the sweep on one machine may append to the first. Each worker appends to its own file.

    Attributes:
        path: The list of jobs, whose existence makes a folder a sweep.
        own: The file that this process appends to.
    """

    def __init__(self, folder: Path, worker: str | None = None) -> None:
        """Describe the ledger of a folder, without touching it.

        Args:
            folder: The folder of the sweep.
            worker: The name of the worker that this process is; None for the command, and for its jobs.
        """
        self.path, self.workers = folder / LEDGER, folder / WORKERS
        self.own = self.workers / f"{worker}.jsonl" if worker else self.path

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Append one line per entry, and return when they are on the disk.

        A last line that a crash or a full disk tore is cut off before.

        Raises:
            OSError: The file can't be written.
        """
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        lines = "".join(files.seal_line({"time": time, **entry}) + "\n" for entry in entries)
        self.own.parent.mkdir(exist_ok=True)
        with self._lock(), open(self.own, "a+b") as file:
            if file.tell() and not _ends_with_newline(file):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def _lock(self) -> AbstractContextManager[object]:
        """Return the lock of ledger.jsonl. The file of a worker has one writer, and needs none."""
        return FileLock(self.path.with_name(f".{LEDGER}.lock")) if self.own == self.path else nullcontext()

    def read(self) -> tuple[list[Session], dict[int, Job]]:
        """Return every session, and every job by its number. Torn last lines are ignored.

        Raises:
            ConfigError: Another line is damaged, or the file is not a ledger of a version that this one reads.
        """
        with without_collector():
            # Before ledger.jsonl is read: then it introduces every job that the workers know.
            of_workers = [event for path in sorted(self.workers.glob("*.jsonl")) for event in _read_worker(path)]
            sessions, events = self._read_list()
            for event in of_workers:
                events.setdefault(event.entry["job"], []).append(event)
            return sessions, {number: _merge(number, of_job) for number, of_job in events.items()}

    def _read_list(self) -> tuple[list[Session], dict[int, list[_Event]]]:
        """Return the sessions and the events of ledger.jsonl. One without an attempt belongs to the last one so far."""
        sessions: list[Session] = []
        events: dict[int, list[_Event]] = {}
        introduced: dict[int, dict[str, Any]] = {}  # the choices of each job
        lines = _whole_lines(self.path)
        if lines:
            self.require_ours(lines[0])
        entries = enumerate(_unsealed(self.path, lines), start=1)
        try:
            for line, entry in entries:
                if "job" not in entry:
                    sessions.append(cast(Session, entry))
                    continue
                if entry["status"] == "pending":
                    _complete(entry, introduced)
                of_job = events.setdefault(entry["job"], [])
                last = of_job[-1].attempt if of_job else 0
                of_job.append(_Event(max(last, entry.get("attempt", 0)), entry, self.path, line))
        except (KeyError, TypeError) as error:
            raise _damaged(self.path, line, error) from error
        return sessions, events

    def require_ours(self, line: bytes) -> None:
        """Raise ConfigError if a first line is not that of a ledger which this version reads."""
        try:
            first = json.loads(line)
            program, version = first.get("program"), first.get("ledger")
        except (ValueError, AttributeError) as error:
            raise _damaged(self.path, 1, error) from error
        if program != PROGRAM:
            raise ConfigError(f"{self.path}: is not the ledger of a sweep by {PROGRAM}")
        if version not in READABLE:
            readable = " and ".join(map(str, READABLE))
            raise ConfigError(f"{self.path}: has format {version}; this version reads formats {readable}")


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file. What follows the last newline is torn, or nothing."""
    return path.read_bytes().split(b"\n")[:-1]


def _unsealed(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the entries of lines. Raises ConfigError for the first damaged one."""
    try:
        return files.unseal_lines(lines)
    except ValueError:
        for number, line in enumerate(lines, start=1):
            try:
                files.unseal_lines([line])
            except ValueError as error:
                raise _damaged(path, number, error) from error
        raise


def _complete(entry: dict[str, Any], introduced: dict[int, dict[str, Any]]) -> None:
    """Give an introduction the choices that it shares with the job which it is `like`."""
    entry["overrides"] = tuple(entry["overrides"])
    if "like" in entry:
        entry["choices"] = introduced[entry.pop("like")] | entry["choices"]
    introduced[entry["job"]] = entry["choices"]


def _read_worker(path: Path) -> list[_Event]:
    """Return what a worker has written about jobs."""
    entries = enumerate(_unsealed(path, _whole_lines(path)), start=1)
    return [
        _Event(entry.get("attempt", 0), entry | {"worker": path.stem}, path, number)
        for number, entry in entries
        if "job" in entry
    ]


def _merge(number: int, events: list[_Event]) -> Job:
    """Return what the events of all files make of a job."""
    introduction: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    try:
        for event in sorted(events, key=attrgetter("attempt")):
            status, time = event.entry["status"], event.entry["time"]
            if status == "pending":
                introduction = event.entry | {"attempt": event.attempt}
            elif not introduction:
                raise KeyError(f"job {number} is not introduced before")
            if status == "pending" or (status == "running" and event.attempt > fields["attempt"]):
                fields = introduction.copy()  # it knows nothing of earlier attempts
            if status != "pending":
                fields |= event.entry
                fields["started" if status == "running" else "ended"] = time
            if not fields.keys() <= KEYS:
                raise KeyError(*(fields.keys() - KEYS))
            fields["attempt"] = event.attempt
        del fields["job"], fields["time"]
        return Job(number, **fields)
    except (KeyError, TypeError) as error:
        raise _damaged(event.path, event.line, error) from error


def _damaged(path: Path, line: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: line {line} is damaged ({type(error).__name__}: {error}); restore the file, or delete the line and "
        "lose what it says"
    )


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause the garbage collector, which would look through all entries again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
