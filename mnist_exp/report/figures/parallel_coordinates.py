"""parallel_coordinates.png: each arm as a line through its choices."""

from collections.abc import Sequence
from typing import Any

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
EVENLY = 8  # numbers: the axis of a key of no more spaces them evenly
POINTS = 25  # of a curve from one axis to the next
ARMS = 1_000  # at most


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw each arm as a line through its choices to its mean, the best on top; None if fewer than three keys vary."""
    found, left_out = varying_keys(results)
    if len(found) < 3:
        return None
    keys = sorted(found, key=lambda key: key.effect)[-KEYS:]
    compared, failing = results.compared, results.failing
    arms = compared[:ARMS]
    measure = results.measure
    means = np.array([averages.mean([arm], measure) for arm in arms])
    ends = averages.limits(measure, means)
    worst, best = ends[:: measure.sign]
    heights = np.clip((means - worst) / (best - worst), 0, 1)
    note = ["Thick: the best arm.", f"The larger a key's effect, the closer it is to the {measure.title}."]
    note += averages.direction(measure) + beyond(arms, ends, measure) + left_out + selected(KEYS, len(found), "keys")
    if len(compared) > ARMS:
        note.append(f"Shown: the best {ARMS:,} of {len(compared):,} arms.")
    if failing:
        note.append(f"Left out: {count(len(failing), 'arm')} with failed runs.")
    xs = np.linspace(MARGIN + 0.7, WIDTH - MARGIN - 0.75, len(keys) + 1)
    room = min(1.5, float(xs[1] - xs[0]) - 0.12)
    headings = [*(break_after(".", key.name, room / BOLD) for key in keys), _heading(measure, room / BOLD)]
    top = head_height(note) + 0.1 + max(map(len, headings)) * HEADING
    title = f"{count(len(arms), 'arm')}, each a line through its choices"
    figure, page = start_page(title, note, top + HEIGHT + 0.2, theme)
    axes = add_axes(figure, 0, top, WIDTH, HEIGHT, theme)
    axes.set_axis_off()
    axes.set(xlim=(0, WIDTH), ylim=(0, 1))
    crossings = np.array([*(_crossings(key, arms, heights) for key in keys), heights]).T
    _draw_lines(axes, xs, crossings, means, Normalize(*ends, clip=True), theme.ramp_of(measure.sign))
    for x, heading in zip(xs, headings, strict=True):
        for i, line in enumerate(reversed(heading)):
            write(page, x, top - 0.1 - i * HEADING, line, theme.ink, weight="bold", ha="center", va="baseline")
        axes.vlines(x, 0, 1, color=theme.quiet, linewidth=0.8, zorder=3)
    for x, key in zip(xs[:-1], keys, strict=True):
        _label_values(axes, x, key, room, theme)
    _draw_scale(axes, float(xs[-1]), worst, best, theme)
    return figure


def _draw_lines(axes: Axes, xs: Floats, crossings: Floats, means: Floats, norm: Normalize, ramp: Colormap) -> None:
    """Draw a smooth line per arm, the best on top.

    Args:
        axes: Where to draw.
        xs: The places of the axes that the lines cross, (axes,).
        crossings: The height at which each arm crosses each axis, (arms, axes).
        means: The mean of each arm, (arms,).
        norm: Maps means to the range of the colours.
        ramp: The colours.
    """
    steps = np.linspace(0, 1, POINTS)
    bend = (1 - np.cos(np.pi * steps)) / 2
    along = (xs[:-1, None] + np.diff(xs)[:, None] * steps).ravel()
    paths = (crossings[:, :-1, None] + np.diff(crossings)[:, :, None] * bend).reshape(len(crossings), -1)
    others = len(paths) - 1
    lines = LineCollection(
        [np.column_stack([along, path]) for path in paths[::-1]],
        array=means[::-1],
        cmap=ramp,
        norm=norm,
        linewidths=[1.0] * others + [2.6],
        alpha=[max(0.35, min(0.9, 20 / len(paths)))] * others + [1.0],
    )
    axes.add_collection(lines)


def _label_values(axes: Axes, x: float, key: Key, room: float, theme: Theme) -> None:
    slots = _slots(key)
    box: dict[str, Any] = {"facecolor": theme.ground, "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    for i in axis.without_overlap([HEIGHT * slot for slot in slots], [0.17] * len(slots)):
        write(axes, x, slots[i], short_value(key.values[i], room), theme.ink, ha="center", bbox=box, zorder=4)


def _heading(measure: Measure, width: float) -> list[str]:
    """The lines above the scale, at most `width` inches wide."""
    return ["validation", *break_after(" ", measure.title, width), *(["(%)"] if measure.is_fraction else [])]


def _draw_scale(axes: Axes, x: float, worst: float, best: float, theme: Theme) -> None:
    """Draw the colours of the means, and their numbers."""
    levels = np.linspace(0, 1, 257)
    axes.pcolormesh([x, x + 0.09], levels, levels[:-1, None], cmap=theme.ramp, vmin=0, vmax=1, zorder=4)
    for tick, label in zip(*axis.round_ticks(min(worst, best), max(worst, best), 8), strict=True):
        write(axes, x + 0.15, (tick - worst) / (best - worst), label, theme.ink)


def _has_scale(key: Key) -> bool:
    """Whether the values stand where their numbers are, instead of evenly."""
    return key.numeric and len(key.values) > EVENLY


def _slots(key: Key) -> Sequence[float]:
    """The height of each value on its key's axis."""
    if _has_scale(key):
        return [0.05 + 0.9 * place for place in key.places]
    return [(i + 0.5) / len(key.values) for i in range(len(key.values))]


def _crossings(key: Key, arms: Sequence[Arm], heights: Floats) -> Floats:
    """Where the arms' lines cross a key's axis: around their value, the better the higher, if there is room."""
    slots = dict(zip(key.values, _slots(key), strict=True))
    spread = 0.0 if _has_scale(key) else 0.5 / len(key.values)
    return np.array([slots[arm.choices[key.name]] for arm in arms]) + spread * (heights - 0.5)
