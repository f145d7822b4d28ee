"""Reads what a tracker shows of run folders: choices, rows with their times, results, pictures and files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from mnist_exp.report.labels import format_value, label, swept_keys
from mnist_exp.report.runs import RunResult, read_run, read_sweep
from mnist_exp.store import keeping, run_folder, sweep_folder
from mnist_exp.store.metrics import METRICS, Row
from mnist_exp.store.run_folder import FIGURES, INTERRUPTED, LAST, LOG, PENDING, RUNNING, SUMMARY
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

RESULTS = (  # keys of summary.json that are single figures; its `seconds` are those of the whole run, not of an epoch
    *("parameters", "best_epoch", "best_val_loss", "best_val_accuracy"),
    *("test_loss", "test_accuracy", "test_errors", "test_balanced_accuracy", "images_per_second"),
)
ANSWER = "report.md"
REPORT = ("report.html", ANSWER, "results.csv")  # in the folder of a sweep
LOGGED = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\]\[mnist_exp\b(?:.*\] epoch (\d+)/)?", re.MULTILINE)


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker shows of one run. Times are seconds since 1970."""

    id: str  # equal for the same run wherever its folder lies, 16 hexadecimal digits
    name: str
    folder: Path
    number: int  # in its sweep
    arm: str  # its swept choices in a few words; empty outside a sweep
    choices: Mapping[str, Any]  # every key of its config, and the option of each group
    tags: Mapping[str, str]
    labels: Sequence[str]  # what the user typed as tags=[...]
    status: str  # running, completed, pruned, failed, interrupted
    rows: Sequence[Row]
    times: Sequence[float]  # of the end of each row's epoch
    started: float
    ended: float | None  # None as long as it runs
    results: Mapping[str, float]  # those of RESULTS that are known
    files: Sequence[Path]  # summary.json and metrics.csv, as far as they exist
    models: Sequence[Path]  # those that were exported into its folder
    pictures: Sequence[Path]

    @property
    def state(self) -> str:
        """A value that is equal as long as nothing that a tracker shows has changed, 16 hexadecimal digits."""
        names = [path.name for path in (*self.models, *self.pictures)]
        shown = (self.status, self.rows, self.times, self.results, names)
        return _digest(repr(shown))


class Snapshot(NamedTuple):
    """A run or a sweep at one moment."""

    id: str  # as TrackedRun.id
    name: str
    folder: Path
    command: str | None  # of a sweep; None for a single run
    status: str  # as of a run; of a sweep, the worst of its runs
    runs: Sequence[TrackedRun]  # those that have begun, by number

    @property
    def report(self) -> list[Path]:
        """The files of the sweep's report that exist."""
        return _existing(self.folder, REPORT)

    @property
    def answer(self) -> str:
        """What the sweep's report says first, in Markdown; empty without a report."""
        texts = [path.read_text() for path in _existing(self.folder, [ANSWER])]
        return "".join(texts).partition("\n## ")[0]


