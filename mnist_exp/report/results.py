"""Reads sweep folders: their runs, the arms that the runs make up, and how the arms compare."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from numpy.typing import NDArray

from mnist_exp import config
from mnist_exp.report import measures, stats
from mnist_exp.report.measures import ACCURACY, MEASURES, Measure
from mnist_exp.store import keeping, metrics, predictions, run_folder
from mnist_exp.store.ledger import Job, Ledger, Session, keys_beside_identity
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.predictions import PARTS, Predictions, RunPredictions
from mnist_exp.store.run_folder import HYDRA, LEDGER, PREDICTIONS, DataFacts, Summary
from mnist_exp.system import program, quoting
from mnist_exp.system.errors import ConfigError

# Groups whose options are understood without the name of the group.
SELF_EXPLANATORY = ("experiment", "data", "model", "activation", "optimizer", "loss")
AMBIGUOUS = ("seed", "_target_")  # last parts of keys that say too little, or something else, on their own
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
WITH_PREDICTIONS = 4  # arms of which the report shows what they confuse with what
SHARED = ("versions", "git", "data", "inference")  # facts that most runs of a sweep have in common
MAX_FOLDERS = 20  # that a warning names
FAILURES = {"diverged": "diverged", "out of memory": "ran out of memory", "error": "failed"}  # in a sentence


@dataclass(frozen=True)
class RunResult:
    """One run of a sweep, whatever its status."""

    sweep: Path
    folder: Path
    job: Job
    summary: Summary  # empty if the run has none
    measured: Mapping[str, float] = field(default_factory=dict, kw_only=True)  # MEASURED, if it kept its predictions

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


class Arm(NamedTuple):
    """Runs that differ in their seeds alone. Validation is at each run's best epoch."""

    id: str
    choices: dict[str, str]  # the value of each swept key
    runs: tuple[CompletedRun, ...]  # by data.seed and seed
    val: stats.Summary  # of the report's measure
    test: stats.Summary
    misses: float  # wrong test images, mean over the runs
    failed: tuple[RunResult, ...] = ()  # runs that failed themselves, for example because they diverged
    missing: int = 0  # the number of runs that were killed or have not finished

    @property
    def label(self) -> str:
        """The arm's choices in a few words."""
        return label(self.choices)

    @property
    def planned(self) -> int:
        """The number of runs in the sweep, whatever their status."""
        return len(self.runs) + len(self.failed) + self.missing

    @property
    def failures(self) -> str:
        """How the failed runs failed, such as "2 diverged"; empty if none did."""
        return count_failures(self.failed)

    @property
    def seeds(self) -> str:
        """How many seeds completed, and how others failed: "5", or "3 of 5; 2 diverged"."""
        count = f"{len(self.runs)} of {self.planned}" if len(self.runs) < self.planned else str(self.planned)
        return "; ".join(filter(None, (count, self.failures)))

    @property
    def values(self) -> tuple[tuple[float, ...], ...]:
        """The seed and results of each completed run: equal for arms that are the same to the bit."""
        return tuple(run.values for run in self.runs)

    def equals(self, other: Arm) -> bool:
        """Return whether both arms have the same seeds, and the same results with each."""
        means = (self.val.mean, self.misses), (other.val.mean, other.misses)
        return bool(self.runs) and means[0] == means[1] and self.values == other.values


class Results(NamedTuple):
    """The content of a report."""

    folders: tuple[Path, ...]
    sessions: list[Session]  # the commands that worked on the sweeps
    runs: list[RunResult]  # whatever their status, by folder and number
    swept: tuple[str, ...]  # the keys that vary between runs, without the seed
    arms: list[Arm]  # with a completed run: those without failed runs first, then by the measure's validation mean
    comparisons: list[stats.Comparison]  # of the first of `compared` with each other one; p is corrected
    warnings: list[str]  # why results may not be comparable
    lr_search: Results | None = None  # the sweep that chose the learning rates
    without_results: Sequence[Arm] = ()  # arms of which no run completed and some failed themselves
    measure: Measure = ACCURACY  # by which the arms are ranked and compared
    without_predictions: int = 0  # completed runs that kept no predictions
    search: Results | None = None  # the sweep that chose values of intervals and choices

    @property
    def compared(self) -> list[Arm]:
        """The arms without failed runs. The surviving runs of other arms are a selection."""
        return [arm for arm in self.arms if not arm.failed]

    @property
    def failing(self) -> list[Arm]:
        """The arms with failed runs, which are shown and not compared."""
        return [arm for arm in (*self.arms, *self.without_results) if arm.failed]

    @property
    def shown(self) -> tuple[str, ...]:
        """The keys that tell runs apart, without the seed: the swept ones, and data.seed if it varies."""
        return shown_keys(self.runs, self.swept)

    @property
    def crossed(self) -> tuple[str, ...]:
        """The swept keys whose values were typed, not found by a learning-rate search."""
        return tuple(key for key in self.swept if not self.lr_search or key != config.LR)


