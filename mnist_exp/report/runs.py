"""Reads the runs of sweeps, and runs outside one: their summaries, curves and predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from mnist_exp import config
from mnist_exp.report.measures import ACCURACY, MEASURES
from mnist_exp.store import keeping, metrics, predictions, result, run_folder, sweep_folder
from mnist_exp.store.ledger import Job, Ledger, Session
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.predictions import PARTS, Predictions, RunPredictions
from mnist_exp.store.result import Result
from mnist_exp.store.run_folder import HYDRA, LEDGER, PREDICTIONS, DataFacts, Summary
from mnist_exp.system.collector import without_collector
from mnist_exp.system.errors import ConfigError

COLUMNS = {  # of results.csv and of the Python API: keys of summary.json
    "parameters": "parameters",
    "best_epoch": "best_epoch",
    "val_loss": "best_val_loss",
    "val_accuracy": "best_val_accuracy",
    "test_loss": "test_loss",
    "test_accuracy": "test_accuracy",
    "test_misses": "test_errors",
    "test_balanced_accuracy": "test_balanced_accuracy",
    "seconds": "seconds",
}
MEASURED = tuple(  # further columns of both: what is computed from predictions.npz, where a run has kept it
    f"{part}_{measure.name}"
    for part in PARTS
    for measure in MEASURES
    if measure is not ACCURACY and f"{part}_{measure.name}" not in COLUMNS
)
FAILURES = {"diverged": "diverged", "out of memory": "ran out of memory", "error": "failed"}  # in a sentence


@dataclass(frozen=True)
class RunResult:
    """One run of a sweep, whatever its status."""

    sweep: Path
    folder: Path
    job: Job
    summary: Summary  # empty if the run has none
    measured: Mapping[str, float] = field(default_factory=dict, kw_only=True)  # MEASURED, if it kept its predictions
    is_as_recorded: bool = field(default=False, kw_only=True)  # its files were not opened: the ledger has the same

    @property
    def id(self) -> tuple[str, str]:
        """A value that is equal for runs that repeat each other."""
        return self.job.config_id, self.job.arm

    @cached_property
    def curves(self) -> Mapping[str, Sequence[float]]:
        """The columns of metrics.csv, which is read when they are asked for; empty if the run has none."""
        return metrics.read_columns(self.folder / METRICS)


@dataclass(frozen=True)
class CompletedRun(RunResult):
    """A run that completed and whose summary is intact. Accuracies are fractions, validation is at the best epoch."""

    data: DataFacts
    best_epoch: int
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float
    misses: int  # wrong test images
    val: float  # the measure of the report, in validation
    test: float
    images: NDArray[Any] | None = None  # each validation image's part in the measure, (N,), of mean `val`; if known
    predicted: Predictions | None = None  # for the validation images, if the arm leads and the run has kept it

    @property
    def values(self) -> tuple[float, ...]:
        """The seed and every result: equal for runs that are the same to the bit."""
        return (
            *(*self.job.seeds, self.best_epoch, self.val_loss, self.val_accuracy),
            *(self.test_loss, self.test_accuracy, self.misses),
        )


def read_sweep(folder: Path) -> tuple[list[Session], list[RunResult]]:
    """Return the commands that worked on a sweep, and its runs, by number. Those whose process died are interrupted.

    Raises:
        ConfigError: The folder is not a sweep of this program, or its ledger is damaged.
    """
    if not (folder / run_folder.LEDGER).is_file():
        raise ConfigError(f"{folder}: {sweep_folder.why_not(folder)}")
    at_work = sweep_folder.at_work(folder)
    with without_collector():
        sessions, jobs = Ledger(folder).read()
        results, runs = result.Results(folder), list[RunResult]()
        for number in sorted(jobs):
            if jobs[number].status != "replaced":
                runs.append(_read_run(folder, at_work.judged(jobs[number]), results))
                _share(runs[-2:])
    return sessions, runs


def read_run(folder: Path) -> RunResult:
    """Return a run outside a sweep. One without a summary is running, or was killed, as a sweep's ledger has it.

    Raises:
        ConfigError: Its summary is damaged, or its ledger is not where it was.
        OSError: Its config can't be read.
    """
    summary = run_folder.read_summary(folder) or run_folder.empty_summary()
    said = _of_ledger(folder) if keeping.was_dropped(folder, HYDRA) else config.recorded(folder / HYDRA.parent)
    job = Job(
        number=0,
        **said._asdict(),
        status=summary["status"] or "running",
        error=summary["error"],
        failure=summary["failure"],
    )
    return RunResult(folder, folder, job, summary)


def _of_ledger(folder: Path) -> config.Recorded:
    """Return what the ledger of a sweep says about the config of a run."""
    jobs = Ledger(folder.parent).read()[1] if (folder.parent / LEDGER).is_file() else {}
    job = jobs.get(int(folder.name)) if folder.name.isdigit() else None
    if not job:
        raise ConfigError(
            f"{folder}: its {HYDRA} {keeping.why_gone(folder, HYDRA)}, and the ledger of its sweep, which says the "
            "same, is not in the folder above; move it back there"
        )
    return config.Recorded(job.overrides, job.config_id, job.arm, job.seed, job.choices)


def _read_run(sweep: Path, job: Job, results: result.Results) -> RunResult:
    folder = sweep / str(job.number)
    recorded = results.summary(job.number, job.config_id, job.result) if job.status == "completed" else None
    summary = recorded or _read_summary(folder, job)
    if job.status != "completed" or summary["status"] != "completed":
        return RunResult(sweep, folder, job, summary)
    facts: Mapping[str, Any] = summary  # of a completed run, in which no result is None
    return CompletedRun(
        sweep,
        folder,
        job,
        summary,
        data=facts["data"],
        best_epoch=facts["best_epoch"],
        val_loss=facts["best_val_loss"],
        val_accuracy=facts["best_val_accuracy"],
        test_loss=facts["test_loss"],
        test_accuracy=facts["test_accuracy"],
        misses=facts["test_errors"],
        val=facts["best_val_accuracy"],
        test=facts["test_accuracy"],
        is_as_recorded=recorded is not None,
    )


def _read_summary(folder: Path, job: Job) -> Summary:
    """Return the summary of a job; an empty one if it can't be read, or is not of this job."""
    try:
        summary = run_folder.read_summary(folder)
    except (OSError, ConfigError):
        summary = None
    # One of another config_id is of another run, or of one that failed before it knew its config_id.
    return summary if summary and summary["config_id"] == job.config_id else run_folder.empty_summary()


