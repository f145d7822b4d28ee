"""Reads sweep folders: their runs, the arms that the runs make up, and how the arms compare."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mnist_exp import config
from mnist_exp.report import integrity, measures, stats
from mnist_exp.report.labels import format_value, label, shown_keys, swept_keys
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.runs import (
    CompletedRun,
    RunResult,
    checksum_of_predictions,
    count_failures,
    measured,
    read_predictions,
    read_right,
    read_sweep,
    recorded_measures,
)
from mnist_exp.store import keeping, run_folder
from mnist_exp.store.ledger import Session, keys_beside_identity
from mnist_exp.store.predictions import RunPredictions
from mnist_exp.store.run_folder import PREDICTIONS, PRUNED
from mnist_exp.system import program, quoting
from mnist_exp.system.errors import ConfigError

IS_LOG = re.compile(r"\btag\(\s*log\b")  # in the words of a searched interval
WITH_PREDICTIONS = 4  # arms of which the report shows what they confuse with what


class Arm(NamedTuple):
    """Runs that differ in their seeds alone. Validation is at each run's best epoch."""

    id: str
    choices: dict[str, str]  # the value of each swept key that the arm has
    runs: tuple[CompletedRun, ...]  # by data.seed and seed
    val: stats.Summary  # of the report's measure
    test: stats.Summary
    misses: float  # wrong test images, mean over the runs
    failed: tuple[RunResult, ...] = ()  # runs that failed themselves, for example because they diverged
    missing: int = 0  # the number of runs that were killed or have not finished
    pruned: int = 0  # the number of runs that a search ended early
    is_default: bool = False  # whether it is the default run, with which the finalists of a search are compared

    @property
    def label(self) -> str:
        """The arm's choices in a few words."""
        return f"{label(self.choices)} (default)" if self.is_default and self.choices else label(self.choices)

    @property
    def is_whole(self) -> bool:
        """Whether no run failed or was pruned."""
        return not self.failed and not self.pruned

    @property
    def planned(self) -> int:
        """The number of runs in the sweep, whatever their status."""
        return len(self.runs) + len(self.failed) + self.pruned + self.missing

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
    arms: list[
        Arm
    ]  # with a completed run: those without failed or pruned runs first, then by the measure's validation mean
    comparisons: list[stats.Comparison]  # of the first of `compared` with each other one; p is corrected
    warnings: list[str]  # why results may not be comparable
    search: Results | None = None  # the sweep that chose the settings, or the learning rates
    without_results: Sequence[Arm] = ()  # arms of which no run completed and some failed themselves
    measure: Measure = ACCURACY  # by which the arms are ranked and compared
    without_predictions: int = 0  # completed runs that kept no predictions

    @property
    def compared(self) -> list[Arm]:
        """The arms without failed or pruned runs. The surviving runs of other arms are a selection."""
        return [arm for arm in self.arms if arm.is_whole]

    @property
    def failing(self) -> list[Arm]:
        """The arms with failed runs, which are shown and not compared."""
        return [arm for arm in (*self.arms, *self.without_results) if arm.failed]

    @property
    def shown(self) -> tuple[str, ...]:
        """The keys that tell runs apart, without the seed: the swept ones, and data.seed if it varies."""
        return shown_keys(self.runs, self.swept)

    @property
    def tuned(self) -> dict[str, bool]:
        """The keys whose values a search chose, and whether it took their ratios; none without a search."""
        if not self.search:
            return {}
        words = [word for session in self.search.sessions for word in session.get("search", {}).get("words", ())]
        of_rates = any(folder.name == run_folder.LR_SEARCH for folder in self.search.folders)
        return ({config.LR: True} if of_rates else {}) | {
            word.partition("=")[0]: bool(IS_LOG.search(word.partition("=")[2])) for word in words
        }

    @property
    def has_finalists(self) -> bool:
        """Whether arms are the defaults and finalists of a search: a selection, whose averages say nothing."""
        return any(folder.name == run_folder.SEARCH for folder in (self.search.folders if self.search else ()))

    @property
    def crossed(self) -> tuple[str, ...]:
        """The swept keys whose values were typed, not found by a search."""
        tuned = set(map(config.key_of, self.tuned))
        return tuple(key for key in self.swept if key not in tuned)


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
    found = _with_search(_ranked(folders, sessions, runs, measure))
    compared = [sample(arm, measure) for arm in found.compared]
    distinct = _distinct(runs)
    return found._replace(
        arms=[_with_predicted(arm) if place < WITH_PREDICTIONS else arm for place, arm in enumerate(found.arms)],
        comparisons=stats.leader_against_others(compared, anytime=any("until" in each for each in sessions)),
        warnings=[
            *integrity.lost_or_repeated(runs, len(distinct)),
            *altered,
            *integrity.mixes(list(distinct.values())),
        ],
        without_predictions=sum(checksum_of_predictions(run) is None for run in distinct.values()),
    )


