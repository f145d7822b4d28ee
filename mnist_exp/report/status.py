"""What of a sweep is done, who works on it, and when the rest will be done.

Nothing is written into the folder of the sweep, so its status may be read while others work on it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from mnist_exp.config import key_of
from mnist_exp.store import metrics, sweep_folder, workers
from mnist_exp.store.ledger import Job, Ledger, Session
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import LEDGER, LR_SEARCH
from mnist_exp.store.workers import Liveness

COMPLETED, RUNNING, WAITING, STOPPED, FAILED = "completed", "running", "waiting", "stopped", "failed"
STATES = (COMPLETED, RUNNING, WAITING, STOPPED, FAILED)  # of a run; stopped: it goes on when the sweep is resumed
ENDED = (COMPLETED, FAILED)
ALIVE, OVER, GONE = "alive", "over", "gone"  # states of a worker; gone: it died
PAUSE = 60  # seconds in which nothing ran: the rate counts from their end
MOMENTS = 20  # the last moments at which runs ended, from which the rate is taken
# Student's t for 95 %, with 2, 3, ... degrees of freedom; the last one for more
T95 = (4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)


class Outlook(NamedTuple):
    """How fast runs end, and how long the others will take at that rate."""

    runs: int  # the last ones that ended, whose rate it is
    per_second: float
    seconds: float  # until the rest is done
    low: float | None  # the interval of 95 % of `seconds`; None if too few runs have ended
    high: float | None


class Worker(NamedTuple):
    """A process that takes runs from the sweep's folder."""

    name: str
    host: str
    slurm: str | None  # its job and task, such as 52_3
    started: float
    seen: float  # its last sign of life
    state: str  # ALIVE, OVER or GONE
    ended: int  # the number of runs that ended with it


class Run(NamedTuple):
    """A run of the sweep, and what is known of its course."""

    folder: Path
    job: Job
    state: str  # one of STATES

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(metrics.read_columns(self.folder / METRICS).get("epoch", []))


