"""Sweep folders read back: runs, the arms that they make up, and how the arms compare."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mnist_exp import config
from mnist_exp.report import stats
from mnist_exp.store import metrics, run_folder
from mnist_exp.store.ledger import Job, Ledger, keys_beside_identity
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import Summary
from mnist_exp.system.errors import ConfigError

PLAIN = ("experiment", "data", "model", "activation", "optimizer", "loss")  # groups whose options explain themselves
VAGUE = ("seed", "_target_")  # last parts of keys that say too little, or mean something else alone
FAILURES = {"diverged": "diverged", "out of memory": "ran out of memory", "error": "failed"}  # in a sentence
EQUAL = ("best_epoch", "best_val_loss", "best_val_accuracy", "test_loss", "test_accuracy", "test_errors")


class Run(NamedTuple):
    """One job, with what it left in its folder."""

    sweep: Path
    folder: Path
    job: Job
    summary: Summary  # empty where there is none
    curves: dict[str, list[float]]  # metrics.csv by column

    @property
    def id(self) -> tuple[str, str]:
        """Equal for runs that repeat each other."""
        return self.job.config_id, self.job.arm


class Arm(NamedTuple):
    """Runs that differ only in their seed. Accuracies are fractions, at each run's best epoch."""

    id: str
    choices: dict[str, str]  # the swept keys, and what this arm has for them
    runs: tuple[Run, ...]  # completed, by seed
    val: stats.Summary
    test: stats.Summary
    misses: float  # of the test set, mean
    failed: tuple[Run, ...] = ()  # by their own doing, which is a result too
    missing: int = 0  # runs that were killed, or have not come to an end

    @property
    def label(self) -> str:
        """The arm's choices in a few words."""
        return label(self.choices)

    @property
    def asked(self) -> int:
        """How many seeds it was to have."""
        return len(self.runs) + len(self.failed) + self.missing

    @property
    def failures(self) -> str:
        """What became of the runs that failed, such as "2 diverged"; empty where none did."""
        return causes(self.failed)

    @property
    def seeds(self) -> str:
        """How many seeds completed, of how many, and what became of others: "5", or "3 of 5; 2 diverged"."""
        count = f"{len(self.runs)} of {self.asked}" if len(self.runs) < self.asked else str(self.asked)
        return "; ".join(filter(None, (count, self.failures)))

    @property
    def results(self) -> tuple[tuple[Any, ...], ...]:
        """Seed and figures of each run that completed: equal for arms that did the same, to the bit."""
        return tuple((run.job.seed, *(run.summary.get(key) for key in EQUAL)) for run in self.runs)

    def equals(self, other: Arm) -> bool:
        """Whether both have the same seeds, and the same results with each."""
        return bool(self.runs) and self.results == other.results


class Results(NamedTuple):
    """Everything that a report tells."""

    folders: tuple[Path, ...]
    sessions: list[dict[str, Any]]  # the commands that worked on them: command, versions, git, machine, time
    runs: list[Run]  # all jobs, whatever their status, by folder and number
    swept: tuple[str, ...]  # keys that vary between runs, but for the seed
    arms: list[Arm]  # with a completed run: first those without a failed one, the best mean validation accuracy first
    comparisons: list[
        stats.Comparison
    ]  # the first of those compared against each other one, in their order; p is corrected
    warnings: list[str]  # why figures may not be comparable
    trials: Results | None = None  # of the learning rates that were tried before, in a sweep of their own
    without_results: Sequence[Arm] = ()  # of which no run completed, and some failed by their own doing

    @property
    def compared(self) -> list[Arm]:
        """The arms that are compared: no run of theirs failed by its own doing. What survives elsewhere is a choice."""
        return [arm for arm in self.arms if not arm.failed]

    @property
    def failing(self) -> list[Arm]:
        """The others: their survivors' figures are shown, and compared with nothing."""
        return [arm for arm in (*self.arms, *self.without_results) if arm.failed]

    @property
    def crossed(self) -> tuple[str, ...]:
        """The swept keys whose values were given, not found by trials."""
        return tuple(key for key in self.swept if not self.trials or key != config.LR)


