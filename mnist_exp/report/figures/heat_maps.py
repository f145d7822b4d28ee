"""heat_maps.png: what pairs of swept keys do together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mnist_exp.figure_page import MARGIN, TEXT, WIDTH, text_width
from mnist_exp.report.figures import averages, axis
from mnist_exp.report.figures.axis import Floats
from mnist_exp.report.figures.keys import MAX_NAMES, Key, failed, selected, short_value, unbalanced, varying_keys
from mnist_exp.report.figures.page import (
    BOLD,
    CROSS,
    DARK,
    LIGHT,
    SMALL,
    Theme,
    add_axes,
    fit,
    head_height,
    start_page,
    write,
)
from mnist_exp.report.results import Arm, Results

MAPS = 12  # at most
CELL = 0.34  # inches: the height of a cell
NARROW, WIDE = 0.56, 0.9  # inches: the width of a cell


class Colors(NamedTuple):
    """How a mean becomes a colour; the best is farthest from the ground."""

    norm: Normalize
    cmap: Colormap


class HeatMap(NamedTuple):
    """A heat map, and its measures in inches."""

    down: Key
    across: Key
    means: Floats  # fractions in percent, nan where there is none; (down, across)
    failing: NDArray[np.bool_]  # where arms have failed runs; (down, across)
    title: str
    names: float  # width of the rows' names
    cell: float  # width of a cell
    upright: bool  # whether the columns' names are rotated
    heading: float  # height of everything above the cells

    @property
    def width(self) -> float:
        """The whole width."""
        return max(self.names + len(self.across.values) * self.cell, BOLD * text_width(self.title))

    @property
    def height(self) -> float:
        """The whole height."""
        return self.heading + len(self.down.values) * CELL


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw a heat map for each pair of keys, with the mean of the arms that have both values; None without a pair."""
    keys = [key for key in varying_keys(results)[0] if len(key.values) <= MAX_NAMES]
    found = [_heat_map(*sorted(pair, key=lambda key: len(key.values))) for pair in combinations(keys, 2)]
    maps = sorted(found, key=lambda heat_map: np.nanmin(heat_map.means) - np.nanmax(heat_map.means))[:MAPS]
    if not maps:
        return None
    measure = results.measure
    low, high = averages.limits(measure, [mean for heat_map in maps for mean in heat_map.means.flat])
    note = ["Each cell: the mean of the arms with both values."]
    if len(found) > 1:
        note.append("The pair with the widest range first.")
    note += averages.direction(measure) + unbalanced(results.compared, keys) + failed(keys)
    if any((np.isnan(heat_map.means) & ~heat_map.failing).any() for heat_map in maps):
        note.append("Blank: nothing completed.")
    worst, end = ("below", "lowest") if measure.sign > 0 else ("above", "highest")
    if any(averages.is_beyond(mean, (low, high), measure) for heat_map in maps for mean in heat_map.means.flat):
        note.append(f"Cells {worst} the scale take its {end} colour.")
    note += selected(MAPS, len(found), "pairs")
    places, bottom = _flow(maps, head_height(note))
    title = f"What the keys do together: validation {averages.label(measure)}"
    figure, page = start_page(title, note, bottom + 0.55, theme)
    colors = Colors(Normalize(low, high, clip=True), theme.ramp_of(measure.sign))
    for heat_map, (x, y) in zip(maps, places, strict=True):
        _draw_heat_map(figure, page, heat_map, x, y, colors, theme)
    bar = add_axes(figure, MARGIN + 0.15, bottom, 3, 0.12, theme)
    bar.pcolormesh(np.linspace(low, high, 257), [0, 1], np.linspace(low, high, 256)[None], **colors._asdict())
    bar.set(xlim=(low, high), yticks=[], xlabel=f"mean validation {averages.label(measure)}")
    bar.spines[:].set_visible(False)
    bar.set_xticks(*axis.round_ticks(low, high, 5))
    return figure