def read(folders: Sequence[Path], by: str = ACCURACY.name) -> Results:
    """Read one or more sweep folders, finished or not.

    Args:
        folders: The folders of the sweeps.
        by: The name of the measure by which the arms are ranked and compared: see `measures.find`.

    Raises:
        ConfigError: A folder is not a sweep of this program, or its ledger is damaged; or there is no such measure, or
            a run lacks the predictions that it is computed from.
    """
    sessions, runs = _read_sweeps(folders)
    measure = measures.find(by, _classes(run for run in runs if isinstance(run, CompletedRun)))
    runs, altered = _measured(runs, measure)
    if measure is not ACCURACY:
        _require_predictions(measure, [run for run in runs if isinstance(run, CompletedRun)])
    found = _ranked(folders, sessions, runs, measure)
    compared = [sample(arm, measure) for arm in found.compared]
    distinct = _distinct(runs)
    return found._replace(
        arms=[_with_predicted(arm) if place < WITH_PREDICTIONS else arm for place, arm in enumerate(found.arms)],
        comparisons=stats.leader_against_others(compared, anytime=any("until" in each for each in sessions)),
        warnings=[*_lost_or_repeated(runs, len(distinct)), *altered, *_mixes(list(distinct.values()))],
        lr_search=_read_searches(folders, run_folder.LR_SEARCH),
        search=_read_searches(folders, run_folder.SEARCH),
        without_predictions=sum(checksum_of_predictions(run) is None for run in distinct.values()),
    )


def _read_searches(folders: Sequence[Path], name: str) -> Results | None:
    """Read the searches of this name that come before sweeps; None if there are none."""
    found = [folder / name for folder in folders if (folder / name / run_folder.LEDGER).is_file()]
    return read_trials(found) if found else None


def read_trials(folders: Sequence[Path]) -> Results:
    """Read searches: their arms ranked by accuracy, which chose the rates or settings, and not compared.

    Raises:
        ConfigError: A folder is not a sweep of this program, or its ledger is damaged.
    """
    return _ranked(folders, *_read_sweeps(folders), ACCURACY)


def _read_sweeps(folders: Sequence[Path]) -> tuple[list[Session], list[RunResult]]:
    """Return the commands that worked on sweeps, and their runs, whose arms are told apart over all of them."""
    sessions: list[Session] = []
    runs: list[RunResult] = []
    for folder in folders:
        commands, members = read_sweep(folder)
        sessions += commands
        runs += members
    if not runs:
        raise ConfigError(f"{', '.join(map(str, folders))}: the ledger has no jobs")
    beside = keys_beside_identity(run.job for run in runs)
    return sessions, [replace(run, job=run.job._replace(arm=run.job.arm_beside(beside))) for run in runs]


def _ranked(folders: Sequence[Path], sessions: list[Session], runs: list[RunResult], measure: Measure) -> Results:
    """Return the arms that runs make up, ranked and not compared."""
    swept = swept_keys(runs)
    run_of_id = {run.id: run for run in runs} | _distinct(runs)
    arms = _group([run_of_id[each] for each in dict.fromkeys(run.id for run in runs)], swept, measure)
    return Results(
        folders=tuple(folders),
        sessions=sessions,
        runs=runs,
        swept=swept,
        arms=sorted(
            (arm for arm in arms if arm.runs), key=lambda arm: (bool(arm.failed), -measure.sign * arm.val.mean)
        ),
        comparisons=[],
        warnings=[],
        without_results=[arm for arm in arms if arm.failed and not arm.runs],
        measure=measure,
    )


def _distinct(runs: Sequence[RunResult]) -> dict[tuple[str, str], CompletedRun]:
    """Return the completed runs by their id: of repeated ones, the first."""
    return {run.id: run for run in reversed(runs) if isinstance(run, CompletedRun)}


