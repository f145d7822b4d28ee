"""What ends the trials of a search early: hydra.sweeper.prune.

A decision is a function of trials that have ended before the trial in question began. So it is the same in a search
that is killed and resumed, and however many trials run at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import cycle, pairwise
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from mnist_exp.report.labels import format_value
from mnist_exp.system.errors import ConfigError, offer

NONE, MEDIAN, HYPERBAND, WILCOXON = "none", "median", "hyperband", "wilcoxon"
EPOCHS, SEEDS = "epochs", "seeds"  # what Hyperband divides
DEFAULTS: dict[str, dict[str, Any]] = {  # the settings of each pruner; names and values are Optuna's, but for resource
    NONE: {},
    MEDIAN: {"n_startup_trials": 5, "n_warmup_steps": 0},
    HYPERBAND: {"reduction_factor": 3, "resource": EPOCHS},
    WILCOXON: {"p_threshold": 0.1, "n_startup_steps": 2},
}
PACKAGES = {WILCOXON: "scipy"}  # on whose version decisions depend


class Rung(NamedTuple):
    """What the trials of a batch train before it is decided which of them go on.

    Attributes:
        epochs: Of each run; None: all.
        seeds: Those of its trial's seeds that it adds to the ones of earlier rungs.
    """

    epochs: int | None = None
    seeds: slice = slice(None)

    def new(self, seeds: Sequence[int]) -> Sequence[int]:
        """Return the seeds that a trial with these seeds trains for this rung."""
        return seeds[self.seeds]

    def so_far(self, seeds: Sequence[int]) -> Sequence[int]:
        """Return the seeds that a trial with these seeds has trained after this rung."""
        return seeds[: self.seeds.stop]


class Batch(NamedTuple):
    """Trials that are suggested at once.

    Attributes:
        start: The number of the first one.
        size: How many they are.
        rungs: Where it is decided which ones go on, and which are pruned. After the last one a trial is complete.
    """

    start: int
    size: int
    rungs: tuple[Rung, ...] = (Rung(),)

    @property
    def end(self) -> int:
        """The number of the first trial after them."""
        return self.start + self.size


class Pruner(NamedTuple):
    """A pruner, as hydra.sweeper.prune names it."""

    name: str = NONE
    options: Mapping[str, Any] = {}  # those of DEFAULTS that are set

    @classmethod
    def read(cls, typed: Any) -> Pruner:
        """Return the pruner that hydra.sweeper.prune asks for: its name, or a mapping with `pruner` and its settings.

        Raises:
            ConfigError: There is no such pruner, or it has no such setting.
        """
        options = dict(typed) if isinstance(typed, Mapping) else {"pruner": typed}
        name = options.pop("pruner", NONE)
        if name not in DEFAULTS:
            raise ConfigError(f"hydra.sweeper.prune={name}: no such pruner, {offer(str(name), list(DEFAULTS))}")
        for key, value in options.items():
            if key not in DEFAULTS[name]:
                settings = " and ".join(DEFAULTS[name]) or "no settings; say which pruner, as in {pruner:median}"
                raise ConfigError(f"hydra.sweeper.prune.{key}: no such setting; {name} has {settings}")
            if allowed := _allowed(value, DEFAULTS[name][key]):
                raise ConfigError(f"hydra.sweeper.prune.{key}={format_value(value)}: must be {allowed}")
        return cls(name, options)

    @property
    def typed(self) -> dict[str, Any]:
        """The mapping from which `read` makes this pruner."""
        return {"pruner": self.name, **self.options}

    def limits(self, completed: Sequence[Sequence[Sequence[float]]]) -> list[float] | None:
        """Return what a run of the next trials must have reached by each epoch: its `stop_below`. None prunes nothing.

        Args:
            completed: The trials that ended with a result: the validation accuracy of each run and epoch.
        """
        if self.name != MEDIAN or len(completed) < max(1, self.settings["n_startup_trials"]):
            return None
        return medians([lowest(runs) for runs in completed], self.settings["n_warmup_steps"])

    @property
    def settings(self) -> dict[str, Any]:
        """The value of each of its settings."""
        return {**DEFAULTS[self.name], **self.options}

    @property
    def eta(self) -> int:
        """The inverse of the share of trials that go on at each rung of Hyperband."""
        return int(self.settings["reduction_factor"])

    @property
    def divides_epochs(self) -> bool:
        """Whether trials begin with fewer epochs."""
        return self.name == HYPERBAND and self.settings["resource"] == EPOCHS

    @property
    def divides_seeds(self) -> bool:
        """Whether trials begin with fewer seeds."""
        return self.name == WILCOXON or (self.name == HYPERBAND and not self.divides_epochs)

    @property
    def first_seeds(self) -> int:
        """The seeds with which a trial begins where a signed-rank test prunes: with fewer, none can be significant."""
        steps, p = int(self.settings["n_startup_steps"]), float(self.settings["p_threshold"])
        return max(2, steps, math.floor(-math.log2(p)) + 1)

    def check(self, epochs: int, seeds: int, searched: Collection[str]) -> None:
        """Raise ConfigError if the trials of an arm can't be pruned.

        Args:
            epochs: Of a run of the arm.
            seeds: Of a trial.
            searched: The keys that the search tunes.
        """
        if self.divides_epochs and "epochs" in searched:
            raise ConfigError(
                f"epochs: hydra.sweeper.prune={HYPERBAND} divides the epochs, so a search can't choose them; "
                "{pruner:hyperband,resource:seeds} divides the seeds"
            )
        if self.name == HYPERBAND and self.eta < 2:
            raise ConfigError(f"hydra.sweeper.prune.reduction_factor={self.eta}: must be 2 or more")
        if self.name == HYPERBAND and (epochs if self.divides_epochs else seeds) < self.eta:
            begin = f"epochs={epochs}:" if self.divides_epochs else f"hydra.sweeper.trial_seeds: has {seeds}, and"
            raise ConfigError(
                f"{begin} hydra.sweeper.prune={HYPERBAND} with reduction_factor={self.eta} needs {self.eta} or more"
            )
        if self.name == WILCOXON and seeds <= self.first_seeds:
            raise ConfigError(
                f"hydra.sweeper.trial_seeds: has {seeds}, and hydra.sweeper.prune={WILCOXON} with "
                f"p_threshold={self.settings['p_threshold']} prunes after {self.first_seeds} at the earliest; give it "
                f"{self.first_seeds + 1} or more"
            )

    def batches(self, trials: int, epochs: int, seeds: int, size: int) -> Iterator[Batch]:
        """Yield the batches of an arm's trials.

        Args:
            trials: How many there are.
            epochs: Of a run.
            seeds: Of a trial.
            size: Of a batch, where Hyperband does not say it.
        """
        start = 0
        for shape in cycle(self._shapes(epochs, seeds, size)):
            if start >= trials:
                return
            batch = shape._replace(start=start, size=min(shape.size, trials - start))
            yield batch
            start = batch.end

    def _shapes(self, epochs: int, seeds: int, size: int) -> list[Batch]:
        """Return the batches that follow each other again and again, each as if it were the first one."""
        if self.divides_epochs:
            return [Batch(0, size, tuple(map(Rung, rungs))) for size, rungs in brackets(epochs, self.eta)]
        if self.name == HYPERBAND:
            return [Batch(0, size, _over_seeds(rungs)) for size, rungs in brackets(seeds, self.eta)]
        if self.name == WILCOXON:
            return [Batch(0, size, _over_seeds(range(self.first_seeds, seeds + 1)))]
        return [Batch(0, size)]

    def going_on(self, trials: Sequence[Mapping[int, float]], best: Mapping[int, float]) -> list[int]:
        """Return the places of the trials of a batch that go on from a rung. Of equal ones, the earlier.

        Args:
            trials: What each trial has reached up to the rung, by seed; nothing for one that failed.
            best: What the best trial before the batch reached; nothing if there is none.
        """
        left = [place for place, reached in enumerate(trials) if reached]
        if self.name == WILCOXON:
            return [place for place in left if not self._is_worse(trials[place], best)]
        left.sort(key=lambda place: -fmean(trials[place].values()))
        return left[: max(1, len(trials) // self.eta)]  # of a bracket that `trials` cuts short, one

    def _is_worse(self, reached: Mapping[int, float], best: Mapping[int, float]) -> bool:
        """Return whether a signed-rank test says that a trial is worse than the best one, as Optuna's pruner does."""
        differences = [value - best[seed] for seed, value in reached.items() if seed in best]
        if len(differences) < self.first_seeds or fmean(best.values()) <= fmean(reached.values()):
            return False
        return _p_of_less(tuple(sorted(differences))) < float(self.settings["p_threshold"])