def _share(runs: Sequence[RunResult]) -> None:
    """Let the second of two runs have the facts of the first where they are equal, for the sake of memory."""
    if len(runs) == 2 and not runs[1].is_as_recorded:
        first, second = (run.summary for run in runs)
        equal = {key: first[key] for key in ("versions", "git", "data", "inference") if first[key] == second[key]}
        cast(dict[str, Any], second).update(equal)


def read_predictions(run: RunResult) -> RunPredictions | None:
    """Return what a completed run predicted; None if it has kept nothing.

    Raises:
        OSError: The file can't be read.
        ConfigError: The file was altered or deleted.
    """
    return predictions.read(run.folder, checksum_of_predictions(run))


def read_right(run: RunResult) -> NDArray[Any] | None:
    """Return whether a completed run classified each validation image correctly; None if it has kept no predictions.

    Raises:
        OSError: The file can't be read.
        ConfigError: The file was altered or deleted.
    """
    sha256 = checksum_of_predictions(run)
    return predictions.read_right(run.folder, sha256) if sha256 else None


def checksum_of_predictions(run: RunResult) -> str | None:
    """Return the checksum of predictions.npz that the run recorded; None if it has kept no predictions."""
    return (run.summary["files"] or {}).get(PREDICTIONS)


def measured(kept: RunPredictions) -> dict[str, float]:
    """Return the values of the columns MEASURED for what a run has kept of its predictions."""
    measures = {f"{part}_{measure.name}": (measure, part) for part in PARTS for measure in MEASURES}
    return {column: measures[column][0].of(getattr(kept, measures[column][1])) for column in MEASURED}


def recorded(folder: Path) -> Result | None:
    """Return what the ledger records of a completed run; None if its files can't be read."""
    found = result.of(folder)
    with suppress(OSError, ConfigError):
        if found and (kept := predictions.read(folder, found["predictions"])):
            found["measured"] = list(measured(kept).values())
    return found


def recorded_measures(run: RunResult) -> dict[str, float]:
    """Return the values of the columns MEASURED that the ledger has recorded; nothing if it has none."""
    values = run.job.result["measured"] if run.is_as_recorded and run.job.result else []
    return dict(zip(MEASURED, values, strict=True)) if len(values) == len(MEASURED) else {}


def count_failures(runs: Sequence[RunResult]) -> str:
    """Return how failed runs failed, such as "2 diverged"; empty without runs."""
    counts = Counter(FAILURES.get(str(run.job.failure), "failed") for run in runs)
    return ", ".join(f"{n:,} {failure}" for failure, n in counts.items())


def total_seconds(runs: Sequence[RunResult]) -> float:
    """Return the time that runs took together, as far as it is known."""
    return float(sum(run.summary["seconds"] or 0 for run in runs))
