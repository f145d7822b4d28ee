"""Reads a learning-rate search: what its trials found for each arm, and which rate they chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import NamedTuple

from mnist_exp.config import LR
from mnist_exp.report.labels import format_value, label
from mnist_exp.report.results import Arm, Results
from mnist_exp.report.runs import RunResult, total_seconds


class Search(NamedTuple):
    """The search for the learning rate of one arm. A trial is one run of a search."""

    label: str  # the arm's choices in a few words
    trials: tuple[RunResult, ...]  # whatever their status
    arms: tuple[Arm, ...]  # one per rate at which no trial failed itself, by rate
    best: Arm | None  # the rate with the highest mean validation accuracy; the lowest of equals
    failed: tuple[RunResult, ...]  # the trials that failed themselves

    @property
    def rates(self) -> list[float]:
        """All rates, in ascending order."""
        return sorted({rate(run) for run in self.trials})

    @property
    def seconds(self) -> float:
        """The time that the trials took together."""
        return total_seconds(self.trials)

    @property
    def chosen(self) -> float:
        """The best rate; nan if there is none."""
        return rate(self.best.runs[0]) if self.best else nan

    @property
    def reached(self) -> float:
        """The mean validation accuracy at the best rate; nan if there is none."""
        return self.best.val.mean if self.best else nan

    @property
    def is_at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest one, so that a better one may lie outside the range."""
        return self.chosen in (self.rates[0], self.rates[-1])


def rate(run: RunResult) -> float:
    """Return the learning rate of a run."""
    return float(run.job.choices[LR])


def searches(trials: Results) -> list[Search]:
    """Return the search of each arm, in the order in which the arms were asked for.

    Args:
        trials: The sweep of the learning-rate search, `Results.lr_search`.
    """
    keys = [key for key in trials.swept if key != LR]
    trials_of_arm: dict[tuple[str, ...], list[RunResult]] = {}
    for run in trials.runs:
        trials_of_arm.setdefault(tuple(format_value(run.job.choices.get(key)) for key in keys), []).append(run)
    compared, failing = ({arm.id: arm for arm in arms} for arms in (trials.compared, trials.failing))
    return [
        _search(label(dict(zip(keys, values, strict=True))), runs, compared, failing)
        for values, runs in trials_of_arm.items()
    ]


def _search(name: str, runs: Sequence[RunResult], compared: Mapping[str, Arm], failing: Mapping[str, Arm]) -> Search:
    ids = dict.fromkeys(run.job.arm for run in runs)
    arms = sorted((compared[each] for each in ids if each in compared), key=lambda arm: rate(arm.runs[0]))
    failed = tuple(run for each in ids if each in failing for run in failing[each].failed)
    return Search(name, tuple(runs), tuple(arms), max(arms, key=lambda arm: arm.val.mean, default=None), failed)
