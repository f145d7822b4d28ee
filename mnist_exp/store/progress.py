"""A quick look at the ledger of a large sweep: where each job stands, and nothing else.

`Ledger.read` checks every line and knows every choice, which takes seconds for 100,000 jobs. Here only the beginnings
of the lines are read, and no checksums.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mnist_exp.store import workers
from mnist_exp.store.ledger import Ledger, Session

# What comes first in a line about a job
EVENT = re.compile(
    rb'\{"time": "([^"]+)", "job": (\d+)(?:, "attempt": (\d+))?, "status": "(\w+)"(?:, "attempt": (\d+))?'
)
ATTEMPT = re.compile(rb'"attempt": (\d+)')
ARM = re.compile(rb'"arm": "([^"]*)"')


@dataclass(slots=True)
class Progress:
    """Where a job stands."""

    introduction: bytes  # the line that introduced it
    last: bytes  # the last line about it
    status: str = "pending"  # as that of ledger.Job
    attempt: int = 0
    started: str | None = None  # the time of its last start
    ended: str | None = None
    worker: str | None = None  # that ran it last

    @property
    def arm(self) -> str:
        """As that of ledger.Job."""
        found = ARM.search(self.introduction)
        return found[1].decode() if found else ""

    @property
    def overrides(self) -> list[str]:
        """As those of ledger.Job."""
        return cast(list[str], json.loads(self.introduction)["overrides"])

    @property
    def error(self) -> str | None:
        """As that of ledger.Job."""
        return cast("str | None", json.loads(self.last).get("error"))

    def update(self, status: str, time: str, attempt: int | None, line: bytes, worker: str | None) -> None:
        """Apply an event that is not an introduction, unless a later attempt is known."""
        if attempt is not None:
            if attempt < self.attempt:
                return
            self.attempt = attempt
        self.status, self.last = status, line
        self.worker = worker or self.worker
        if status == "running":
            self.started, self.ended = time, None
        else:
            self.ended = time


def read(folder: Path) -> tuple[list[Session], dict[int, Progress]]:
    """Return every session, and where every job stands, by its number. Torn and damaged lines are ignored.

    Raises:
        ConfigError: The first line is not that of a ledger which this version reads.
        OSError: A file can't be read.
    """
    of_workers = [(name, workers.file_of(folder, name).read_bytes()) for name in workers.names(folder)]
    ledger = Ledger(folder)
    content = ledger.path.read_bytes()  # after those of the workers: it introduces every job that they know
    if b"\n" in content:
        ledger.require_ours(content.partition(b"\n")[0])
    sessions: list[Session] = []
    jobs: dict[int, Progress] = {}
    _apply(content, None, sessions, jobs)
    for name, lines in of_workers:
        _apply(lines, name, [], jobs)
    return sessions, jobs


def choice(jobs: Mapping[int, Progress], number: int, key: str) -> Any:
    """Return the value of a key for a job; None if it has none."""
    entry = json.loads(jobs[number].introduction)
    if key in entry["choices"] or "like" not in entry:
        return entry["choices"].get(key)
    return choice(jobs, entry["like"], key)


def _apply(content: bytes, worker: str | None, sessions: list[Session], jobs: dict[int, Progress]) -> None:
    """Apply the whole lines of a file to what is known of jobs, and collect those of sessions."""
    for line in content.split(b"\n")[:-1]:
        if begins := EVENT.match(line):
            time, number, early, status, late = begins.groups()
            attempt = early or late
            if not attempt and b'"attempt": ' in line:  # after other facts
                attempt = ATTEMPT.findall(line)[0]
            _update(jobs, int(number), status.decode(), time.decode(), int(attempt) if attempt else None, line, worker)
            continue
        with suppress(ValueError, KeyError):
            entry = json.loads(line)
            if "job" in entry:
                facts = entry["job"], entry["status"], entry["time"], entry.get("attempt")
                _update(jobs, *facts, line, worker)
            elif "program" in entry:
                sessions.append(entry)


def _update(
    jobs: dict[int, Progress],
    number: int,
    status: str,
    time: str,
    attempt: int | None,
    line: bytes,
    worker: str | None,
) -> None:
    """Apply an event to what is known of its job."""
    before = jobs.get(number)
    if status == "pending":
        jobs[number] = Progress(line, line, attempt=max(attempt or 0, before.attempt if before else 0))
    elif before:
        before.update(status, time, attempt, line, worker)
