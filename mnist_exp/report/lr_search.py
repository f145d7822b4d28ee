"""Trials of learning rates, for each arm alike: what they found, and what they chose."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

from mnist_exp.config import LR as RATE
from mnist_exp.report.results import Arm, Results, Run, label, seconds, spell


class Search(NamedTuple):
    """The trials of one arm. A rate can be chosen where no trial failed by its own doing."""

    label: str  # the arm's choices in a few words
    runs: tuple[Run, ...]  # all trials, whatever became of them
    arms: tuple[Arm, ...]  # the rates that can be chosen, in ascending order
    best: Arm | None  # by mean validation accuracy; the smallest of equals
    failed: tuple[Run, ...]  # trials, by their own doing

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
    return [_search(label(dict(zip(keys, values, strict=True))), runs, trials) for values, runs in found.items()]


def _search(name: str, runs: Sequence[Run], trials: Results) -> Search:
    ids = {run.job.arm for run in runs}
    kept = sorted((arm for arm in trials.compared if arm.id in ids), key=lambda arm: rate(arm.runs[0]))
    failed = tuple(run for arm in trials.failing if arm.id in ids for run in arm.failed)
    return Search(name, tuple(runs), tuple(kept), max(kept, key=lambda arm: arm.val.mean, default=None), failed)