def read(folders: Sequence[Path]) -> Results:
    """Read one or more sweep folders, finished or not. Raises ConfigError for a folder that is no sweep of ours."""
    sessions, runs, warnings = list[dict[str, Any]](), list[Run](), list[str]()
    for folder in folders:
        if not (folder / run_folder.LEDGER).is_file():
            raise ConfigError(f"{folder}: {_what_it_is(folder)}")
        commands, jobs = Ledger(folder).read()
        sessions += commands
        runs += [_run(folder, jobs[number]) for number in sorted(jobs) if jobs[number].status != "replaced"]
    if not runs:
        raise ConfigError(f"{', '.join(map(str, folders))}: no jobs in its ledger")
    beside = keys_beside_identity(run.job for run in runs)
    runs = [run._replace(job=run.job._replace(arm=run.job.arm_beside(beside))) for run in runs]
    told = [run for run in runs if run.job.status == "completed"]
    kept = [run for run in told if _is_kept(run)]
    if len(kept) < len(told):
        lost = ", ".join(str(run.folder / "summary.json") for run in told if run.summary.get("status") != "completed")
        warnings.append(f"completed, but left out, for what it found is lost or damaged: {lost}")
    completed = {run.id: run for run in kept[::-1]}
    repeated = len(kept) - len(completed)
    if repeated:
        warnings.append(f"{repeated} completed runs repeat others (the same config_id); each choice counts once")
    altered = [run.folder for run in kept if not run_folder.is_unaltered(run.folder, run.summary, METRICS)]
    if altered:
        warnings.append(f"metrics.csv was altered since the run: {', '.join(map(str, altered))}")
    warnings += _mixes(list(completed.values()))
    swept = _swept(runs)
    known = {run.id: run for run in runs} | completed
    arms = _arms([known[each] for each in dict.fromkeys(run.id for run in runs)], swept)
    ranked = sorted((arm for arm in arms if arm.runs), key=lambda arm: (bool(arm.failed), -arm.val.mean))
    without = [arm for arm in arms if arm.failed and not arm.runs]
    compared = [{run.job.seed: _val(run) for run in arm.runs} for arm in ranked if not arm.failed]
    comparisons = stats.leader_against_others(compared)
    before = [
        folder / run_folder.LR_SEARCH
        for folder in folders
        if (folder / run_folder.LR_SEARCH / run_folder.LEDGER).is_file()
    ]
    trials = read(before) if before else None
    return Results(tuple(folders), sessions, runs, swept, ranked, comparisons, warnings, trials, without)


def _what_it_is(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    if (folder / METRICS).exists():
        return "a single run, not a sweep"
    return f"no sweep of this program: it has no {run_folder.LEDGER}"


def _run(sweep: Path, job: Job) -> Run:
    folder = sweep / str(job.number)
    try:
        summary = run_folder.read_summary(folder) or run_folder.empty_summary()
    except (OSError, ConfigError):
        summary = run_folder.empty_summary()
    if summary["config_id"] != job.config_id:  # of another run, or of one that failed before it knew its config_id
        summary = run_folder.empty_summary()
    return Run(sweep, folder, job, summary, metrics.read_columns(folder / METRICS))


def _swept(runs: Sequence[Run]) -> tuple[str, ...]:
    """The keys that were typed and vary; the seed makes no arms."""
    typed = dict.fromkeys(word.lstrip("+~").partition("=")[0] for run in runs for word in run.job.overrides)
    varying = [key for key in typed if len({spell(run.job.choices.get(key)) for run in runs}) > 1]
    return tuple(key for key in varying if key != "seed")


def spell(value: Any) -> str:
    """A choice as a table shows it."""
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")


def label(choices: Mapping[str, str]) -> str:
    """Choices in a few words: sgd max_norm=1.5. A key's last part stands before a value that does not explain itself.

    More of the key does where two share their last part, or where that part alone would mislead.
    """
    return " ".join(_pair(key, value, choices) for key, value in choices.items()) or "default"


def _pair(key: str, value: str, keys: Iterable[str]) -> str:
    if key in PLAIN and value.isidentifier() and value != "null":
        return value
    others = [f".{other}" for other in (*VAGUE, *keys) if other != key]
    parts = key.split(".")
    endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    short = next((ending for ending in endings if not any(it.endswith(f".{ending}") for it in others)), key)
    return f"{short}={value if value and not set(value) & set(' =') else json.dumps(value, ensure_ascii=False)}"


def causes(runs: Sequence[Run]) -> str:
    """How so many runs failed by their own doing: "2 diverged"."""
    counts = Counter(FAILURES.get(str(run.job.failure), "failed") for run in runs)
    return ", ".join(f"{n:,} {how}" for how, n in counts.items())


def seconds(runs: Sequence[Run]) -> float:
    """What runs took, added up, as far as they have told."""
    return float(sum(run.summary.get("seconds") or 0 for run in runs))


def _val(run: Run) -> float:
    return float(run.summary["best_val_accuracy"])


def _arms(runs: Sequence[Run], swept: Sequence[str]) -> list[Arm]:
    """The arms that runs make up, whatever became of these, in the order in which they were asked for."""
    groups = dict[str, list[Run]]()
    for run in runs:
        groups.setdefault(run.job.arm, []).append(run)
    arms = [_arm(arm_id, members, swept) for arm_id, members in groups.items()]
    labels = Counter(arm.label for arm in arms)
    return [  # equal choices, other configs: an option's file was edited in between
        arm._replace(choices=arm.choices | {"config": arm.id[:6]}) if labels[arm.label] > 1 else arm for arm in arms
    ]


def _arm(arm_id: str, members: Sequence[Run], swept: Sequence[str]) -> Arm:
    choices = {key: spell(members[0].job.choices.get(key)) for key in swept}
    completed = tuple(sorted(filter(_is_kept, members), key=lambda run: run.job.seed))
    failed = tuple(run for run in members if run.job.status == "failed" and run.job.failure)
    missing = len(members) - len(completed) - len(failed)
    if not completed:
        return Arm(arm_id, choices, (), stats.NOTHING, stats.NOTHING, math.nan, failed, missing)
    val = stats.summary([_val(run) for run in completed])
    test = stats.summary([run.summary["test_accuracy"] for run in completed])
    misses = sum(run.summary["test_errors"] for run in completed) / len(completed)
    return Arm(arm_id, choices, completed, val, test, misses, failed, missing)


def _is_kept(run: Run) -> bool:
    """Whether the run completed, and what it found is still there."""
    return run.job.status == "completed" and run.summary["status"] == "completed"


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
