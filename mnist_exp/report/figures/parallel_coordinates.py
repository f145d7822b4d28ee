"""parallel_coordinates.png and trials.png: each arm, or each trial of a search, as a line through its choices."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from mnist_exp.figure_page import MARGIN, WIDTH
from mnist_exp.report.figures import averages, axis
from mnist_exp.report.figures.axis import Floats
from mnist_exp.report.figures.keys import Key, beyond, selected, short_value, varying_keys
from mnist_exp.report.figures.page import (
    BOLD,
    LIGHT,
    Theme,
    add_axes,
    break_after,
    head_height,
    start_page,
    write,
)
from mnist_exp.report.formats import count
from mnist_exp.report.measures import Measure
from mnist_exp.report.results import Arm, Results

KEYS = 7  # axes at most
HEIGHT, HEADING = 4.0, 0.16  # inches: the axes; a line of a heading
TICKS = 8  # of a scale
EVENLY = 8  # numbers: the axis of a key of no more spaces them evenly
POINTS = 25  # of a curve from one axis to the next
ARMS = 1_000  # at most
WITHOUT = "none"  # where the lines of arms cross the axis of a key that they have not
ROOM = 1.05  # times the most misses of a trial, at the lower end of their scale
BELOW = 0.12  # of an axis, for these


class Scale(NamedTuple):
    """The vertical axis of results."""

    levels: Floats  # of each arm, the best first
    worst: float  # the level at the lower end
    best: float
    ticks: Sequence[float]  # levels
    labels: Sequence[str]

    @property
    def heights(self) -> Floats:
        """The height of each arm, from 0 to 1; what is worse than the scale is at its end."""
        return np.clip((self.levels - self.worst) / (self.best - self.worst), 0, 1)


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw each arm as a line through its choices to its mean, the best on top; None if fewer than three keys vary."""
    found, left_out = varying_keys(results)
    if len(found) < 3:
        return None
    keys = sorted(found, key=lambda key: key.effect)[-KEYS:]
    measure, arms = results.measure, results.compared[:ARMS]
    levels = np.array([averages.mean([arm], measure) for arm in arms])
    ends = averages.limits(measure, levels)
    worst, best = ends[:: measure.sign]
    scale = Scale(levels, worst, best, *axis.round_ticks(*ends, TICKS))
    note = [f"The larger a key's effect, the closer it is to the {measure.title}.", *averages.direction(measure)]
    note += beyond(arms, ends, measure) + left_out + selected(KEYS, len(found), "keys")
    return _draw(results, keys, scale, "arm", note, theme)


