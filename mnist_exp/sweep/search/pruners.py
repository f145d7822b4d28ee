"""What ends the trials of a search early: hydra.sweeper.prune.

A decision is a function of trials that have ended before the trial in question began. So it is the same in a search
that is killed and resumed, and however many trials run at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from mnist_exp.system.errors import ConfigError, offer

NONE, MEDIAN, HYPERBAND = "none", "median", "hyperband"
DEFAULTS: dict[str, dict[str, int]] = {  # the settings of each pruner; names and values are Optuna's
    NONE: {},
    MEDIAN: {"n_startup_trials": 5, "n_warmup_steps": 0},
    HYPERBAND: {"reduction_factor": 3},
}


class Batch(NamedTuple):
    """Trials that are suggested at once.

    Attributes:
        start: The number of the first one.
        size: How many they are.
        rungs: The epochs after which the best ones are chosen, and the others pruned. The last one has all epochs; None
            stands for it where nothing is chosen.
    """

    start: int
    size: int
    rungs: tuple[int | None, ...] = (None,)

    @property
    def end(self) -> int:
        """The number of the first trial after them."""
        return self.start + self.size


class Pruner(NamedTuple):
    """A pruner, as hydra.sweeper.prune names it."""

    name: str = NONE
    options: Mapping[str, int] = {}  # those of DEFAULTS that are set

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
            if type(value) is not int or value < 0:
                raise ConfigError(f"hydra.sweeper.prune.{key}={value}: must be a whole number, 0 or more")
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
    def settings(self) -> dict[str, int]:
        """The value of each of its settings."""
        return {**DEFAULTS[self.name], **self.options}

    @property
    def eta(self) -> int:
        """The inverse of the share of trials that go on at each rung."""
        return self.settings["reduction_factor"]

    def check(self, epochs: int, searched: Collection[str]) -> None:
        """Raise ConfigError if the trials of an arm can't be pruned.

        Args:
            epochs: Of a run of the arm.
            searched: The keys that the search tunes.
        """
        if self.name == HYPERBAND and "epochs" in searched:
            raise ConfigError(
                f"epochs: hydra.sweeper.prune={HYPERBAND} divides the epochs, so a search can't choose them"
            )
        if self.name == HYPERBAND and self.eta < 2:
            raise ConfigError(f"hydra.sweeper.prune.reduction_factor={self.eta}: must be 2 or more")
        if self.name == HYPERBAND and epochs < self.eta:
            raise ConfigError(
                f"epochs={epochs}: hydra.sweeper.prune={HYPERBAND} with reduction_factor={self.eta} needs {self.eta} "
                "or more"
            )

    def batches(self, trials: int, epochs: int, size: int) -> Iterator[Batch]:
        """Yield the batches of an arm's trials.

        Args:
            trials: How many there are.
            epochs: Of a run.
            size: Of a batch whose trials all have the same epochs.
        """
        shapes = brackets(epochs, self.eta) if self.name == HYPERBAND else [Batch(0, size)]
        start = 0
        for shape in cycle(shapes):
            if start >= trials:
                return
            batch = shape._replace(start=start, size=min(shape.size, trials - start))
            yield batch
            start = batch.end


def brackets(epochs: int, eta: int) -> list[Batch]:
    """Return the brackets of Hyperband: each begins with fewer trials than the one before it, and more epochs.

    Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar 2018 (JMLR 18, 1-52), algorithm 1, with rungs of whole epochs.
    """
    most = 0  # rungs after the first one
    while eta ** (most + 1) <= epochs:
        most += 1
    return [
        Batch(0, -(-(most + 1) * eta**last // (last + 1)), tuple(epochs // eta ** (last - i) for i in range(last + 1)))
        for last in range(most, -1, -1)
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
