"""Warnings about runs that are lost, repeated or changed, or that differ in what they should share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mnist_exp.report.runs import CompletedRun, RunResult
from mnist_exp.store import run_folder
from mnist_exp.store.metrics import METRICS

MAX_FOLDERS = 20  # that a warning names


def lost_or_repeated(runs: Sequence[RunResult], distinct: int) -> list[str]:
    """Return warnings about runs that are left out, or whose files were changed; `distinct` counts completed runs."""
    warnings = []
    completed = [run for run in runs if isinstance(run, CompletedRun)]
    lost = [run for run in runs if run.job.status == "completed" and not isinstance(run, CompletedRun)]
    if lost:
        paths = enumerate_paths([run.folder / run_folder.SUMMARY for run in lost])
        warnings.append(f"completed runs are left out because their results are lost or damaged: {paths}")
    if repeated := len(completed) - distinct:
        warnings.append(f"{repeated} completed runs repeat others (same config_id); each config and seed counts once")
    opened = [run for run in completed if not run.is_as_recorded]
    changed = [run.folder for run in opened if not run_folder.is_unaltered(run.folder, run.summary, METRICS)]
    if changed:
        warnings.append(f"metrics.csv was changed after the run: {enumerate_paths(changed)}")
    return warnings


def mixes(runs: Sequence[CompletedRun]) -> list[str]:
    """Return warnings about what the runs of a comparison should share and do not."""
    warnings = []
    for package in sorted({name for run in runs for name in run.summary["versions"]}):
        versions = sorted({str(run.summary["versions"].get(package)) for run in runs})
        if len(versions) > 1:
            warnings.append(f"runs use different versions of {package}: {', '.join(versions)}")
    contents = {(run.data["name"], run.job.source, run.data["sha256"]) for run in runs}
    asked_for = Counter((name, source) for name, source, _ in contents)
    names = sorted({name for (name, _), count in asked_for.items() if count > 1})
    warnings += [f"runs use different contents of {name}" for name in names]
    changed = [run.folder for run in runs if any(each["changed"] for each in run.summary["resumed"] or ())]
    if changed:
        how = "runs were resumed with other versions, threads or devices than they started with"
        warnings.append(f"{how}: {enumerate_paths(changed)}")
    return warnings


def enumerate_paths(paths: Sequence[Path]) -> str:
    """Return paths, the first of which are named and the others counted."""
    more = f" and {len(paths) - MAX_FOLDERS:,} more" if len(paths) > MAX_FOLDERS else ""
    return ", ".join(map(str, paths[:MAX_FOLDERS])) + more