class Stage(NamedTuple):
    """A learning-rate search, or the sweep itself."""

    folder: Path
    sessions: Sequence[Session]
    runs: Sequence[Run]
    is_active: bool  # a command of a machine that holds the sweep's lock works on it
    workers: Sequence[Worker]
    now: float

    @property
    def counts(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(run.state for run in self.runs)

    @property
    def left(self) -> int:
        """The number of runs that have not ended."""
        return sum(run.state not in ENDED for run in self.runs)

    @property
    def is_worked_on(self) -> bool:
        """Whether a command or a worker is at work."""
        return self.is_active or any(worker.state == ALIVE for worker in self.workers)

    @property
    def began(self) -> float:
        """When the last command began to work on it."""
        return _seconds(self.sessions[-1]["time"]) if self.sessions else self.now

    @property
    def slurm_job(self) -> str | None:
        """The Slurm job to which the last command handed it over."""
        facts: Mapping[str, Any] = self.sessions[-1] if self.sessions else {}
        return (facts.get("slurm") or {}).get("job")

    @property
    def outlook(self) -> Outlook | None:
        """When the rest will be done; None if nobody works on it, or no run has ended since somebody began."""
        if not self.is_worked_on:
            return None
        spans = [(_seconds(run.job.started), _seconds(run.job.ended)) for run in self.runs if _has_ended(run)]
        since = self.began if self.is_active else 0  # an earlier command may have been interrupted long ago
        return outlook([span for span in spans if span[0] >= since], self.left, self.now)

    @property
    def shared_overrides(self) -> set[str]:
        """The overrides that all runs have in common, beside the seed; none if there is one run."""
        shared = (
            {word for word in self.runs[0].job.overrides if key_of(word) != "seed"} if len(self.runs) > 1 else set()
        )
        for run in self.runs:
            shared.intersection_update(run.job.overrides)
        return shared

    @property
    def new_arms(self) -> int:
        """The number of arms that have runs to come, and of which none has ended."""
        arms: dict[bool, set[str]] = {True: set(), False: set()}
        for run in self.runs:
            arms[run.state in ENDED].add(run.job.arm)
        return len(arms[False] - arms[True])

    @property
    def most_runs(self) -> int | None:
        """The most runs of a sequential sweep; None for a sweep whose seeds are fixed."""
        rules = [session["until"] for session in self.sessions if "until" in session]
        return round(rules[-1]["max_seeds"]) * len({run.job.arm for run in self.runs}) if rules else None


class Status(NamedTuple):
    """What a sweep is doing."""

    folder: Path
    search: Stage | None  # the learning-rate search that comes first
    sweep: Stage | None  # None until the search has ended
    after_search: int  # the number of runs that follow a search, as far as they are known

    @property
    def stage(self) -> Stage:
        """What is under way, or came last."""
        stage = self.sweep or self.search
        assert stage
        return stage

    @property
    def is_over(self) -> bool:
        """Whether every run has ended and nobody works on the sweep."""
        return bool(self.sweep) and not self.stage.left and not self.stage.is_worked_on


def read(target: str) -> Status:
    """Return the status of a sweep.

    Args:
        target: The folder of a sweep, or `latest`: the sweep under multirun/ that was written last.

    Raises:
        ConfigError: The target is not a sweep of this program, or its ledger is damaged.
        OSError: A file can't be read.
    """
    folder = sweep_folder.find(target)
    search, sweep = (_stage(each) if (each / LEDGER).is_file() else None for each in (folder / LR_SEARCH, folder))
    lists = [session["then"] for session in search.sessions if "then" in session] if search else []
    return Status(folder, search, sweep, len(lists[-1]) if lists else 0)


def outlook(spans: Iterable[tuple[float, float]], left: int, now: float) -> Outlook | None:
    """Return how fast runs end, and how long others will take at that rate.

    The rate is that of the last runs, back to the last pause in which nothing ran. Runs that ended at one moment, as
    those of a fused group do, count as one observation. The interval is that of a ratio estimate, for the sum of what
    is to come. It takes for granted that the runs to come are like the last ones.

    Args:
        spans: When each run that ended was started, and when it ended, in seconds.
        left: The number of runs that have not ended.
        now: The time.

    Returns:
        The outlook; None if no run has ended.
    """
    start, ends = _unbroken(spans)
    moments = sorted(Counter(ends).items())
    if len(moments) > MOMENTS:
        start, moments = moments[-MOMENTS - 1][0], moments[-MOMENTS:]
    if not moments:
        return None
    times, numbers = zip(*moments, strict=True)
    runs, mean = sum(numbers), sum(numbers) / len(numbers)
    # A moment that is overdue counts, or a sweep that hangs would seem to go on at its old rate.
    pace = max((times[-1] - start) / runs, (now - start) / (runs + mean), 1e-9)
    seconds = pace * left
    if len(moments) < 3:
        return Outlook(runs, 1 / pace, seconds, None, None)
    gaps = [after - before for before, after in zip((start, *times), times, strict=False)]
    spread = sum((gap - pace * number) ** 2 for gap, number in zip(gaps, numbers, strict=True)) / (len(gaps) - 1)
    to_come = left / mean
    margin = T95[min(len(gaps) - 1, len(T95) + 1) - 2] * math.sqrt(spread * to_come * (1 + to_come / len(gaps)))
    return Outlook(runs, 1 / pace, seconds, max(0.0, seconds - margin), seconds + margin)


def _unbroken(spans: Iterable[tuple[float, float]]) -> tuple[float, list[float]]:
    """Return when the last stretch of work without a pause began, and when the runs in it ended."""
    start = math.inf
    found: list[float] = []
    for started, ended in sorted(spans, key=lambda span: -span[1]):
        if found and ended < start - PAUSE:
            break
        start = min(start, started)
        found.append(ended)
    return start, found


def _stage(folder: Path) -> Stage:
    is_active = sweep_folder.is_active(folder)  # first: what it writes last comes before the lock is free
    sessions, jobs = Ledger(folder).read()
    now = time.time()
    known = [job for _, job in sorted(jobs.items()) if job.status != "replaced"]
    found = _workers(folder, known, now)
    alive = {worker.name for worker in found if worker.state == ALIVE}
    runs = [Run(folder / str(job.number), job, _state(job, is_active, alive)) for job in known]
    return Stage(folder, sessions, runs, is_active, found, now)


def _state(job: Job, is_active: bool, alive: set[str]) -> str:
    """Return the state of a run. One that was running when its process died is stopped."""
    if job.status == "running":
        worker = getattr(job, "worker", None)
        return RUNNING if (worker in alive if worker else is_active) else STOPPED
    return {"pending": WAITING, "interrupted": STOPPED}.get(job.status, job.status)


def _workers(folder: Path, jobs: Iterable[Job], now: float) -> list[Worker]:
    """Return what the workers' files say about them. By the clock of this machine: nothing is written."""
    ended = Counter(getattr(job, "worker", None) for job in jobs if job.status in ENDED)
    living = {facts["worker"] for facts in Liveness(folder, clock=lambda _: now).living()}
    found = []
    for name in workers.names(folder):
        path, facts = workers.file_of(folder, name), workers.read(folder, name)
        if facts:
            state = ALIVE if name in living else OVER if workers.has_ended(path) else GONE
            slurm = facts["slurm"]
            task = f"{slurm['job']}_{slurm['task']}" if slurm else None
            seen = path.stat().st_mtime
            found.append(Worker(name, facts["host"], task, _seconds(facts["started"]), seen, state, ended[name]))
    return found


def _has_ended(run: Run) -> bool:
    return run.state in ENDED and bool(run.job.started and run.job.ended)


def _seconds(time: Any) -> float:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else float(time or 0)