def read(folder: Path) -> Snapshot:
    """Read a run or a sweep, finished or not.

    Raises:
        ConfigError: The folder is neither, or a file in it is damaged or of another version.
    """
    kind = run_folder.owner(folder)
    if kind == run_folder.SWEEP:
        return _read_sweep(folder)
    if kind == run_folder.RUN and keeping.has_begun(folder):
        return _read_run(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    if kind:
        raise ConfigError(f"{folder}: {kind}; name the folder of the sweep, {folder.parent}")
    raise ConfigError(f"{folder}: neither a run nor a sweep of this program: it has no {METRICS} and no ledger.jsonl")


def has_begun(folder: Path) -> bool:
    """Return whether the folder is that of a sweep, or of a single run whose training has started."""
    kind = run_folder.owner(folder)
    return kind == run_folder.SWEEP or (kind == run_folder.RUN and (folder / LAST).is_file())


def _read_sweep(folder: Path) -> Snapshot:
    # First: what is written last comes before the lock is free, and before a worker ends.
    active = sweep_folder.at_work(folder).anybody
    sessions, found = read_sweep(folder)
    if not sessions or not found:
        raise ConfigError(f"{folder}: the ledger has no jobs")
    first = sessions[0]
    sweep_id = _digest(first["time"], first["command"])
    swept = swept_keys(found)
    unfinished = {run.job.status for run in found}.intersection((PENDING, RUNNING, INTERRUPTED))
    runs = []
    for run in found:
        if run.job.status != "pending":
            arm = label({key: format_value(run.job.choices[key]) for key in swept if key in run.job.choices})
            run_id = _digest(sweep_id, str(run.job.number), run.job.config_id)
            runs.append(_tracked(run, run_id, f"{arm} seed={run.job.seed}", arm, active))
    statuses = {run.status for run in runs}
    worst = next((status for status in ("failed", "interrupted") if status in statuses), "completed")
    is_handed_over = "launcher" in sessions[-1]  # workers may come at any time
    status = RUNNING if active or (unfinished and is_handed_over) else INTERRUPTED if PENDING in unfinished else worst
    return Snapshot(sweep_id, _name(folder), folder, first["command"], status, runs)


def _read_run(folder: Path) -> Snapshot:
    active = files.may_be_locked(folder / LOG)
    run = read_run(folder)
    with open(folder / LOG, errors="replace") as log:
        run_id = _digest((folder / run_folder.HYDRA).read_text(), log.readline())  # these tell its path and its time
    tracked = _tracked(run, run_id, _name(folder), "", active)
    return Snapshot(run_id, _name(folder), folder, None, tracked.status, [tracked])


def _tracked(run: RunResult, run_id: str, name: str, arm: str, active: bool) -> TrackedRun:
    job, summary = run.job, cast(dict[str, Any], run.summary)
    status = "interrupted" if job.status == "running" and not active else job.status  # it was killed
    rows = [Row(int(epoch), *figures) for epoch, *figures in zip(*run.curves.values(), strict=True)]
    logged = _logged(run.folder)
    started = logged[0][0] if logged else _seconds(job.started)
    times = list(_times(rows, started, {int(epoch): time for time, epoch in logged if epoch}))
    git = summary["git"] or {}
    tags = {
        "arm": arm,
        "seed": str(job.seed),
        "config_id": job.config_id,
        "commit": git.get("commit"),
        "error": job.error,
        "stopped": summary["stopped"],
    }
    last = logged[-1][0] if logged else _seconds(job.ended)
    return TrackedRun(
        id=run_id,
        name=name,
        folder=run.folder,
        number=job.number,
        arm=arm,
        choices=job.choices,
        tags={key: value for key, value in tags.items() if value},
        labels=summary["tags"] or [],
        status=status,
        rows=rows,
        times=times,
        started=started,
        ended=None if status == "running" else max([last, *times[-1:]]),
        results={key: summary[key] for key in RESULTS if summary[key] is not None},
        files=_existing(run.folder, (SUMMARY, METRICS)),
        models=sorted(run.folder.glob("*.onnx")),
        pictures=_existing(run.folder, [f"plots/{name}.png" for name in FIGURES]),
    )


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [path for path in (folder / name for name in names) if path.is_file()]


def _logged(folder: Path) -> list[tuple[float, str]]:
    """Return the time of each line in train.log, and the epoch that it reports; an empty text if it reports none."""
    try:
        text = (folder / LOG).read_text(errors="replace")
    except OSError:
        return []
    return [(_seconds(time.replace(",", ".")), epoch) for time, epoch in LOGGED.findall(text)]


def _times(rows: Sequence[Row], started: float, logged: Mapping[int, float]) -> Iterator[float]:
    """Yield when each epoch ended, as the log has it; without a log, as if the epochs had followed without a pause."""
    time = started
    for row in rows:
        time = logged.get(row.epoch, time + row.seconds)
        yield time


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def _name(folder: Path) -> str:
    """Return the last two parts of a path, such as 2026-11-23/10-00-00-000000."""
    return "/".join(folder.absolute().parts[-2:])


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="backslashreplace")).hexdigest()[:16]
