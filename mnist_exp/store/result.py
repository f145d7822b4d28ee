"""What the ledger records of a completed run, so that a reader of many runs need not open their files.

What the run reached stands in the ledger itself; what it shares with others, such as versions and data, is named by a
digest, and read from the summary of one of them. The sizes and times of the files tell whether they are as they were.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypedDict, cast

from mnist_exp.store import run_folder
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import PREDICTIONS, SUMMARY, Summary
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

FIGURES = (  # of summary.json: what hardly two runs share
    "seed",
    "epochs",
    "best_epoch",
    "best_val_loss",
    "best_val_accuracy",
    "test_loss",
    "test_accuracy",
    "test_errors",
    "test_balanced_accuracy",
    "seconds",
    "images_per_second",
)
OWN = {*FIGURES, "config_id", "files"}  # of one run; every other key of summary.json belongs to `rest`


class Result(TypedDict):
    """The result of a completed run."""

    stamps: list[int]  # of the files, as `stamps` returns them
    figures: list[Any]  # the values of FIGURES
    predictions: str | None  # SHA-256 of predictions.npz; None if the run has not kept it
    rest: str  # digest of the other keys of summary.json
    measured: list[float]  # what is computed from predictions.npz, in the order of report.runs.MEASURED; may be empty


def of(folder: Path) -> Result | None:
    """Return the result of a completed run; None if a file of it can't be read."""
    try:
        stamped, summary = stamps(folder), run_folder.read_summary(folder)
    except (OSError, ConfigError):
        return None
    if not summary:
        return None
    values = cast(dict[str, Any], summary)
    return {
        "stamps": stamped,
        "figures": [values[key] for key in FIGURES],
        "predictions": (summary["files"] or {}).get(PREDICTIONS),
        "rest": _digest_of_rest(summary),
        "measured": [],
    }


def stamps(folder: Path | str) -> list[int]:
    """Return the sizes of summary.json and metrics.csv, and when they were written, in ns.

    Raises:
        OSError: A file is gone.
    """
    summary, metrics = os.stat(f"{folder}/{SUMMARY}"), os.stat(f"{folder}/{METRICS}")
    return [summary.st_size, summary.st_mtime_ns, metrics.st_size, metrics.st_mtime_ns]


class Results:
    """The summaries of the runs of a sweep, made of what the ledger records."""

    def __init__(self, sweep: Path) -> None:
        """Read the results of the sweep in a folder."""
        self._sweep = str(sweep)
        self._rest: dict[str, Summary] = {}

    def summary(self, number: int, config_id: str, result: Result | None) -> Summary | None:
        """Return the summary of a completed run, whose `files` has predictions.npz alone.

        Args:
            number: The number of its job.
            config_id: Its config_id.
            result: What the ledger records of it.

        Returns:
            The summary; None if the files of the run are not as they were, or the ledger does not say how they were.
        """
        if not result:
            return None
        folder = f"{self._sweep}/{number}"
        try:
            if stamps(folder) != result["stamps"]:
                return None
        except OSError:
            return None
        rest = self._rest.get(result["rest"]) or self._read(Path(folder), result["rest"])
        if not rest:
            return None
        kept = result["predictions"]
        own = dict(zip(FIGURES, result["figures"], strict=True))
        own |= {"config_id": config_id, "files": {PREDICTIONS: kept} if kept else {}}
        return cast(Summary, rest | own)

    def _read(self, folder: Path, digest: str) -> Summary | None:
        """Return a summary with this rest, of which later runs have the facts too; None if that of the run has not."""
        try:
            summary = run_folder.read_summary(folder)
        except (OSError, ConfigError):
            return None
        if not summary or _digest_of_rest(summary) != digest:
            return None
        return self._rest.setdefault(digest, summary)


def _digest_of_rest(summary: Summary) -> str:
    rest = {key: value for key, value in summary.items() if key not in OWN}
    return files.digest(json.dumps(rest, sort_keys=True).encode())[:16]
