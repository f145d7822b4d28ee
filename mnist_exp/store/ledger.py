"""A sweep's ledger: a line of JSON for everything that happens, appended and synced. What it says is so."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock

from mnist_exp import config
from mnist_exp.store import run_folder
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

VERSION = 2  # of the lines' format
PROGRAM = "mnist_exp"


class Job(NamedTuple):
    """One job of a sweep, as the ledger knows it."""

    number: int
    overrides: tuple[str, ...]
    config_id: str
    arm: str  # config_id without the seed: jobs that differ in nothing else share it
    seed: int
    choices: dict[str, Any]  # every key of its config, and the option of each group
    status: str = "pending"  # running, completed, failed, interrupted; replaced: its config is no longer asked for
    value: float | None = None
    error: str | None = None
    failure: str | None = None  # how it failed by its own doing, as errors.failure has it
    data: str | None = None  # SHA-256 of the data that a completed job learned from
    pid: int | None = None  # of the process that last ran it
    started: str | None = None
    ended: str | None = None

    def id_beside(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Equal for equal jobs, where those that differ in `keys` (keys_beside_identity) are not."""
        return self.config_id, *(json.dumps(self.choices.get(key), sort_keys=True) for key in keys)

    def arm_beside(self, keys: Sequence[str]) -> str:
        """Equal for jobs of an arm, where those that differ in `keys` (keys_beside_identity) are not of one."""
        return " ".join([self.arm, *self.id_beside(keys)[1:]])

    def introduction(self) -> dict[str, Any]:
        """The ledger's first line about the job, or about another attempt at it."""
        return {"job": self.number, "status": "pending"} | {field: getattr(self, field) for field in INTRODUCED}


def keys_beside_identity(jobs: Iterable[Job]) -> tuple[str, ...]:
    """Keys that were typed and tell jobs apart that their config_id does not: in `threads=1,2`, say."""
    alike, typed = defaultdict[str, list[Job]](list), dict[str, None]()
    for job in jobs:
        alike[job.config_id].append(job)
        typed |= dict.fromkeys(map(config.key_of, job.overrides))
    return tuple(
        key
        for key in typed
        if not config.makes_a_run(key)
        and any(len({job.id_beside([key]) for job in same}) > 1 for same in alike.values())
    )


INTRODUCED = ("overrides", "config_id", "arm", "seed", "choices")


class Ledger:
    """The file `ledger.jsonl` of a sweep's folder. Any process of the sweep may append."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / run_folder.LEDGER

    def append(self, *entries: dict[str, Any]) -> None:
        """Add a line for each entry, and return when they are on the disk. Raises OSError.

        A last line that a crash or a full disk tore is cut off first.
        """
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        lines = "".join(files.seal({"time": time} | entry) + "\n" for entry in entries)
        with FileLock(self.path.with_name(f".{run_folder.LEDGER}.lock")), open(self.path, "a+b") as file:
            if file.tell() and not _ends_with_a_newline(file):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> tuple[list[dict[str, Any]], dict[int, Job]]:
        """Every session (a command that worked on the sweep) and every job by its number.

        A last line that a crash tore is passed over. Raises ConfigError for damage anywhere else.
        """
        sessions, jobs = list[dict[str, Any]](), dict[int, Job]()
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn, or nothing
            try:
                if number == 1:
                    self._require_ours(json.loads(line))
                entry = files.unseal(line)
                time = entry.pop("time")
                if "job" in entry:
                    _tell(jobs, entry, time)
                else:
                    sessions.append(entry | {"time": time})
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(
                    f"{self.path}: line {number} is damaged ({type(error).__name__}: {error}); put the file back as it "
                    "was, or delete that line: what it told is then unknown"
                ) from error
        return sessions, jobs

    def _require_ours(self, first: dict[str, Any]) -> None:
        if first.get("program") != PROGRAM:
            raise ConfigError(f"{self.path}: not the ledger of a sweep by {PROGRAM}")
        if first.get("ledger") != VERSION:
            raise ConfigError(f"{self.path}: of format {first.get('ledger')}; this version reads {VERSION}")


def _ends_with_a_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _tell(jobs: dict[int, Job], entry: dict[str, Any], time: str) -> None:
    """What one line says of a job: a pending one introduces it, the others change it."""
    number, status = entry.pop("job"), entry.pop("status")
    if status == "pending":
        jobs[number] = Job(number, tuple(entry.pop("overrides")), **entry)
        return
    times: dict[str, Any] = {"started" if status == "running" else "ended": time}
    jobs[number] = jobs[number]._replace(status=status, **times, **entry)