@cache
def _p_of_less(differences: tuple[float, ...]) -> float:
    """Return the p-value of Wilcoxon's signed-rank test that differences are below 0. With ties it takes 0.1 s."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue)


def _allowed(value: Any, default: Any) -> str:
    """Return what a setting with this default must be; nothing if the value is allowed."""
    if isinstance(default, str):
        return "" if value in (EPOCHS, SEEDS) else f"{EPOCHS} or {SEEDS}"
    if isinstance(default, float):
        return "" if type(value) in (int, float) and 0 < value <= 1 else "a number above 0, at most 1"
    return "" if type(value) is int and value >= 0 else "a whole number, 0 or more"


def _over_seeds(counts: Iterable[int]) -> tuple[Rung, ...]:
    """Return rungs after these numbers of seeds."""
    return tuple(Rung(seeds=slice(*ends)) for ends in pairwise([0, *counts]))


def brackets(most: int, eta: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return the brackets of Hyperband: each begins with fewer trials than the one before it, and more of a resource.

    Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar 2018 (JMLR 18, 1-52), algorithm 1, with whole epochs or seeds.

    Args:
        most: Of the resource, which a trial that comes to its end uses.
        eta: The inverse of the share of trials that go on.

    Returns:
        For each bracket its number of trials, and what they have used of the resource at each rung.
    """
    further = 0  # rungs after the first one
    while eta ** (further + 1) <= most:
        further += 1
    return [
        (-(-(further + 1) * eta**last // (last + 1)), tuple(most // eta ** (last - i) for i in range(last + 1)))
        for last in range(further, -1, -1)
    ]


def medians(curves: Sequence[Sequence[float]], warmup: int) -> list[float]:
    """Return the median over trials at each epoch, as optuna.pruners.MedianPruner compares with it.

    Args:
        curves: The validation accuracy of each trial and epoch. Some trials may have fewer epochs.
        warmup: The first epochs, after which nothing is pruned: 0 stands for their median.
    """
    epochs = max(map(len, curves))
    found = [
        float(np.percentile([curve[epoch] for curve in curves if epoch < len(curve)], 50)) for epoch in range(epochs)
    ]
    return [0.0] * min(warmup, epochs) + found[warmup:]


def lowest(runs: Sequence[Sequence[float]]) -> list[float]:
    """Return the curve of a trial: at each epoch, the lowest accuracy of its runs that have it.

    So a trial is below another one if one of its runs is, which each run can see by itself.
    """
    return [min(run[epoch] for run in runs if epoch < len(run)) for epoch in range(max(map(len, runs)))]
