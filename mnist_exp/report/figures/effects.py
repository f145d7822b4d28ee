"""effects.png: what each swept key does."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_exp.figure_page import MARGIN, TEXT, WIDTH, text_width
from mnist_exp.report.figures import averages, axis
from mnist_exp.report.figures.keys import Key, beyond, failed, selected, unbalanced, varying_keys
from mnist_exp.report.figures.page import (
    AXIS,
    BOLD,
    LIGHT,
    SMALL,
    TINY,
    Theme,
    add_axes,
    fit,
    head_height,
    start_page,
    write,
)
from mnist_exp.report.results import Results

PANELS = 12  # at most, one per key
HEIGHT, GAP = 2.1, 0.25  # inches: the Axes of a panel; between two panels
HEADING, FOOT = 0.47, 0.6  # inches: above the Axes of a panel; between its labels and the next row

Interval = tuple[float, float] | None


class TickLabels(NamedTuple):
    """How the values of a key fit below an axis."""

    shown: list[int]  # which values have a label
    slope: int  # degrees
    size: float  # points
    height: float  # inches


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw a panel per key: the mean of the arms with each value, and those arms as dots; None if no key varies."""
    found, left_out = varying_keys(results)
    keys = sorted(found, key=lambda key: -key.effect)[:PANELS]
    if not keys:
        return None
    measure = results.measure
    intervals = [[averages.interval(arms, measure) for arms in key.arms] for key in keys]
    ends = [end for row in intervals for interval in row if interval for end in interval]
    low, high = _limits(results, keys, ends)
    grouped = any(len(arms) > 1 for key in keys for arms in key.arms)
    note = ["Large: the mean of the arms with that value.", "Small: those arms."] if grouped else []
    note += _about_intervals(keys, ends, low, high)
    note += averages.direction(measure) + unbalanced(results.compared, found)
    note += beyond(results.compared, (low, high), measure) + left_out + failed(keys)
    note += selected(PANELS, len(found), "keys")
    columns = min(3, len(keys))
    width = (WIDTH - 2 * MARGIN - AXIS - (columns - 1) * GAP) / columns
    inset = min(0.45, width / 6)  # inches from an end of the axis to the first value
    labels = [tick_labels(key, width - 2 * inset) for key in keys]
    label_heights = [max(label.height for label in labels[i : i + columns]) for i in range(0, len(keys), columns)]
    tops = np.cumsum([head_height(note) + HEADING, *(HEIGHT + height + FOOT for height in label_heights)])
    title = "What each key does, averaged over the others" if len(found) > 1 else f"What {keys[0].name} does"
    figure, page = start_page(title, note, tops[-1] - 0.42, theme)
    for i, key in enumerate(keys):
        top, left = tops[i // columns], MARGIN + AXIS + i % columns * (width + GAP)
        _write_heading(page, key, left, top, width, theme)
        axes = add_axes(figure, left, top, width, HEIGHT, theme)
        unit = 1 / (width - 2 * inset)  # an inch, in units of the axis
        axes.set(xlim=(-inset * unit, 1 + inset * unit), ylim=(low, high))
        axes.grid(visible=False, axis="x")
        axes.set_yticks(*axis.round_ticks(low, high, 6))
        if i % columns:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(f"validation {averages.label(measure)}")
        _label_ticks(axes, key, labels[i])
        if grouped:
            _draw_arms(axes, key, 0.09 * unit, theme)
        _draw_means(axes, key, intervals[i], theme)
    return figure


def tick_labels(key: Key, width: float) -> TickLabels:
    """Fit the labels of a key's values below an axis of `width` inches: level if possible, and sloping if not."""
    places, everything = [place * width for place in key.places], list(range(len(key.values)))
    widths = list(map(text_width, key.ticks))
    for size in (TEXT, SMALL, TINY):
        if axis.without_overlap(places, [label * size / TEXT + 0.07 for label in widths]) == everything:
            return TickLabels(everything, 0, size, 0.25)
    if key.numeric:
        shown = axis.without_overlap(places, [0.17] * len(places))
        return TickLabels(shown, 50, TEXT, 0.2 + 0.77 * max(widths))
    shrink = min(1, 60 * width / len(places) / TEXT)
    return TickLabels(everything, 50, TEXT * shrink, 0.2 + 0.77 * max(widths) * shrink)


def _limits(results: Results, keys: Sequence[Key], ends: Sequence[float]) -> tuple[float, float]:
    """The ends of the common axis. They show the mean of each value, but not each arm."""
    measure = results.measure
    low, high = averages.limits(measure, [averages.mean([arm], measure) for arm in results.compared], ends)
    means = [mean for key in keys for mean in key.means if math.isfinite(mean)]
    if not any(averages.is_beyond(mean, (low, high), measure) for mean in means):
        return low, high
    low, high = min(low, *means), max(high, *means)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _about_intervals(keys: Sequence[Key], ends: Sequence[float], low: float, high: float) -> list[str]:
    if not ends:
        return []
    note = ["Bars: 95 % intervals of the mean over seeds."]
    if any(end < low or end > high for end in ends):
        note.append("A bar at the edge continues beyond it.")
    if len(ends) < 2 * sum(len(key.values) for key in keys):
        note.append("No bar: one seed, different seeds, or two whose interval is too wide.")
    return note


def _write_heading(page: Axes, key: Key, left: float, top: float, width: float, theme: Theme) -> None:
    size = max(TINY, min(TEXT, TEXT * width / BOLD / text_width(key.name)))
    name = fit(key.name, width / BOLD * TEXT / size)
    write(page, left, top - 0.33, name, theme.ink, size=size, weight="bold")
    effect = f"{key.measure.show(key.effect / key.measure.scale)}{key.measure.difference_unit} from worst to best"
    if key.log:
        effect += ", log scale"
    write(page, left, top - 0.15, effect, theme.quiet, size=SMALL)


def _label_ticks(axes: Axes, key: Key, labels: TickLabels) -> None:
    sloping: dict[str, Any] = {"rotation": labels.slope, "rotation_mode": "anchor", "ha": "right"}
    places, texts = [key.places[i] for i in labels.shown], [key.ticks[i] for i in labels.shown]
    axes.set_xticks(places, texts, size=labels.size, parse_math=False, **(sloping if labels.slope else {}))


def _draw_arms(axes: Axes, key: Key, offset: float, theme: Theme) -> None:
    """Draw the arms with each value as dots to the left of their mean."""
    xs = [place - offset for place, arms in zip(key.places, key.arms, strict=True) for _ in arms]
    ys = [averages.mean([arm], key.measure) for arms in key.arms for arm in arms]
    axes.plot(xs, ys, "o", color=theme.quiet, alpha=0.4, markersize=3, markeredgewidth=0)


def _draw_means(axes: Axes, key: Key, intervals: Sequence[Interval], theme: Theme) -> None:
    """Draw the mean of each value with its interval; a line joins the means of numbers."""
    blue, line = theme.colors[0], "-" if key.numeric else "none"
    axes.plot(key.places, key.means, "o", linestyle=line, color=blue, markersize=6, markeredgewidth=0)
    for place, interval in zip(key.places, intervals, strict=True):
        if interval:
            axes.vlines(place, *interval, color=blue, linewidth=1.8)
