"""The limits, ticks and labels of axes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_MISSES = 0.01  # %
FAR = 20  # a point this many times as far below the best as the median does not stretch an axis


def limits(
    points: Sequence[float] | Floats, intervals: Sequence[float] | Floats = (), sign: int = 1, least: float = 0.1
) -> tuple[float, float]:
    """Return the ends of an axis of accuracies, or of another measure.

    Args:
        points: The axis shows all of them, except those far worse than the rest. Points that are not finite are
            ignored.
        intervals: The ends of intervals. They widen the axis by the range of the points at most.
        sign: 1 if higher is better, and 100 the best; -1 if lower is better, and 0 the best.
        least: A range that is too small to matter.
    """
    if sign < 0:
        low, high = _limits(np.negative(points), np.negative(intervals), 0, least)
        return -high, -low
    return _limits(points, intervals, 100, least)


def _limits(
    points: Sequence[float] | Floats, intervals: Sequence[float] | Floats, most: float, least: float
) -> tuple[float, float]:
    shown = sorted(filter(math.isfinite, points)) or [0.0]
    best, median = shown[-1], shown[(len(shown) - 1) // 2]
    lowest = min(point for point in shown if point >= best - FAR * max(best - median, least))
    room = max(best - lowest, least)
    ends = [lowest, best, *filter(math.isfinite, intervals)]
    low, high = max(min(ends), lowest - room), min(max(ends), best + room, max(best, most))
    pad = 0.05 * (high - low) or least
    return low - pad, high + pad


def round_ticks(low: float, high: float, number: float, most: float = 100) -> tuple[list[float], list[str]]:
    """Return about `number` round ticks between `low` and `high`, none above `most`, and their labels."""
    ticks = MaxNLocator(nbins=max(2, int(number)), steps=[1, 2, 5, 10]).tick_values(low, min(high, most))
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    shown = [float(tick) for tick in ticks if max(0, low) <= tick <= min(high, most + 1e-9)]
    return shown, [f"{tick:.{decimals}f}" for tick in shown]


def misses(accuracies: Sequence[float] | Sequence[Sequence[float]]) -> Floats:
    """Return the misses (%) that accuracies leave, on a logarithmic axis, which has no place for 0."""
    return (100 * (1 - np.array(accuracies))).clip(LEAST_MISSES)


def show_accuracies(axes: Axes, ends: tuple[float, float] | None = None) -> None:
    """Make the vertical axis, which holds misses (%), one of accuracies: spaced by the ratio of their misses.

    Args:
        axes: What has been drawn.
        ends: The fewest and the most misses to show; by default those that were drawn.
    """
    axes.set_yscale("log")
    low, high = ends or sorted(axes.get_ylim())
    axes.set_ylim(high, low)
    axes.set_yticks(*accuracy_ticks(low, high))
    axes.minorticks_off()


def accuracy_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Return ticks on a logarithmic axis of misses (%), at most ten where possible, labelled with the accuracies."""
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [step * 10.0**power for power in range(-3, 2) for step in steps if low <= step * 10.0**power <= high]
    for first_digits in ("12358", "125", "1"):
        if len(ticks) > 10:
            ticks = [tick for tick in ticks if f"{tick:e}"[0] in first_digits and f"{tick:e}"[2] == "0"]
    return ticks, [f"{100 - tick:.10g}" for tick in ticks]


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Return three to ten round ticks on a logarithmic axis, and their labels."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), [step / 100 for step in range(100, 1000, 2)]):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: math.ceil(len(ticks) / 10)]
    return ticks, [f"{tick:.3g}" for tick in ticks]


def without_overlap(places: Sequence[float], sizes: Sequence[float]) -> list[int]:
    """Return which labels to show so that none touch: the first, and each that clears the one shown before.

    Args:
        places: The middle of each label along a line, in ascending order.
        sizes: The size of each label along the line.
    """
    shown = [0]
    for i in range(1, len(places)):
        if places[i] - places[shown[-1]] >= (sizes[i] + sizes[shown[-1]]) / 2:
            shown.append(i)
    return shown
