"""The limits, ticks and labels of axes."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

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
