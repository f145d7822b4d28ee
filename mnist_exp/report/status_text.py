"""The status of a sweep in words, once or until the sweep is over."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from mnist_exp.report import status
from mnist_exp.report.status import ALIVE, GONE, Run, Stage, Status, Worker
from mnist_exp.store.run_folder import COMPLETED, FAILED, INTERRUPTED, LOG, LR_SEARCH, PENDING, RUNNING, SEARCHES
from mnist_exp.system import program, quoting
from mnist_exp.system.pace import PAUSE, until_next_look

MOST = 8  # rows of a list; more are counted
MOST_FAILURES = 5  # of them, because many fail alike
UNLIMITED = 100_000  # columns: wider than any line


class Line(NamedTuple):
    """A line, and how a terminal shows it."""

    text: str
    style: str = ""


def print_status(target: str, watch: bool = False) -> None:
    """Print the status of a sweep.

    A terminal wraps lines at its width, and shows colour unless NO_COLOR is set. A pipe gets whole lines.

    Args:
        target: The folder of a sweep, or `latest`.
        watch: Whether to go on until all runs have ended. A terminal is redrawn; a pipe gets a line for each change.

    Raises:
        ConfigError: The target is not a sweep of this program, or its ledger is damaged.
        OSError: A file can't be read.
    """
    found = status.read(target)
    if watch and sys.stdout.isatty():
        _redraw(found)
    elif watch:
        _follow(found)
    else:
        Console(width=None if sys.stdout.isatty() else UNLIMITED).print(_shown(lines(found)))


def lines(found: Status) -> list[Line]:
    """Return the status, a line at a time."""
    stage = found.stage
    sessions = (found.search or stage).sessions
    command = sessions[0].get("command", "") if sessions else ""
    text = [Line(str(found.folder), "bold"), Line(quoting.shown(command), "dim"), Line("")]
    text += prospects(found)
    text += _section("Workers", _workers(stage))
    shared = stage.shared_overrides
    text += _section("Running", _running(stage, shared))
    text += _section("Failed", _failed(stage, shared))
    following = commands(found)
    return [*text, *_section("Next", _columns(following, len(following)))]


def prospects(found: Status) -> list[Line]:
    """Return how many runs are in each state, whether somebody works on the sweep, and when the rest will be done."""
    return [*_progress(found), *map(Line, _who(found.stage)), *map(Line, _when(found.stage))]


def summary(found: Status) -> str:
    """Return the status in one line."""
    stage = found.stage
    parts = [_counted(stage) if found.sweep else f"{_search(stage)}: {_counted(stage)}"]
    if stage.left and not stage.is_worked_on:
        parts.append("nobody works on it")
    elif stage.left and (outlook := stage.outlook):
        parts.append(f"{duration(outlook.seconds)} left at this rate")
    return "; ".join(parts)


def now(found: Status) -> list[Line]:
    """Return what runs now and when the rest will be done, in a few lines, each with what matters most first."""
    stage = found.stage
    shared, runs = stage.shared_overrides, [run for run in stage.runs if run.state == RUNNING]
    count_of_word = Counter(word for run in runs[:MOST] for word in run.job.overrides)
    rows = []
    for run in runs[:MOST]:
        own = sorted((word for word in run.job.overrides if word not in shared), key=count_of_word.__getitem__)
        rows.append([f"  #{run.number}", f"epoch {run.epoch} of {stage.epochs(run)}", quoting.shown(" ".join(own))])
    return [Line(_counted(stage), "bold"), *map(Line, _when(stage)), *map(Line, _columns(rows, len(runs)))]


def duration(seconds: float) -> str:
    """Return a time in the unit in which it has about two digits."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _search(stage: Stage) -> str:
    return "learning-rate search" if stage.folder.name == LR_SEARCH else "search"


def _progress(found: Status) -> Iterator[Line]:
    """Yield how many runs are in each state, of the search and of the sweep."""
    if found.search:
        yield Line(f"{_search(found.search)}: {_counted(found.search)}")
    if found.sweep:
        yield Line(f"sweep: {_counted(found.sweep)}" if found.search else _counted(found.sweep), "bold")
    if (most := found.stage.most_runs) and not found.is_over:
        yield Line(f"Results decide how many seeds follow: at most {_count(most, 'run')}.")
    if not found.sweep:
        runs = _count(found.after_search, "run")
        is_of_rates = found.search and found.search.folder.name == LR_SEARCH
        yield Line(
            f"then {runs}, with the rates that it chooses"
            if is_of_rates
            else f"then {runs} of the default, and as many of each setting that it chooses"
        )


def _counted(stage: Stage) -> str:
    return status.counted(stage.counts, stage.planned)


def _who(stage: Stage) -> Iterator[str]:
    """Yield whether somebody works on the sweep; the list of workers says who they are."""
    if stage.is_stopping:
        yield "The command that worked on it is ending: no further run starts."
    elif stage.is_active:
        yield f"A command has worked on it since {_clock(stage.began)}."
    elif stage.left and not stage.is_worked_on:
        yield "Nobody works on it."
        if job := stage.slurm_job:
            yield f"It was handed over to Slurm: squeue -j {job} says whether tasks wait."


