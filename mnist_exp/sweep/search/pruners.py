"""What ends the trials of a search early: hydra.sweeper.prune.

A decision is a function of trials that have ended before the trial in question began. So it is the same in a search
that is killed and resumed, and however many trials run at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mnist_exp.system.errors import ConfigError, offer

NONE, MEDIAN = "none", "median"
DEFAULTS: dict[str, dict[str, int]] = {  # the settings of each pruner; names and values are Optuna's
    NONE: {},
    MEDIAN: {"n_startup_trials": 5, "n_warmup_steps": 0},
}


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
                settings = " and ".join(DEFAULTS[name]) or "no settings"
                raise ConfigError(f"hydra.sweeper.prune.{key}: {name} has {settings}")
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
        settings = {**DEFAULTS[self.name], **self.options}
        if self.name == NONE or len(completed) < max(1, settings["n_startup_trials"]):
            return None
        return medians([lowest(runs) for runs in completed], settings["n_warmup_steps"])


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
