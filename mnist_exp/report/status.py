"""What of a sweep is done, who works on it, and when the rest will be done.

Nothing is written into the folder of the sweep, so its status may be read while others work on it.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from heapq import nlargest
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from mnist_exp.config import key_of
from mnist_exp.store import metrics, progress, sweep_folder, workers
from mnist_exp.store.ledger import Session
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.progress import Progress
from mnist_exp.store.run_folder import COMPLETED, FAILED, LEDGER, PRUNED, SEARCHES, STATUSES, STOP_FILE
from mnist_exp.system import program, quoting
from mnist_exp.system.collector import without_collector

ENDED = (COMPLETED, PRUNED, FAILED)  # an interrupted run goes on when the sweep is resumed
ALIVE, OVER, GONE = "alive", "over", "gone"  # states of a worker; gone: it died
PAUSE = 60  # seconds in which nothing ran: the rate counts from their end
ENOUGH = 5_000  # runs that ended last; more would cost time, and change little
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
    """A run of the sweep."""

    number: int
    folder: Path  # of the sweep
    job: Progress
    state: str  # one of STATUSES

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder / str(self.number)

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(metrics.read_columns(self.path / METRICS).get("epoch", []))


class Stage(NamedTuple):
    """A search, or the sweep itself."""

    folder: Path
    sessions: Sequence[Session]
    runs: Sequence[Run]
    is_active: bool  # a command holds the sweep's lock
    is_stopping: bool  # that command starts no further run
    workers: Sequence[Worker]
    now: float
    jobs: Mapping[int, Progress]
    to_come: int = 0  # further runs of a search, whose settings depend on these
    most: int | None = None  # runs of a search that may give a trial fewer seeds

    @property
    def counts(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(run.state for run in self.runs)

    @property
    def planned(self) -> int:
        """The number of runs, with those that are still to come."""
        return len(self.runs) + self.to_come

    @property
    def left(self) -> int:
        """The number of runs that have not ended."""
        counts = self.counts
        return self.planned - sum(counts[state] for state in ENDED)

    @property
    def is_worked_on(self) -> bool:
        """Whether a command or a worker is at work."""
        return self.is_active or any(worker.state == ALIVE for worker in self.workers)

    @property
    def began(self) -> float:
        """When the last command began to work on it."""
        return _seconds(self.sessions[-1]["time"]) if self.sessions else self.now

    @property
    def is_handed_over(self) -> bool:
        """Whether the last command left the runs to workers."""
        return bool(self.sessions) and "launcher" in self.sessions[-1]

    @property
    def slurm_job(self) -> str | None:
        """The Slurm job to which the last command handed it over."""
        facts: Mapping[str, Any] = self.sessions[-1] if self.sessions else {}
        return (facts.get("slurm") or {}).get("job")

    @property
    def outlook(self) -> Outlook | None:
        """When the rest will be done; None if nobody works on it, or no run has ended since somebody began."""
        if not self.is_worked_on or self.is_stopping:
            return None
        ended = nlargest(
            ENOUGH, ((_seconds(run.job.ended), run) for run in self.runs if run.state in ENDED), key=itemgetter(0)
        )
        spans = [(_seconds(run.job.started), seconds) for seconds, run in ended if run.job.started]
        since = self.began if self.is_active else 0  # an earlier command may have been interrupted long ago
        return outlook([span for span in spans if span[0] >= since], self.left, self.now)

    @property
    def shared_overrides(self) -> set[str]:
        """The overrides that all runs have in common, beside the seed; none if there is one run."""
        if len(self.runs) < 2:
            return set()
        first = [word for word in self.runs[0].job.overrides if key_of(word) != "seed"]
        texts = {word: json.dumps(word).encode() for word in first}
        return {word for word, text in texts.items() if all(text in run.job.introduction for run in self.runs)}

    def epochs(self, run: Run) -> Any:
        """Return the number of epochs that a run will have, unless patience ends it early."""
        return progress.choice(self.jobs, run.number, "epochs")

    @property
    def new_arms(self) -> int:
        """The number of arms that have runs to come, and of which none has ended."""
        arms: dict[bool, set[str]] = {True: set(), False: set()}
        for run in self.runs:
            arms[run.state in ENDED].add(run.job.arm)
        return len(arms[False] - arms[True])

    @property
    def most_runs(self) -> int | None:
        """The most runs of a sequential sweep, or of a search that prunes by seeds; None where the seeds are fixed."""
        if self.most:
            return self.most
        rules = [session["until"] for session in self.sessions if "until" in session]
        return round(rules[-1]["max_seeds"]) * len({run.job.arm for run in self.runs}) if rules else None


class Status(NamedTuple):
    """What a sweep is doing."""

    folder: Path
    search: Stage | None  # the search that comes first
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


def counted(counts: Mapping[str, int], planned: int) -> str:
    """Return how many runs have each status: "12 of 40 runs completed, 2 running, 26 pending"."""
    runs = "run" if planned == 1 else "runs"
    rest = [f"{counts[status]:,} {status}" for status in STATUSES[1:] if counts[status]]
    return ", ".join([f"{counts[COMPLETED]:,} of {planned:,} {runs} completed", *rest])


def resume(folder: Path, kept_words: Sequence[str]) -> str:
    """Return the command that resumes a sweep."""
    return quoting.command("-m", *kept_words, quoting.override("resume", folder))


def kept(sessions: Sequence[Session]) -> list[str]:
    """Return the words of the last command that a resume needs too: where configs are found, and the launcher.

    A launcher that hands the sweep over to workers is known from the ledger.
    """
    session: Mapping[str, Any] = sessions[-1] if sessions else {}
    words = shlex.split(str(session.get("command", "")))
    found: list[str] = []
    for word, following in pairwise([*words, ""]):
        if word.partition("=")[0] in program.CONFIG_FLAGS:
            found += [word] if "=" in word else [word, following]
        elif word.startswith(("hydra/launcher", "hydra.launcher")) and "launcher" not in session:
            found.append(word)
    return found


def read(target: str) -> Status:
    """Return the status of a sweep.

    Args:
        target: The folder of a sweep, or `latest`: the sweep under multirun/ that was written last.

    Raises:
        ConfigError: The target is not a sweep of this program, or its ledger is damaged.
        OSError: A file can't be read.
    """
    folder = sweep_folder.find(target)
    found = [folder / name for name in SEARCHES if (folder / name / LEDGER).is_file()]
    search = _stage(found[0]) if found else None
    sweep = _stage(folder) if (folder / LEDGER).is_file() else None
    lists = [session["then"] for session in search.sessions if "then" in session] if search else []
    if search and not sweep:
        asked = _asked(search.sessions)
        is_most = _prunes_by_seeds(search.sessions)
        to_come = 0 if is_most else max(0, asked - len(search.runs))
        search = search._replace(most=asked if is_most else None, to_come=to_come)
    return Status(folder, search, sweep, len(lists[-1]) if lists else 0)


def _prunes_by_seeds(sessions: Sequence[Session]) -> bool:
    """Return whether a search may give a trial fewer seeds than the command says: see hydra.sweeper.prune."""
    asked: list[Mapping[str, Any]] = [session["search"] for session in sessions if "search" in session]
    pruner = asked[-1].get("pruner", {}) if asked else {}
    return pruner.get("pruner") == "wilcoxon" or pruner.get("resource") == "seeds"


def _asked(sessions: Sequence[Session]) -> int:
    """Return how many runs the last command asked a search for: of each arm the trials, times their seeds."""
    asked = [session for session in sessions if "then" in session][-1:]
    pairs = [pair for session in asked for pair in zip(session["then"], session.get("trials", ()), strict=False)]
    arms = {tuple(word for word in words if key_of(word) != "seed"): trials for words, trials in pairs}
    return sum(number * len(seeds) for number, seeds in arms.values())


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
    at_work = sweep_folder.at_work(folder)
    with without_collector():
        sessions, jobs = progress.read(folder)
        known = [(number, jobs[number]) for number in sorted(jobs) if jobs[number].status != "replaced"]
        found = _workers(folder, [job for _, job in known], at_work.workers)
        runs = [Run(number, folder, job, at_work.status(job)) for number, job in known]
    is_stopping = at_work.command and (folder / STOP_FILE).exists()
    return Stage(folder, sessions, runs, at_work.command, is_stopping, found, time.time(), jobs)


def _workers(folder: Path, jobs: Iterable[Progress], living: Collection[str]) -> list[Worker]:
    """Return what the workers' files say about them. By the clock of this machine: nothing is written."""
    ended = Counter(job.worker for job in jobs if job.status in ENDED)
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


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0
