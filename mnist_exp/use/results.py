"""The results of runs and of sweeps, as rows."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

from mnist_exp.report.labels import shown_keys, swept_keys
from mnist_exp.report.runs import COLUMNS, MEASURED, RunResult, measured, read_predictions, read_run, read_sweep
from mnist_exp.store import keeping, run_folder
from mnist_exp.system.errors import ConfigError


def results(folder: str | PathLike[str], *more: str | PathLike[str]) -> Any:
    """Return the results of runs, one row each, whatever their status.

    A row has the run's folder; the keys that were typed and differ between the rows; seed and status; what results.csv
    has of the results, accuracies as fractions; and how the run failed, why it stopped early, its tags and config_id.

    Args:
        folder: A sweep, a run, or a folder with such folders in it, as outputs.
        *more: Further ones.

    Returns:
        A pandas.DataFrame where pandas is installed, and a list of dicts where it is not.

    Raises:
        ConfigError: There is no run in a folder, or a file of one is damaged.
    """
    runs = [run for each in map(Path, dict.fromkeys(map(str, (folder, *more)))) for run in _runs(each)]
    keys = shown_keys(runs, swept_keys(runs))
    return as_table([_row(run, keys) for run in runs])


def as_table(rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows as a pandas.DataFrame where pandas is installed, and as they are where it is not."""
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def _row(run: RunResult, keys: Sequence[str]) -> dict[str, Any]:
    job, summary = run.job, cast(dict[str, Any], run.summary)
    return {
        "folder": str(run.folder),
        **{key: job.choices.get(key) for key in keys},
        "seed": job.seed,
        "status": job.status,
        **{column: summary[key] for column, key in COLUMNS.items()},
        **_measured(run),
        "failure": job.failure,
        "error": job.error,
        "stopped": summary["stopped"],
        "tags": summary["tags"],
        "config_id": job.config_id,
    }


def _measured(run: RunResult) -> dict[str, float | None]:
    """Return what is computed from the predictions of a run; None for each if it has no intact ones."""
    try:
        kept = read_predictions(run)
    except (OSError, ConfigError):
        kept = None
    return {**measured(kept)} if kept else dict.fromkeys(MEASURED)


def _runs(folder: Path) -> list[RunResult]:
    """Return the runs in a folder. Raises ConfigError if there is none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    runs = [run for found in _find(folder) for run in _read(found)]
    if not runs:
        raise ConfigError(f"{folder}: no run and no sweep of this program is in it")
    return runs


def _find(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs and sweeps, in the order of their names: the folder itself, or those below it."""
    if run_folder.owner(folder):
        yield folder
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink():
            yield from _find(child)


def _read(folder: Path) -> list[RunResult]:
    """Return the runs of a sweep, or the one run; nothing for one that was killed as it started."""
    if run_folder.owner(folder) == run_folder.SWEEP:
        return read_sweep(folder)[1]
    return [read_run(folder)] if keeping.has_begun(folder) else []
