"""A quick look at the ledger of a large sweep: where each job stands, and nothing else.

`Ledger.read` checks every line and knows every choice, which takes seconds for 100,000 jobs. Here only the beginnings
of the lines are read, and no checksums.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mnist_exp.store import workers
from mnist_exp.store.ledger import Ledger, Session

EVENT = re.compile(  # a line about a job, which begins like this
    rb'\{"time": "(?P<time>[^"]+)", "job": (?P<job>\d+)(?:, "attempt": (\d+))?, "status": "(?P<status>\w+)"'
    rb'(?:, "attempt": (\d+))?.*\}\n'
)
ATTEMPT = re.compile(rb'"attempt": (\d+)')
ARM = re.compile(rb'"arm": "([^"]*)"')
_Event = re.Match[bytes]  # of EVENT


@dataclass(slots=True)
class Progress:
    """Where a job stands."""

    _introduction: _Event
    _last: _Event
    attempt: int = 0
    status: str = "pending"  # as that of ledger.Job
    worker: str | None = None  # that ran it last
    _start: _Event | None = None

    @property
    def started(self) -> str | None:
        """The time of its last start."""
        return self._start["time"].decode() if self._start else None

    @property
    def ended(self) -> str | None:
        """The time at which it ended, if it has."""
        return None if self.status in ("pending", "running") else self._last["time"].decode()

    @property
    def introduction(self) -> bytes:
        """The line that introduced it."""
        return self._introduction[0]

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
    def process(self) -> tuple[str | None, int | None]:
        """The host and id of the process that runs it, if it is running. Runs that are trained as one have the same."""
        entry = json.loads(self._last[0])
        return entry.get("host"), entry.get("pid")

    @property
    def error(self) -> str | None:
        """As that of ledger.Job."""
        return cast("str | None", json.loads(self._last[0]).get("error"))

    def update(self, event: _Event, status: str, worker: str | None) -> None:
        """Apply an event that is not an introduction, and not of an earlier attempt."""
        self._last, self.status = event, status
        self.worker = worker or self.worker
        if status == "running":
            self._start = event


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
        ledger.require_ours(content[: content.index(b"\n")])
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
    has_attempts = b'"attempt": ' in content
    for event in _events(content, sessions):
        _, text, early, word, late = event.groups()
        number, status, attempt = int(text), word.decode(), early or late
        if not attempt and has_attempts and (found := ATTEMPT.search(event[0])):  # after other facts
            attempt = found[1]
        before = jobs.get(number)
        if status == "pending":
            jobs[number] = Progress(event, event, max(int(attempt or 0), before.attempt if before else 0))
        elif before and (not attempt or int(attempt) >= before.attempt):
            before.attempt = int(attempt or before.attempt)
            before.update(event, status, worker)


def _events(content: bytes, sessions: list[Session]) -> Iterator[_Event]:
    """Yield what the whole lines of a file say about jobs, and collect the lines of sessions."""
    start = 0
    while True:
        if event := EVENT.match(content, start):
            start = event.end()
            yield event
            continue
        end = content.find(b"\n", start) + 1
        if not end:
            return
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(content[start:end])
            if "job" in entry:
                begins = {key: entry[key] for key in ("time", "job", "status")}
                if event := EVENT.match(json.dumps(begins | entry).encode() + b"\n"):
                    yield event
            elif "program" in entry:
                sessions.append(entry)
        start = end
