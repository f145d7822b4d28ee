"""The ledger of a sweep: one line of JSON per event, with a checksum, appended and synced to the disk."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict, cast

from filelock import FileLock

from mnist_exp import config
from mnist_exp.store.provenance import Machine
from mnist_exp.store.run_folder import LEDGER, SPLIT_KEYS, GitFacts
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

VERSION = 2  # of the format of the lines
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
    status: str = "pending"  # running, completed, failed, interrupted; replaced: its config is no longer asked for
    value: float | None = None  # the best validation loss
    error: str | None = None
    failure: str | None = None  # how the run itself failed, as errors.failure says
    data: str | None = None  # SHA-256 of the data that a completed job was trained on
    pid: int | None = None  # of the process that ran it last
    started: str | None = None
    ended: str | None = None

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
        return {"job": self.number, "status": "pending"} | {field: getattr(self, field) for field in fields}


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


class Ledger:
    """The file `ledger.jsonl` in the folder of a sweep. Every process of the sweep may append to it."""

    def __init__(self, folder: Path) -> None:
        """Describe the ledger of a folder, without touching it."""
        self.path = folder / LEDGER

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Append one line per entry, and return when they are on the disk.

        A last line that a crash or a full disk tore is cut off before.

        Raises:
            OSError: The file can't be written.
        """
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        lines = "".join(files.seal({"time": time, **entry}) + "\n" for entry in entries)
        with FileLock(self.path.with_name(f".{LEDGER}.lock")), open(self.path, "a+b") as file:
            if file.tell() and not _ends_with_newline(file):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> tuple[list[Session], dict[int, Job]]:
        """Return every session, and every job by its number. A torn last line is ignored.

        Raises:
            ConfigError: Another line is damaged, or the file is not a ledger of this version.
        """
        sessions: list[Session] = []
        jobs: dict[int, Job] = {}
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn, or nothing
            try:
                if number == 1:
                    self._require_ours(json.loads(line))
                entry = files.unseal(line)
                time = entry.pop("time")
                if "job" in entry:
                    _update(jobs, entry, time)
                else:
                    sessions.append(cast(Session, entry | {"time": time}))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(
                    f"{self.path}: line {number} is damaged ({type(error).__name__}: {error}); restore the file, or "
                    "delete the line and lose what it says"
                ) from error
        return sessions, jobs

    def _require_ours(self, first: dict[str, Any]) -> None:
        if first.get("program") != PROGRAM:
            raise ConfigError(f"{self.path}: is not the ledger of a sweep by {PROGRAM}")
        if first.get("ledger") != VERSION:
            raise ConfigError(f"{self.path}: has format {first.get('ledger')}; this version reads format {VERSION}")


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _update(jobs: dict[int, Job], entry: dict[str, Any], time: str) -> None:
    """Apply one entry: a pending one introduces its job, the others change it."""
    number, status = entry.pop("job"), entry.pop("status")
    if status == "pending":
        jobs[number] = Job(number, tuple(entry.pop("overrides")), **entry)
        return
    times: dict[str, Any] = {"started" if status == "running" else "ended": time}
    jobs[number] = jobs[number]._replace(status=status, **times, **entry)
