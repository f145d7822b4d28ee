"""Reads a search of settings or of learning rates: its trials, what they show of each key, what the best became."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import nan
from statistics import fmean
from typing import NamedTuple

from mnist_exp import config
from mnist_exp.config import LR
from mnist_exp.report import stats
from mnist_exp.report.labels import label
from mnist_exp.report.results import Arm, Results, sample
from mnist_exp.report.runs import CompletedRun, RunResult
from mnist_exp.store.run_folder import ENDED_WELL, PRUNED

MIN_TRIALS = 10  # with fewer, the importance of a key is noise
TREES, REPEATS = 100, 10  # of the forest that learns what the trials reached, and permutations of each key

Setting = dict[str, str]  # the text of each searched key's value


class Trial(NamedTuple):
    """One setting, with the seeds that it was given."""

    setting: Setting
    seeds: int  # of a trial that comes to its end
    runs: list[RunResult]

    @property
    def failed(self) -> list[RunResult]:
        """The runs that failed themselves."""
        return [run for run in self.runs if run.job.status == "failed" and run.job.failure]

    @property
    def values(self) -> list[float]:
        """The validation accuracy of each run that completed; none if one failed itself, or was pruned."""
        if self.failed or self.is_pruned:
            return []
        return [run.val_accuracy for run in self.runs if isinstance(run, CompletedRun)]

    @property
    def is_pruned(self) -> bool:
        """Whether a run was pruned, or was never begun, so that the trial can't be compared."""
        return self.unbegun > 0 or any(run.job.status == PRUNED for run in self.runs)

    @property
    def unbegun(self) -> int:
        """The number of runs that pruning saved as a whole."""
        return max(0, self.seeds - len(self.runs))

    @property
    def reached(self) -> float:
        """The mean validation accuracy; nan if the trial failed or was pruned, or if no run completed."""
        return fmean(self.values) if self.values else nan

    @property
    def so_far(self) -> float:
        """The mean validation accuracy, of a pruned run up to its last epoch; nan if the trial failed."""
        values = [run.summary["best_val_accuracy"] or 0.0 for run in self.runs if run.job.status in ENDED_WELL]
        return nan if self.failed or not values else fmean(values)


class Finalist(NamedTuple):
    """One of the best settings."""

    trial: Trial
    fresh: Arm  # its runs with seeds that took no part in the search

    @property
    def label(self) -> str:
        """The setting in a few words."""
        return label(self.trial.setting)


class Search(NamedTuple):
    """The search inside one arm."""

    label: str  # the arm's choices in a few words; empty if there is one arm
    keys: tuple[str, ...]
    trials: list[Trial]  # in the order in which they were suggested
    finalists: list[Finalist]  # the best one by the search first; none before the sweep after it has begun
    default: Arm | None  # the arm without a search; after one of learning rates the best takes its place
    log_keys: frozenset[str]  # those that are searched by ratio

    @property
    def is_of_rates(self) -> bool:
        """Whether it tried learning rates alone, so that the result is a curve over them."""
        return self.keys == (LR,) and LR in self.log_keys

    @property
    def best(self) -> Trial | None:
        """The trial that reached most, the first of equals; None if none completed."""
        return max(self.completed, key=lambda trial: trial.reached, default=None)

    @property
    def edge(self) -> str:
        """Whether the best learning rate is the `lowest` or the `highest` that was tried; nothing if it is neither."""
        if not self.is_of_rates or not self.best:
            return ""
        rates = sorted(float(trial.setting[LR]) for trial in self.trials)
        return {rates[-1]: "highest", rates[0]: "lowest"}.get(float(self.best.setting[LR]), "")

    @property
    def completed(self) -> list[Trial]:
        """The trials that can be compared."""
        return [trial for trial in self.trials if trial.reached == trial.reached]

    @property
    def best_so_far(self) -> list[float]:
        """The best mean validation accuracy up to each trial; nan before the first that completed."""
        best, found = nan, []
        for trial in self.trials:
            best = trial.reached if not best >= trial.reached and trial.reached == trial.reached else best
            found.append(best)
        return found


