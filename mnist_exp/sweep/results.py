"""Sweep folders read back: runs, the arms that they make up, and how the arms compare."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_exp import record
from mnist_exp.errors import ConfigError
from mnist_exp.sweep import stats
from mnist_exp.sweep.ledger import Job, Ledger


class Run(NamedTuple):
    """One job, with what it left in its folder."""

    sweep: Path
    folder: Path
    job: Job
    summary: dict[str, Any]  # summary.json; empty where there is none
    curves: dict[str, list[float]]  # metrics.csv by column


class Arm(NamedTuple):
    """Runs that differ only in their seed. Accuracies are fractions, at each run's best epoch."""

    id: str
    choices: dict[str, str]  # the swept keys, and what this arm has for them
    runs: tuple[Run, ...]  # completed, by seed
    val: stats.Summary
    test: stats.Summary
    misses: float  # of the test set, mean

    @property
    def label(self) -> str:
        """The arm's choices in a few words."""
        return " ".join(self.choices.values()) or "default"


class Results(NamedTuple):
    """Everything that a report tells."""

    folders: tuple[Path, ...]
    sessions: list[dict[str, Any]]  # the commands that worked on them: command, versions, git, machine, time
    runs: list[Run]  # all jobs, whatever their status, by folder and number
    swept: tuple[str, ...]  # keys that vary between runs, but for the seed
    arms: list[Arm]  # with a completed run, the best mean validation accuracy first
    comparisons: list[stats.Comparison]  # the first arm against each other one, in the arms' order; p is corrected
    warnings: list[str]  # why figures may not be comparable
    trials: Results | None = None  # of the learning rates that were tried before, in a sweep of their own

    @property
    def crossed(self) -> tuple[str, ...]:
        """The swept keys whose values were given, not found by trials."""
        return tuple(key for key in self.swept if not self.trials or key != record.RATE)


def read(folders: Sequence[Path]) -> Results:
    """Read one or more sweep folders, finished or not. Raises ConfigError for a folder that is no sweep of ours."""
    sessions, runs, warnings = list[dict[str, Any]](), list[Run](), list[str]()
    for folder in folders:
        if not (folder / record.LEDGER).is_file():
            raise ConfigError(f"{folder}: {_what_it_is(folder)}")
        commands, jobs = Ledger(folder).read()
        sessions += commands
        runs += [_run(folder, jobs[number]) for number in sorted(jobs) if jobs[number].status != "replaced"]
    if not runs:
        raise ConfigError(f"{', '.join(map(str, folders))}: no jobs in its ledger")
    told = [run for run in runs if run.job.status == "completed"]
    kept = [run for run in told if run.summary.get("status") == "completed"]
    if len(kept) < len(told):
        lost = ", ".join(str(run.folder / "summary.json") for run in told if run.summary.get("status") != "completed")
        warnings.append(f"completed, but left out, for what it found is lost or damaged: {lost}")
    completed = {run.job.config_id: run for run in reversed(kept)}
    repeated = len(kept) - len(completed)
    if repeated:
        warnings.append(f"{repeated} completed runs repeat others (the same config_id); each choice counts once")
    altered = [run.folder for run in kept if not record.is_as_sealed(run.folder, run.summary, record.METRICS)]
    if altered:
        warnings.append(f"metrics.csv was altered since the run: {', '.join(map(str, altered))}")
    warnings += _mixes(list(completed.values()))
    swept = _swept(runs)
    arms = _arms(sorted(completed.values(), key=lambda run: run.job.seed), swept)
    comparisons = stats.leader_against_others([{run.job.seed: _val(run) for run in arm.runs} for arm in arms])
    before = [folder / record.TUNING for folder in folders if (folder / record.TUNING / record.LEDGER).is_file()]
    trials = read(before) if before else None
    return Results(tuple(folders), sessions, runs, swept, arms, comparisons, warnings, trials)


def _what_it_is(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    if (folder / record.METRICS).exists():
        return "a single run, not a sweep"
    return f"no sweep of this program: it has no {record.LEDGER}"


def _run(sweep: Path, job: Job) -> Run:
    folder = sweep / str(job.number)
    try:
        summary = record.read_summary(folder)
    except (OSError, ConfigError):
        summary = {}
    if summary.get("config_id") != job.config_id:  # another run's, or one that failed before it knew
        summary = {}
    return Run(sweep, folder, job, summary, _curves(folder / record.METRICS))


def _curves(path: Path) -> dict[str, list[float]]:
    """The columns of metrics.csv, without a last line that is torn; none where it is damaged."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        whole = [row for row in rows if all(row.values())]
        return {key: [float(row[key]) for row in whole] for key in (record.COLUMNS if whole else ())}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def _swept(runs: Sequence[Run]) -> tuple[str, ...]:
    """The keys that were typed and vary; the seed makes no arms."""
    typed = dict.fromkeys(word.lstrip("+~").partition("=")[0] for run in runs for word in run.job.overrides)
    varying = [key for key in typed if len({spell(run.job.choices.get(key)) for run in runs}) > 1]
    return tuple(key for key in varying if key != "seed")


def spell(value: Any) -> str:
    """A choice as a table shows it."""
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")


def seconds(runs: Sequence[Run]) -> float:
    """What runs took, added up, as far as they have told."""
    return float(sum(run.summary.get("seconds") or 0 for run in runs))


def _val(run: Run) -> float:
    return float(run.summary["best_val_accuracy"])


def _arms(runs: Sequence[Run], swept: Sequence[str]) -> list[Arm]:
    groups = dict[str, list[Run]]()
    for run in runs:
        groups.setdefault(run.job.arm, []).append(run)
    arms = []
    for arm_id, members in groups.items():
        choices = {key: spell(members[0].job.choices.get(key)) for key in swept}
        val = stats.summary([_val(run) for run in members])
        test = stats.summary([run.summary["test_accuracy"] for run in members])
        misses = sum(run.summary["test_errors"] for run in members) / len(members)
        arms.append(Arm(arm_id, choices, tuple(members), val, test, misses))
    labels = [arm.label for arm in arms]
    told_apart = [  # equal choices, other configs: an option's file was edited in between
        arm._replace(choices=arm.choices | {"config": arm.id[:6]}) if labels.count(arm.label) > 1 else arm
        for arm in arms
    ]
    return sorted(told_apart, key=lambda arm: -arm.val.mean)


def _mixes(runs: Sequence[Run]) -> list[str]:
    """What runs of a comparison should share and do not."""
    warnings = []
    for package in sorted({name for run in runs for name in run.summary.get("versions", {})}):
        found = sorted({str(run.summary.get("versions", {}).get(package)) for run in runs})
        if len(found) > 1:
            warnings.append(f"runs of different {package}: {', '.join(found)}")
    for name in sorted({run.summary["data"]["name"] for run in runs}):
        if len({run.summary["data"]["sha256"] for run in runs if run.summary["data"]["name"] == name}) > 1:
            warnings.append(f"runs on different contents of {name}")
    changed = [run.folder for run in runs if any(session["changed"] for session in run.summary.get("resumed") or ())]
    if changed:
        told = ", ".join(map(str, changed))
        warnings.append(f"went on under other versions, threads or devices than they began with: {told}")
    return warnings
