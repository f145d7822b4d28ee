"""What the figures show of arms: averages over arms and seeds. Fractions are in percent."""

import math
from collections.abc import Sequence

import numpy as np

from mnist_exp.report import stats
from mnist_exp.report.figures import axis
from mnist_exp.report.figures.axis import Floats
from mnist_exp.report.measures import Measure
from mnist_exp.report.results import Arm, val_per_train

LEAST = 0.001  # a range of a measure that is too small to matter


def mean(arms: Sequence[Arm], measure: Measure) -> float:
    """Return the mean of the arms' means in validation; nan if there are no arms."""
    return measure.scale * math.fsum(arm.val.mean for arm in arms) / len(arms) if arms else math.nan


def limits(
    measure: Measure, points: Sequence[float] | Floats, intervals: Sequence[float] | Floats = ()
) -> tuple[float, float]:
    """Return the ends of an axis of the measure, as `axis.limits` does."""
    return axis.limits(points, intervals, measure.sign, measure.scale * LEAST)


def is_beyond(value: float, ends: tuple[float, float], measure: Measure) -> bool:
    """Return whether a value is worse than an axis with these ends shows."""
    low, high = ends
    return value < low if measure.sign > 0 else value > high


def label(measure: Measure) -> str:
    """Return what an axis of the measure is called."""
    return f"{measure.title} (%)" if measure.is_fraction else measure.title


def direction(measure: Measure) -> list[str]:
    """Return a note if lower is better."""
    return [] if measure.sign > 0 else ["Lower is better."]


def interval(arms: Sequence[Arm], measure: Measure) -> tuple[float, float] | None:
    """Return the 95 % interval over seeds of the arms' mean; None if they have different seeds, or too few."""
    by_seed = [{run.job.seeds: run.val for run in arm.runs} for arm in arms]
    if not by_seed or len(by_seed[0]) < 2 or any(runs.keys() != by_seed[0].keys() for runs in by_seed):
        return None
    seeds = sorted(by_seed[0])
    means = [math.fsum(runs[each] for runs in by_seed) / len(by_seed) for each in seeds]
    splits, ratio = [each.split for each in seeds], val_per_train(arms[0].runs[0])
    summary = stats.summary(means, splits, ratio, is_fraction=measure.is_fraction)
    return (measure.scale * summary.low, measure.scale * summary.high) if summary.low < summary.high else None


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