def _when(stage: Stage) -> Iterator[str]:
    """Yield the rate of the last runs, and when the others will be done at that rate."""
    if not stage.is_worked_on or stage.is_stopping or not stage.left:
        return
    found = stage.outlook
    if not found:
        yield "How long the rest takes is unknown until a run has ended."
        return
    interval = "too few runs have ended for an interval"
    if found.low is not None and found.high is not None:
        interval = f"95 % interval: {duration(found.low)} to {duration(found.high)}"
    ended = f"The last {found.runs:,} runs ended at a rate of" if found.runs > 1 else "One run has ended; the rate is"
    yield f"{ended} {_rate(found.per_second)}."
    until = _clock(stage.now + found.seconds)
    yield f"The rest takes {duration(found.seconds)} at this rate, until {until} ({interval})."
    if stage.new_arms:
        new = _count(stage.new_arms, "setting" if stage.folder.name in SEARCHES else "arm")
        yield (
            f"No run of {new} has ended yet. If these runs are slower than the others, the rest takes longer; look "
            "again when some have ended."
        )


def _workers(stage: Stage) -> list[str]:
    """Return a row for each worker: those at work first, then those that were seen last."""
    workers = sorted(stage.workers, key=lambda worker: (worker.state != ALIVE, -worker.seen))
    return _columns([about_worker(worker, stage.now) for worker in workers[:MOST]], len(workers))


def about_worker(worker: Worker, now: float) -> list[str]:
    """Return where a worker runs, since when or until when, and how many runs ended with it."""
    name = f"{worker.host}, Slurm task {worker.slurm}" if worker.slurm else worker.name
    return [name, _last_seen(worker, now), f"{_count(worker.ended, 'run')} ended"]


def _last_seen(worker: Worker, now: float) -> str:
    if worker.state == ALIVE:
        return f"at work since {_clock(worker.started)}"
    if worker.state == GONE:
        return f"gone: no sign of life for {duration(now - worker.seen)}"
    return f"ended at {_clock(worker.seen)}"


def _running(stage: Stage, shared: Collection[str]) -> list[str]:
    runs = [run for run in stage.runs if run.state == RUNNING]
    rows = [[name_of(run, shared), f"epoch {run.epoch} of {stage.epochs(run)}", str(run.path)] for run in runs[:MOST]]
    return _columns(rows, len(runs))


def _failed(stage: Stage, shared: Collection[str]) -> list[str]:
    runs = [run for run in stage.runs if run.state == FAILED]
    rows = [
        [f"{name_of(run, shared)}: {quoting.shown(run.job.error or f'see {run.path / LOG}')}"]
        for run in runs[:MOST_FAILURES]
    ]
    return _columns(rows, len(runs))


def commands(found: Status) -> list[list[str]]:
    """Return the commands that may be typed next, and what each does."""
    stage = found.stage
    again = status.resume(found.folder, status.kept(stage.sessions))
    rows = []
    if stage.is_handed_over and stage.counts[PENDING] + stage.counts[INTERRUPTED]:
        work = f"{program.tool('work')} {quoting.for_shell(str(found.folder))}"
        rows.append([work, "works on it, on any machine that sees the folder"])
    if not stage.is_worked_on and (stage.left or not found.sweep):
        rows.append([again, "hands over what is left" if stage.is_handed_over else "goes on"])
    elif not stage.is_worked_on and stage.counts[FAILED]:
        rows.append([f"{again} hydra.sweeper.retry_failed=true", "runs the failed ones again"])
    if stage.counts[COMPLETED]:
        rows.append([_tool("report", stage), "reports on what is completed"])
    return rows


def _tool(name: str, stage: Stage) -> str:
    return f"{program.tool(name)} {quoting.for_shell(str(stage.folder))}"


def name_of(run: Run, shared: Collection[str]) -> str:
    """Return the number of a run, and the overrides that others do not have."""
    own = [word for word in run.job.overrides if word not in shared]
    return quoting.shown(" ".join([f"#{run.number}", *own]))


def _section(title: str, rows: Sequence[str]) -> list[Line]:
    return [Line(""), Line(title, "bold"), *(Line(f"  {row}") for row in rows)] if rows else []


def _columns(rows: Sequence[Sequence[str]], count: int) -> list[str]:
    """Return rows in aligned columns, and how many of `count` are not shown."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [*text, f"and {count - len(rows):,} more"] if count > len(rows) else text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _rate(per_second: float) -> str:
    """Return a rate in the unit in which it is 1 or more, if there is one."""
    for size, unit in ((1, "a second"), (60, "a minute"), (3600, "an hour")):
        if per_second * size >= 1 or unit == "an hour":
            return f"{per_second * size:,.{0 if per_second * size >= 10 else 1}f} {unit}"
    raise AssertionError


def _clock(seconds: float) -> str:
    """Return a time of day, with its date if it is not today."""
    moment, today = datetime.fromtimestamp(seconds), datetime.now()
    return f"{moment:%H:%M}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M}"


def _shown(text: Sequence[Line]) -> Group:
    return Group(*(Text(line.text, line.style) for line in text))


def _redraw(found: Status) -> None:
    """Show the status in a terminal until the sweep is over."""
    with Live(_shown(lines(found)), auto_refresh=False, vertical_overflow="crop") as live:
        for later in _looks(found):
            live.update(_shown(lines(later)), refresh=True)


def _follow(found: Status) -> None:
    """Print a line for each change until the sweep is over."""
    said = ""
    for later in _looks(found):
        if (counted := _counted(later.stage)) != said:
            print(summary(later), flush=True)
        said = counted


def _looks(found: Status) -> Iterator[Status]:
    """Yield the status now and again, until the sweep is over."""
    pause = PAUSE
    while True:
        yield found
        if found.is_over:
            return
        time.sleep(pause)
        began = time.monotonic()
        found = status.read(str(found.folder))
        pause = until_next_look(began)
