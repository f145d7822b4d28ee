"""Trials of learning rates, for each arm alike: what they found, and what they chose."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

from mnist_exp.record import RATE
from mnist_exp.sweep.results import Arm, Results, Run, seconds, spell


class Search(NamedTuple):
    """The trials of one arm. A rate can be chosen where all its seeds have completed."""

    label: str  # the arm's choices in a few words
    runs: tuple[Run, ...]  # all trials, whatever became of them
    arms: tuple[Arm, ...]  # the rates that can be chosen, in ascending order
    best: Arm | None  # by mean validation accuracy; the smallest of equals

    @property
    def rates(self) -> list[float]:
        """All that were tried, in ascending order."""
        return sorted({rate(run) for run in self.runs})

    @property
    def seconds(self) -> float:
        """What the trials took, added up."""
        return seconds(self.runs)

    @property
    def chosen(self) -> float:
        """The best rate; nan where there is none."""
        return rate(self.best.runs[0]) if self.best else nan

    @property
    def reached(self) -> float:
        """Mean validation accuracy at the best rate; nan where there is none."""
        return self.best.val.mean if self.best else nan

    @property
    def is_at_an_end(self) -> bool:
        """Whether the best rate is the lowest or the highest that was tried, so that a better one may lie beyond."""
        return self.chosen in (self.rates[0], self.rates[-1])


def rate(run: Run) -> float:
    """A run's learning rate."""
    return float(run.job.choices[RATE])


def searches(trials: Results) -> list[Search]:
    """The trials of each arm, in the order in which these were asked for."""
    keys = [key for key in trials.swept if key != RATE]
    found = dict[tuple[str, ...], list[Run]]()
    for run in trials.runs:
        found.setdefault(tuple(spell(run.job.choices.get(key)) for key in keys), []).append(run)
    return [_search(" ".join(values) or "default", runs, trials.arms) for values, runs in found.items()]


def _search(label: str, runs: Sequence[Run], arms: Sequence[Arm]) -> Search:
    ids, seeds = {run.job.arm for run in runs}, {run.job.seed for run in runs}
    whole = [arm for arm in arms if arm.id in ids and arm.val.n == len(seeds)]
    whole.sort(key=lambda arm: rate(arm.runs[0]))
    return Search(label, tuple(runs), tuple(whole), max(whole, key=lambda arm: arm.val.mean, default=None))