def _heat_map(down: Key, across: Key) -> HeatMap:
    def cells(rows: Sequence[list[Arm]]) -> list[list[list[Arm]]]:
        return [[[arm for arm in row if across.value_of(arm) == value] for value in across.values] for row in rows]

    means = np.array([[averages.mean(cell, down.measure) for cell in row] for row in cells(down.arms)])
    failing = np.array([[bool(cell) for cell in row] for row in cells(down.failing)])
    names, longest = (max(text_width(short_value(value)) for value in key.values) for key in (down, across))
    room = WIDTH - 2 * MARGIN
    cell = min(max(NARROW, min(longest + 0.14, WIDE)), (room - names - 0.1) / len(across.values))
    upright = longest + 0.06 > cell
    heading = 0.34 + (longest if upright else 0.12)
    title = fit(f"{down.name} ↓  {across.name} →", room / BOLD)
    return HeatMap(down, across, means, failing, title, names + 0.1, cell, upright, heading)


def _flow(maps: Sequence[HeatMap], top: float) -> tuple[list[tuple[float, float]], float]:
    """The top left corner of each heat map, placed in lines as words are, and where the last line ends."""
    places: list[tuple[float, float]] = []
    x, y, bottom = MARGIN, top, 0.0
    for heat_map in maps:
        if x > MARGIN and x + heat_map.width > WIDTH - MARGIN:
            x, y = MARGIN, bottom
        places.append((x, y))
        x, bottom = x + heat_map.width + 0.35, max(bottom, y + heat_map.height + 0.25)
    return places, bottom


def _draw_heat_map(
    figure: Figure, page: Axes, heat_map: HeatMap, x: float, y: float, colors: Colors, theme: Theme
) -> None:
    """Draw a heat map with its title and names, its top left corner at (x, y)."""
    rows, columns = heat_map.means.shape
    left, top = x + heat_map.names, y + heat_map.heading
    write(page, x, y + 0.1, heat_map.title, theme.ink, weight="bold")
    axes = add_axes(figure, left, top, columns * heat_map.cell, rows * CELL, theme)
    axes.set_axis_off()
    edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    means = np.ma.masked_invalid(heat_map.means)
    axes.pcolormesh(*edges, means, **colors._asdict(), edgecolors=theme.ground, linewidth=1.5)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    decimals = heat_map.down.measure.decimals
    size = min(TEXT, 0.88 * heat_map.cell * TEXT / text_width(f"88.{'8' * decimals}" if decimals < 3 else "0.8888"))
    for (i, j), mean in np.ndenumerate(heat_map.means):
        spot, color = (j, i), theme.colors[1]
        if math.isfinite(mean):
            spot, color = (j + 0.36, i - 0.26), readable_on(colors.cmap(colors.norm(mean)))
            write(axes, j, i, f"{mean:.{decimals}f}", color, size=size, ha="center")
        if heat_map.failing[i, j]:
            write(axes, *spot, CROSS, color, size=SMALL, ha="center")
    for i, value in enumerate(heat_map.down.values):
        write(page, left - 0.08, top + (i + 0.5) * CELL, short_value(value), theme.ink, ha="right")
    style: dict[str, Any] = {"va": "baseline"}
    if heat_map.upright:
        style = {"va": "bottom", "rotation": 90}
    for j, value in enumerate(heat_map.across.values):
        spot = left + (j + 0.5) * heat_map.cell, top - 0.06
        write(page, *spot, short_value(value), theme.ink, ha="center", size=min(TEXT, 65 * heat_map.cell), **style)


def readable_on(color: tuple[float, float, float, float]) -> str:
    """Return the ink with the higher contrast on a colour, by its relative luminance (WCAG 2)."""
    linear = [((channel + 0.055) / 1.055) ** 2.4 for channel in color[:3]]
    return DARK.ground if np.dot(linear, [0.2126, 0.7152, 0.0722]) > 0.19 else LIGHT.ground