def _with_search(results: Results) -> Results:
    """Return results with the searches before the sweeps, if there are any, and their default arms marked as such."""
    names = [folder / name for folder in results.folders for name in run_folder.SEARCHES]
    if not (folders := [folder for folder in names if (folder / run_folder.LEDGER).is_file()]):
        return results
    found = results._replace(search=read_trials(folders))
    if not found.has_finalists:
        return found

    def marked(arm: Arm) -> Arm:
        words = (arm.runs or arm.failed)[0].job.overrides
        return arm._replace(is_default=not any(word.partition("=")[0] in found.tuned for word in words))

    return found._replace(
        arms=[marked(arm) for arm in found.arms],
        without_results=[marked(arm) for arm in found.without_results],
    )


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
    if not beside:
        return sessions, runs
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
            (arm for arm in arms if arm.runs), key=lambda arm: (not arm.is_whole, -measure.sign * arm.val.mean)
        ),
        comparisons=[],
        warnings=[],
        without_results=[arm for arm in arms if arm.failed and not arm.runs],
        measure=measure,
    )


def _distinct(runs: Sequence[RunResult]) -> dict[tuple[str, str], CompletedRun]:
    """Return the completed runs by their id: of repeated ones, the first."""
    return {run.id: run for run in reversed(runs) if isinstance(run, CompletedRun)}


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
    its = members[0].job.choices  # an option may have keys that others have not
    choices = {key: format_value(its[key]) for key in swept if key in its}
    completed = sorted((run for run in members if isinstance(run, CompletedRun)), key=lambda run: run.job.seeds)
    failed = tuple(run for run in members if run.job.status == "failed" and run.job.failure)
    pruned = sum(run.job.status == PRUNED for run in members)
    missing = len(members) - len(completed) - len(failed) - pruned
    if not completed:
        return Arm(arm_id, choices, (), stats.NOTHING, stats.NOTHING, math.nan, failed, missing, pruned)
    splits, ratio = [run.job.seeds.split for run in completed], val_per_train(completed[0])
    val, test = (
        _summary(values, splits, ratio, measure)
        for values in zip(*((run.val, run.test) for run in completed), strict=True)
    )
    misses = sum(run.misses for run in completed) / len(completed)
    return Arm(arm_id, choices, tuple(completed), val, test, misses, failed, missing, pruned)


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
        known = recorded_measures(run) if measure is ACCURACY else {}
        try:
            right, kept = (read_right(run), None) if known else (None, read_predictions(run))
        except (OSError, ConfigError):
            altered.append(run)
            continue
        if known:
            found[place] = replace(run, measured=known, images=right)
        elif kept:
            found[place] = _with_predictions(run, measure, kept)
    if not altered:
        return found, []
    folders = integrity.enumerate_paths([run.folder for run in altered])
    arms = "its arm" if len(altered) == 1 else "their arms"
    limit = f"so comparisons with {arms} are for these images, not for new ones"
    are_trained_again = all(keeping.was_dropped(run.folder, run_folder.BEST) for run in altered)
    how = "training brings them back" if are_trained_again else _how_to_predict(run.sweep for run in altered)
    return found, [f"the predictions of {folders} were changed or deleted after the run, {limit}; {how}"]


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
