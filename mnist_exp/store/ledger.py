"""The ledger of a sweep: one line of JSON per event, with a checksum, appended and synced to the disk.

`ledger.jsonl` has the sessions and the list of jobs. Each worker of a sweep on several machines writes a file of its
own under `workers/`, and readers merge the files: the attempt that an event belongs to says where it stands.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict, cast

from filelock import FileLock

from mnist_exp import config
from mnist_exp.store.provenance import Machine
from mnist_exp.store.result import Result
from mnist_exp.store.run_folder import LEDGER, SPLIT_KEYS, WORKERS, GitFacts
from mnist_exp.system import files
from mnist_exp.system.collector import without_collector
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
    # Or running, completed, pruned, failed, interrupted; replaced: its config is no longer asked for.
    status: str = "pending"
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
    result: Result | None = None  # of a completed job; older versions did not record it

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
    jobs = list(jobs)
    words = dict.fromkeys(word for job in jobs for word in job.overrides)
    beside = [key for key in dict.fromkeys(map(config.key_of, words)) if not config.is_in_identity(key)]
    ids = len({job.config_id for job in jobs})
    return tuple(key for key in beside if len({job.id_beside([key]) for job in jobs}) > ids)


KEYS = {"job", "time", *Job._fields} - {"number"}  # of an entry about a job


BLOCK = 2000  # lines that are parsed at once
_Event = tuple[int, dict[str, Any], Path, int]  # about a job: its attempt, the entry, the file and the line


class _Merged:
    """What the events so far make of a job."""

    __slots__ = ("attempt", "introduction", "later", "line")

    def __init__(self) -> None:
        self.attempt, self.line = 0, 0  # of the last event, and of the introduction
        self.introduction: dict[str, Any] = {}
        self.later: dict[str, Any] = {}  # what happened in this attempt

    def apply(self, attempt: int, entry: dict[str, Any], path: Path, line: int) -> None:
        """Apply an event, whose attempt is not an earlier one.

        Raises:
            ConfigError: The event is damaged.
        """
        try:
            status, time = entry["status"], entry["time"]
            if not KEYS.issuperset(entry):
                raise KeyError(*(entry.keys() - KEYS))
            if status == "pending":
                self.introduction, self.later, self.line = entry, {}, line
            elif not self.introduction:
                raise KeyError(f"job {entry['job']} is not introduced before")
            else:
                if status == "running" and attempt > self.attempt:
                    self.later = {}  # it knows nothing of earlier attempts
                self.later |= entry
                self.later["started" if status == "running" else "ended"] = time
        except (KeyError, TypeError) as error:
            raise _damaged(path, line, error) from error
        self.attempt = attempt

    def apply_all(self, events: deque[_Event], before: float = math.inf) -> None:
        """Take the events of attempts before this one from a queue, and apply them."""
        while events and events[0][0] < before:
            self.apply(*events.popleft())

    def job(self, path: Path) -> Job:
        """Return the job.

        Raises:
            ConfigError: Its introduction, in this file, is damaged.
        """
        fields = self.introduction | self.later
        try:
            del fields["time"]
            number, fields["attempt"] = fields.pop("job"), self.attempt
            return Job(number, **fields)
        except (KeyError, TypeError) as error:
            raise _damaged(path, self.line, error) from error


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
            of_workers: dict[int, list[_Event]] = {}
            for event in [event for path in sorted(self.workers.glob("*.jsonl")) for event in _read_worker(path)]:
                of_workers.setdefault(event[1]["job"], []).append(event)
            waiting = {number: deque(sorted(events, key=itemgetter(0))) for number, events in of_workers.items()}
            sessions, jobs = self._read_list(waiting)
            for number, events in waiting.items():
                jobs.setdefault(number, _Merged()).apply_all(events)
            return sessions, {number: each.job(self.path) for number, each in jobs.items()}

    def _read_list(self, of_workers: Mapping[int, deque[_Event]]) -> tuple[list[Session], dict[int, _Merged]]:
        """Return what ledger.jsonl has: the sessions, and the jobs with what workers wrote about earlier attempts.

        An entry without an attempt belongs to the last one so far.
        """
        sessions: list[Session] = []
        jobs: dict[int, _Merged] = {}
        introduced: dict[int, dict[str, Any]] = {}  # the choices of each job
        line = 1
        try:
            for line, entry in _entries(self.path, self.require_ours):
                number = entry.get("job")
                if number is None:
                    sessions.append(cast(Session, entry))
                    continue
                if entry["status"] == "pending":
                    _complete(entry, introduced)
                job = jobs.get(number) or jobs.setdefault(number, _Merged())
                attempt = max(job.attempt, entry["attempt"]) if "attempt" in entry else job.attempt
                if number in of_workers:
                    job.apply_all(of_workers[number], before=attempt)
                job.apply(attempt, entry, self.path, line)
        except (KeyError, TypeError) as error:
            raise _damaged(self.path, line, error) from error
        return sessions, jobs

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


def _entries(path: Path, check: Callable[[bytes], None] = lambda first: None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the entries of a file, and the number of the line of each. What follows the last newline is torn.

    Raises:
        ConfigError: A line is damaged, or `check` refuses the first one.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    if lines:
        check(lines[0])
    for start in range(0, len(lines), BLOCK):  # all at once would take much memory, and time to get it
        yield from enumerate(_unsealed(path, lines[start : start + BLOCK], start + 1), start + 1)


def _unsealed(path: Path, lines: Sequence[bytes], start: int) -> list[dict[str, Any]]:
    """Return the entries of lines, the first of which has the number `start`.

    Raises:
        ConfigError: A line is damaged.
    """
    try:
        return files.unseal_lines(lines)
    except ValueError:
        for number, line in enumerate(lines, start):
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
    return [
        (entry.get("attempt", 0), entry | {"worker": path.stem}, path, number)
        for number, entry in _entries(path)
        if "job" in entry
    ]


def _damaged(path: Path, line: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: line {line} is damaged ({type(error).__name__}: {error}); restore the file, or delete the line and "
        "lose what it says"
    )
