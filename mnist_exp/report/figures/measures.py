"""What the figures show of arms, accuracies in percent."""

import math
from collections.abc import Sequence

import numpy as np

from mnist_exp.report import stats
from mnist_exp.report.figures.axis import Floats
from mnist_exp.report.results import Arm


def mean(arms: Sequence[Arm]) -> float:
    """Return the mean of the arms' mean validation accuracies; nan if there are no arms."""
    return 100 * math.fsum(arm.val.mean for arm in arms) / len(arms) if arms else math.nan


def interval(arms: Sequence[Arm]) -> tuple[float, float] | None:
    """Return the 95 % interval over seeds of the arms' mean; None if they have different seeds, or too few."""
    by_seed = [{run.job.seed: run.val_accuracy for run in arm.runs} for arm in arms]
    if not by_seed or len(by_seed[0]) < 2 or any(runs.keys() != by_seed[0].keys() for runs in by_seed):
        return None
    means = [math.fsum(runs[seed] for runs in by_seed) / len(by_seed) for seed in sorted(by_seed[0])]
    summary = stats.summary(means)
    return (100 * summary.low, 100 * summary.high) if summary.low < summary.high else None


def curve(arm: Arm, column: str, scale: float = 1) -> Floats:
    """Return a column of metrics.csv over an arm's runs, at the epochs that all of them have.

    Args:
        arm: An arm with a completed run.
        column: The name of the column.
        scale: A factor for its values.

    Returns:
        Epoch, lowest, mean and highest value, (4, epochs); nan where a value is not finite.
    """
    runs = [dict(zip(run.curves.get("epoch", []), run.curves.get(column, []), strict=False)) for run in arm.runs]
    epochs = sorted(set(runs[0]).intersection(*runs))
    values = scale * np.array([[run[epoch] for epoch in epochs] for run in runs])
    values[~np.isfinite(values)] = np.nan
    return np.array([epochs, values.min(0), values.mean(0), values.max(0)])