def searches(results: Results) -> list[Search]:
    """Return the search of each arm, in the order in which the arms were asked for; none without a search."""
    if not results.search:
        return []
    keys, seeds = results.tuned, _seeds_of_trials(results.search)
    trials: dict[tuple[str, ...], dict[tuple[str, ...], Trial]] = {}
    for run in results.search.runs:
        setting, arm = _divide(run, keys)
        trials.setdefault(arm, {}).setdefault(tuple(setting.values()), Trial(setting, seeds, [])).runs.append(run)
    names = _labels(list(trials))
    return [
        _search(name, arm, list(found.values()), keys, results)
        for name, (arm, found) in zip(names, trials.items(), strict=True)
    ]


def _seeds_of_trials(trials: Results) -> int:
    """Return the number of seeds of a trial that comes to its end: as the command asked, or as far as it is known."""
    asked = [len(seeds) for session in trials.sessions for _, seeds in session.get("trials", ())]
    return max(asked, default=0) or len({run.job.seed for run in trials.runs})


def gain(search: Search, results: Results, count: int) -> stats.Comparison | None:
    """Compare the best setting of a search with its default, by fresh seeds.

    The setting was chosen before these seeds ran, so p is corrected (Bonferroni) for the arms that are searched, and
    not for the other finalists.

    Args:
        search: The search of an arm.
        results: The sweep after it.
        count: How many arms are searched.
    """
    if not search.finalists or not search.default or not search.default.runs:
        return None
    best = search.finalists[0].fresh
    if best.failed or search.default.failed:
        return None
    found = stats.compare(sample(best, results.measure), sample(search.default, results.measure), pairs=count)
    claim, here = (each._replace(p=min(1.0, count * each.p)) for each in (found.claim, found.on_these_images))
    return found._replace(claim=claim, on_these_images=here)


def importance(search: Search) -> dict[str, float]:
    """Return each key's share in what the trials reached: Breiman 2001's permutation importance of a random forest.

    A failed trial counts as the worst, a pruned one by what it had reached. There is none for fewer than MIN_TRIALS
    trials with a result, or where all reached the same.
    """
    values = [trial.reached for trial in search.completed]
    if len(values) < MIN_TRIALS or min(values) == max(values):
        return {}
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    columns = [_numbers([trial.setting[key] for trial in search.trials]) for key in search.keys]
    inputs = list(zip(*columns, strict=True))
    reached = [trial.so_far if trial.so_far == trial.so_far else min(values) for trial in search.trials]
    forest = RandomForestRegressor(TREES, random_state=0).fit(inputs, reached)
    found = permutation_importance(forest, inputs, reached, n_repeats=REPEATS, random_state=0).importances_mean.clip(0)
    return dict(zip(search.keys, found / (found.sum() or 1), strict=True))


def _search(name: str, arm: tuple[str, ...], trials: list[Trial], keys: dict[str, bool], results: Results) -> Search:
    arms = {each.id: each for each in (*results.arms, *results.without_results)}
    finals: dict[tuple[str, ...], Arm] = {}
    for run in results.runs:
        setting, own = _divide(run, keys)
        if own == arm and run.job.arm in arms:
            finals[tuple(setting.values())] = arms[run.job.arm]
    finalists = [
        Finalist(trial, finals[tuple(trial.setting.values())])
        for trial in trials
        if tuple(trial.setting.values()) in finals
    ]
    finalists.sort(key=lambda each: -each.trial.reached)
    return Search(
        name, tuple(trials[0].setting), trials, finalists, finals.get(()), frozenset(key for key in keys if keys[key])
    )


def _divide(run: RunResult, keys: Collection[str]) -> tuple[Setting, tuple[str, ...]]:
    """Return the searched part of a run's overrides, and the rest without the seed."""
    words = [word for word in run.job.overrides if config.key_of(word) != "seed"]
    setting = dict(word.split("=", 1) for word in words if word.partition("=")[0] in keys)
    return setting, tuple(sorted(word for word in words if word.partition("=")[0] not in keys))


def _labels(arms: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the choices of each arm in a few words: those that not all arms have."""
    shared = set.intersection(*map(set, arms))
    own = [[word.split("=", 1) for word in arm if word not in shared and "=" in word] for arm in arms]
    return [label(dict(pairs)) if pairs else "" for pairs in own]


def _numbers(texts: Sequence[str]) -> list[float]:
    """Return the values of a key as numbers: of a list of words, their place in it."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        places = {text: place for place, text in enumerate(sorted(set(texts)))}
        return [places[text] for text in texts]