def read_sweep(folder: Path) -> tuple[list[Session], list[RunResult]]:
    """Return the commands that worked on a sweep, and its runs, by number.

    Raises:
        ConfigError: The folder is not a sweep of this program, or its ledger is damaged.
    """
    if not (folder / run_folder.LEDGER).is_file():
        raise ConfigError(f"{folder}: {_describe(folder)}")
    sessions, jobs = Ledger(folder).read()
    runs: list[RunResult] = []
    for number in sorted(jobs):
        if jobs[number].status != "replaced":
            runs.append(_read_run(folder, jobs[number]))
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


def swept_keys(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Return the typed keys that vary, without the seeds, and without runtime keys that tell no two runs apart.

    Such a key is `predictions`, where only some commands kept them. In sweeps of older versions, data.seed tells arms
    apart.
    """
    overrides = dict.fromkeys(override for run in runs for override in run.job.overrides)
    typed = dict.fromkeys(map(config.key_of, overrides))
    beside = keys_beside_identity(run.job for run in runs)
    telling = [key for key in typed if key not in config.RUNTIME_KEYS or key in beside]
    varying = [key for key in telling if _varies(runs, key)]
    splits: dict[str, set[int]] = {}
    for run in runs:
        splits.setdefault(run.job.arm, set()).add(run.job.seeds.split)
    seeds = config.SEEDS if any(len(found) > 1 for found in splits.values()) else ("seed",)
    return tuple(key for key in varying if key not in seeds)


def _varies(runs: Sequence[RunResult], key: str) -> bool:
    first = format_value(runs[0].job.choices.get(key))
    return any(format_value(run.job.choices.get(key)) != first for run in runs)


def shown_keys(runs: Sequence[RunResult], swept: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that tell runs apart, without the seed: the swept ones, and data.seed if it varies."""
    splits = {run.job.seeds.split for run in runs}
    return tuple(swept) if len(splits) < 2 or "data.seed" in swept else (*swept, "data.seed")


def format_value(value: Any) -> str:
    """Return the value of a key as a table shows it."""
    if isinstance(value, str):
        return value
    if type(value) is int or (type(value) is float and math.isfinite(value)):  # as JSON has it, and faster
        return repr(value)
    return json.dumps(value).replace(" ", "")


def label(choices: Mapping[str, str]) -> str:
    """Return choices in a few words, such as "sgd max_norm=1.5".

    A key is shortened to its last part, or to more if keys share that part or it would mislead.
    """
    return " ".join(_short_pair(key, value, choices) for key, value in choices.items()) or "default"


def count_failures(runs: Sequence[RunResult]) -> str:
    """Return how failed runs failed, such as "2 diverged"; empty without runs."""
    counts = Counter(FAILURES.get(str(run.job.failure), "failed") for run in runs)
    return ", ".join(f"{n:,} {failure}" for failure, n in counts.items())


def total_seconds(runs: Sequence[RunResult]) -> float:
    """Return the time that runs took together, as far as it is known."""
    return float(sum(run.summary["seconds"] or 0 for run in runs))


def _describe(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    if (folder / METRICS).exists():
        return "a single run, not a sweep"
    return f"not a sweep of this program: it has no {run_folder.LEDGER}"


def _read_run(sweep: Path, job: Job) -> RunResult:
    folder = sweep / str(job.number)
    try:
        summary = run_folder.read_summary(folder) or run_folder.empty_summary()
    except (OSError, ConfigError):
        summary = run_folder.empty_summary()
    if summary["config_id"] != job.config_id:  # of another run, or of one that failed before it knew its config_id
        summary = run_folder.empty_summary()
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
    )


def _share(runs: Sequence[RunResult]) -> None:
    """Let the second of two runs have the facts of the first where they are equal, for the sake of memory."""
    if len(runs) == 2:
        first, second = (run.summary for run in runs)
        equal = {key: first[key] for key in ("versions", "git", "data", "inference") if first[key] == second[key]}
        cast(dict[str, Any], second).update(equal)


def _short_pair(key: str, value: str, keys: Iterable[str]) -> str:
    if key in SELF_EXPLANATORY and value.isidentifier() and value != "null":
        return value
    others = [f".{other}" for other in (*AMBIGUOUS, *keys) if other != key]
    parts = key.split(".")
    endings = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
    short = next((end for end in endings if not any(other.endswith(f".{end}") for other in others)), key)
    return f"{short}={value if value and not set(value) & set(' =') else json.dumps(value, ensure_ascii=False)}"


def _group(runs: Sequence[RunResult], swept: Sequence[str], measure: Measure) -> list[Arm]:
    """Return the arms that runs make up, in the order in which they were asked for."""
    runs_of_arm: dict[str, list[RunResult]] = {}
    for run in runs:
        runs_of_arm.setdefault(run.job.arm, []).append(run)
    arms = [_arm(arm_id, members, swept, measure) for arm_id, members in runs_of_arm.items()]
    labels = Counter(arm.label for arm in arms)
    return [  # equal choices but other configs: the file of an option was edited in between
        arm._replace(choices=arm.choices | {"config": arm.id[:6]}) if labels[arm.label] > 1 else arm for arm in arms
    ]


def _arm(arm_id: str, members: Sequence[RunResult], swept: Sequence[str], measure: Measure) -> Arm:
    choices = {key: format_value(members[0].job.choices.get(key)) for key in swept}
    completed = sorted((run for run in members if isinstance(run, CompletedRun)), key=lambda run: run.job.seeds)
    failed = tuple(run for run in members if run.job.status == "failed" and run.job.failure)
    missing = len(members) - len(completed) - len(failed)
    if not completed:
        return Arm(arm_id, choices, (), stats.NOTHING, stats.NOTHING, math.nan, failed, missing)
    splits, ratio = [run.job.seeds.split for run in completed], val_per_train(completed[0])
    val, test = (
        _summary(values, splits, ratio, measure)
        for values in zip(*((run.val, run.test) for run in completed), strict=True)
    )
    misses = sum(run.misses for run in completed) / len(completed)
    return Arm(arm_id, choices, tuple(completed), val, test, misses, failed, missing)


def _summary(
    values: Sequence[float], splits: Sequence[int], val_per_train: float | None, measure: Measure
) -> stats.Summary:
    """Summarize what the runs of an arm reached, the best being what the measure says."""
    found = stats.summary(values, splits, val_per_train, is_fraction=measure.is_fraction)
    return found if measure.sign > 0 else found._replace(best=found.worst, worst=found.best)


def _classes(runs: Iterable[CompletedRun]) -> Sequence[str]:
    """Return the names of the classes, if all runs that recorded some have the same."""
    found = {tuple(facts["classes"]) for run in runs if (facts := run.summary["inference"])}
    return found.pop() if len(found) == 1 else ()


def _measured(runs: Iterable[RunResult], measure: Measure) -> tuple[list[RunResult], list[str]]:
    """Return runs with all that is computed from their predictions, and a warning about files that are left out.

    Raises:
        ConfigError: The measure has no value, because no image counts.
    """
    found, altered = list(runs), []
    for place, run in enumerate(found):
        if not isinstance(run, CompletedRun):
            continue
        try:
            kept = read_predictions(run)
        except (OSError, ConfigError):
            altered.append(run)
            continue
        if kept:
            found[place] = _with_predictions(run, measure, kept)
    if not altered:
        return found, []
    folders = _enumerate([run.folder for run in altered])
    arms = "its arm" if len(altered) == 1 else "their arms"
    limit = f"so comparisons with {arms} are for these images, not for new ones"
    are_trained_again = all(keeping.was_dropped(run.folder, run_folder.BEST) for run in altered)
    how = "training brings them back" if are_trained_again else _how_to_predict(run.sweep for run in altered)
    return found, [f"the predictions of {folders} were changed or deleted after the run, {limit}; {how}"]


def read_predictions(run: RunResult) -> RunPredictions | None:
    """Return what a completed run predicted; None if it has kept nothing.

    Raises:
        OSError: The file can't be read.
        ConfigError: The file was altered or deleted.
    """
    return predictions.read(run.folder, checksum_of_predictions(run))


def checksum_of_predictions(run: RunResult) -> str | None:
    """Return the checksum of predictions.npz that the run recorded; None if it has kept no predictions."""
    return (run.summary["files"] or {}).get(PREDICTIONS)


def measured(kept: RunPredictions) -> dict[str, float]:
    """Return the values of the columns MEASURED for what a run has kept of its predictions."""
    values = {f"{part}_{measure.name}": measure.of(getattr(kept, part)) for part in PARTS for measure in MEASURES}
    return {column: values[column] for column in MEASURED}


def _require_predictions(measure: Measure, runs: Collection[CompletedRun]) -> None:
    """Raise ConfigError if a run lacks what the measure is computed from."""
    if lacking := [run for run in runs if not run.measured]:
        count = f"{len(lacking):,} of {len(runs):,} completed runs {'has' if len(lacking) == 1 else 'have'}"
        raise ConfigError(
            f"--by {measure.name}: {count} no intact {PREDICTIONS}, such as {lacking[0].folder}; "
            f"{_how_to_predict(run.sweep for run in lacking)}"
        )


def _how_to_predict(sweeps: Iterable[Path]) -> str:
    """Return how predictions that are missing are made."""
    names = " ".join(quoting.for_shell(str(sweep)) for sweep in dict.fromkeys(sweeps))
    return f"{program.tool('report')} {names} --predict computes them from the checkpoints"


def _with_predictions(run: CompletedRun, measure: Measure, kept: RunPredictions) -> CompletedRun:
    """Return a run with all that is computed from its predictions.

    Raises:
        ConfigError: The measure has no value, because no image counts.
    """
    run = replace(
        run,
        measured=measured(kept),
        images=measure.of_images(kept.val) if measure.of_images else None,
    )
    if measure is ACCURACY:  # the summary has it
        return run
    val, test = measure.of(kept.val), measure.of(kept.test)
    if math.isnan(val) or math.isnan(test):
        part = "validation" if math.isnan(val) else "test"
        raise ConfigError(f"--by {measure.name}: {run.folder} has no {part} image of this class")
    return replace(run, val=val, test=test)


def _with_predicted(arm: Arm) -> Arm:
    """Return an arm whose runs have what they predicted for the validation images, if they have kept it."""
    runs = (replace(run, predicted=kept.val) if (kept := _intact(run)) else run for run in arm.runs)
    return arm._replace(runs=tuple(runs))


def _intact(run: CompletedRun) -> RunPredictions | None:
    """Return what a run predicted, if it was intact when the results were read."""
    return read_predictions(run) if run.measured else None


def sample(arm: Arm, measure: Measure) -> stats.Sample:
    """Return what statistics need to know of an arm; there, higher is better."""
    return stats.Sample(
        values={run.job.seeds: measure.sign * run.val for run in arm.runs},
        images={
            run.job.seeds: run.images if measure.sign > 0 else -run.images for run in arm.runs if run.images is not None
        },
        image_source=image_source(arm),
        val_per_train=val_per_train(arm.runs[0]),
    )


def image_source(arm: Arm) -> str:
    """Return a value that is equal for arms whose runs of the same data.seed were validated on the same images."""
    first = arm.runs[0]
    sizes = [str(first.job.choices.get(key)) for key in ("data.validation", "data.test")]
    return " ".join([first.data["sha256"], *sizes])


def val_per_train(run: CompletedRun) -> float | None:
    """Return the validation images per training image; None for a run of an older version, which did not record it."""
    sizes = run.data.get("images")
    return sizes["val"] / sizes["train"] if sizes else None


def _lost_or_repeated(runs: Sequence[RunResult], distinct: int) -> list[str]:
    """Return warnings about runs that are left out, or whose files were changed; `distinct` counts completed runs."""
    warnings = []
    completed = [run for run in runs if isinstance(run, CompletedRun)]
    lost = [run for run in runs if run.job.status == "completed" and not isinstance(run, CompletedRun)]
    if lost:
        paths = _enumerate([run.folder / run_folder.SUMMARY for run in lost])
        warnings.append(f"completed runs are left out because their results are lost or damaged: {paths}")
    if repeated := len(completed) - distinct:
        warnings.append(f"{repeated} completed runs repeat others (same config_id); each config and seed counts once")
    changed = [run.folder for run in completed if not run_folder.is_unaltered(run.folder, run.summary, METRICS)]
    if changed:
        warnings.append(f"metrics.csv was changed after the run: {_enumerate(changed)}")
    return warnings


def _mixes(runs: Sequence[CompletedRun]) -> list[str]:
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
        warnings.append(f"{how}: {_enumerate(changed)}")
    return warnings


def _enumerate(paths: Sequence[Path]) -> str:
    """Return paths, the first of which are named and the others counted."""
    more = f" and {len(paths) - MAX_FOLDERS:,} more" if len(paths) > MAX_FOLDERS else ""
    return ", ".join(map(str, paths[:MAX_FOLDERS])) + more