def draw_trials(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw each trial of a search as a line through its setting; None if fewer than two keys vary, or without one."""
    if not results.search or not results.has_finalists:
        return None
    keys, left_out = varying_keys(results.search, results.tuned)
    if len(keys) < 2:
        return None
    misses = axis.misses([arm.val.mean for arm in results.search.compared[:ARMS]])
    worst, best = misses.max() * ROOM, misses.min() / ROOM
    ticks, labels = axis.accuracy_ticks(best, worst)
    scale = Scale(-np.log(misses), -math.log(worst), -math.log(best), [-math.log(tick) for tick in ticks], labels)
    note = [f"Shown: the first {KEYS} of {len(keys)} keys."] if len(keys) > KEYS else []
    return _draw(results.search, keys[:KEYS], scale, "trial", left_out + note, theme)


def _draw(results: Results, keys: Sequence[Key], scale: Scale, noun: str, notes: Sequence[str], theme: Theme) -> Figure:
    compared, failing, measure, heights = results.compared, results.failing, results.measure, scale.heights
    arms = compared[:ARMS]
    note = [f"Thick: the best {noun}.", *notes]
    if len(compared) > ARMS:
        note.append(f"Shown: the best {ARMS:,} of {len(compared):,} {noun}s.")
    if failing:
        note.append(f"Left out: {count(len(failing), noun)} with failed runs.")
    xs = np.linspace(MARGIN + 0.7, WIDTH - MARGIN - 0.75, len(keys) + 1)
    room = min(1.5, float(xs[1] - xs[0]) - 0.12)
    headings = [*(break_after(".", key.name, room / BOLD) for key in keys), _heading(measure, room / BOLD)]
    top = head_height(note) + 0.1 + max(map(len, headings)) * HEADING
    title = f"{count(len(arms), noun)}, each a line through its choices"
    figure, page = start_page(title, note, top + HEIGHT + 0.2, theme)
    axes = add_axes(figure, 0, top, WIDTH, HEIGHT, theme)
    axes.set_axis_off()
    axes.set(xlim=(0, WIDTH), ylim=(0, 1))
    crossings = np.array([*(_crossings(key, arms, heights) for key in keys), heights]).T
    _draw_lines(axes, xs, crossings, scale, theme.ramp_of(1 if scale.best > scale.worst else -1))
    for x, heading in zip(xs, headings, strict=True):
        for i, line in enumerate(reversed(heading)):
            write(page, x, top - 0.1 - i * HEADING, line, theme.ink, weight="bold", ha="center", va="baseline")
        axes.vlines(x, 0, 1, color=theme.quiet, linewidth=0.8, zorder=3)
    for x, key in zip(xs[:-1], keys, strict=True):
        _label_values(axes, x, key, arms, room, theme)
    _draw_scale(axes, float(xs[-1]), scale, theme)
    return figure


def _draw_lines(axes: Axes, xs: Floats, crossings: Floats, scale: Scale, ramp: Colormap) -> None:
    """Draw a smooth line per arm, the best on top.

    Args:
        axes: Where to draw.
        xs: The places of the axes that the lines cross, (axes,).
        crossings: The height at which each arm crosses each axis, (arms, axes).
        scale: The level of each arm, (arms,), and the range of the colours.
        ramp: The colours.
    """
    steps = np.linspace(0, 1, POINTS)
    bend = (1 - np.cos(np.pi * steps)) / 2
    along = (xs[:-1, None] + np.diff(xs)[:, None] * steps).ravel()
    paths = (crossings[:, :-1, None] + np.diff(crossings)[:, :, None] * bend).reshape(len(crossings), -1)
    others = len(paths) - 1
    lines = LineCollection(
        [np.column_stack([along, path]) for path in paths[::-1]],
        array=scale.levels[::-1],
        cmap=ramp,
        norm=Normalize(min(scale.worst, scale.best), max(scale.worst, scale.best), clip=True),
        linewidths=[1.0] * others + [2.6],
        alpha=[max(0.35, min(0.9, 20 / len(paths)))] * others + [1.0],
    )
    axes.add_collection(lines)


def _label_values(axes: Axes, x: float, key: Key, arms: Sequence[Arm], room: float, theme: Theme) -> None:
    slots, values = _slots(key, arms), [short_value(value, room) for value in key.values]
    if _has_scale(key):
        slots, values = _round_values(key, slots)
    if None in map(key.value_of, arms):
        slots, values = [BELOW / 4, *slots], [WITHOUT, *values]
    box: dict[str, Any] = {"facecolor": theme.ground, "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    for i in axis.without_overlap([HEIGHT * slot for slot in slots], [0.17] * len(slots)):
        write(axes, x, slots[i], values[i], theme.ink, ha="center", bbox=box, zorder=4)


def _round_values(key: Key, slots: Sequence[float]) -> tuple[list[float], list[str]]:
    """Return the heights of round values on the axis of a key, and their labels."""
    low, high = (float(key.values[end]) for end in (0, -1))
    ticks, labels = axis.log_ticks(low, high) if key.log else axis.round_ticks(low, high, TICKS, high)
    along = np.log if key.log else np.asarray
    shares = (along(ticks) - along(low)) / (along(high) - along(low))
    return (slots[0] + (slots[-1] - slots[0]) * shares).tolist(), labels


def _heading(measure: Measure, width: float) -> list[str]:
    """The lines above the scale, at most `width` inches wide."""
    return ["validation", *break_after(" ", measure.title, width), *(["(%)"] if measure.is_fraction else [])]


def _draw_scale(axes: Axes, x: float, scale: Scale, theme: Theme) -> None:
    """Draw the colours of the levels, and their numbers."""
    levels = np.linspace(0, 1, 257)
    axes.pcolormesh([x, x + 0.09], levels, levels[:-1, None], cmap=theme.ramp, vmin=0, vmax=1, zorder=4)
    for tick, label in zip(scale.ticks, scale.labels, strict=True):
        write(axes, x + 0.15, (tick - scale.worst) / (scale.best - scale.worst), label, theme.ink)


def _has_scale(key: Key) -> bool:
    """Whether the values stand where their numbers are, instead of evenly."""
    return key.numeric and len(key.values) > EVENLY


def _slots(key: Key, arms: Sequence[Arm]) -> list[float]:
    """The height of each value on its key's axis, above that of arms that have not the key."""
    start = BELOW if None in map(key.value_of, arms) else 0.0
    if _has_scale(key):
        return [start + (1 - start) * (0.05 + 0.9 * place) for place in key.places]
    return [start + (1 - start) * (i + 0.5) / len(key.values) for i in range(len(key.values))]


def _crossings(key: Key, arms: Sequence[Arm], heights: Floats) -> Floats:
    """Where the arms' lines cross a key's axis: around their value, the better the higher, if there is room."""
    slots = dict(zip(key.values, _slots(key, arms), strict=True))
    spread = 0.0 if _has_scale(key) else 0.5 / len(key.values)
    values = map(key.value_of, arms)
    own = np.array([slots[value] if value is not None else np.nan for value in values])
    return np.where(np.isnan(own), BELOW / 2 * heights, own + spread * (heights - 0.5))
