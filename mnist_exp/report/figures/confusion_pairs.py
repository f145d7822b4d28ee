"""confusion_pairs.png: which classes the leading arm reads better than the next ones, and what it confuses less."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.figure_page import MARGIN, TEXT, WIDTH, text_width
from mnist_exp.report.confusions import ARROW, Differences, Row, differences
from mnist_exp.report.figures.page import BOLD, LIGHT, SMALL, Theme, add_axes, fit, head_height, start_page, write
from mnist_exp.report.results import Arm, Results

OTHERS = 3  # arms that are compared with the leader, at most
ROWS = 10  # classes, and confusions, of a comparison at most
ROW, BAR = 0.22, 0.6  # inches: from one row to the next; height of a bar, in rows
HEADING, HEADERS, FOOT = 0.3, 0.27, 0.58  # inches: above and below the rows
NAME, NUMBER, GAP = 1.35, 0.52, 0.3  # inches: the widths of a name at most, of a number, and between the two panels
PALE = 0.35  # opacity of a bar whose interval contains 0


class Compared(NamedTuple):
    """An arm and how the leader differs from it."""

    rank: int
    arm: Arm
    found: Differences


class Panel(NamedTuple):
    """One half of a comparison."""

    rows: Sequence[Row]
    heading: str
    decimals: int  # of the numbers
    axis: str  # what the bars show


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw the leader against the next arms; None if it is unknown what their runs predicted."""
    ranked = list(enumerate(results.compared[: OTHERS + 1], 1))
    pairs = [
        Compared(rank, arm, found)
        for rank, arm in ranked[1:]
        if (found := differences(results.compared[0], arm, ROWS)) and found.classes
    ]
    if not pairs:
        return None
    leader = results.compared[0]
    note = [*_about_confusions(pairs), "A bar has the colour of the arm that is better.", *_about_intervals(pairs)]
    if pairs[0].found.of > ROWS:
        note.append(f"Shown: the {ROWS} of {pairs[0].found.of:,} classes that differ most.")
    tops = [head_height(note)]
    for _, _, found in pairs:
        rows = max(len(found.classes), len(found.confusions))
        tops.append(tops[-1] + HEADING + HEADERS + rows * ROW + FOOT)
    title = "What the leading arm reads better, and what worse"
    figure, page = start_page(title, note, tops[-1], theme)
    for pair, top in zip(pairs, tops, strict=False):
        _write_heading(page, leader, pair, top, theme)
        colors = theme.colors[0], theme.colors[pair.rank - 1]
        width = (WIDTH - 2 * MARGIN - GAP) / 2
        panels = [
            Panel(pair.found.classes, "accuracy (%)", 2, "better by (pp)"),
            Panel(pair.found.confusions, "images per run", 1, "better by (images)"),
        ]
        for i, panel in enumerate(panels):
            left = MARGIN + i * (width + GAP)
            _draw_panel(figure, page, panel, left, top + HEADING + HEADERS, width, colors, theme)
    return figure


def _about_confusions(pairs: Sequence[Compared]) -> list[str]:
    note = ["Validation images, mean over the runs."]
    if confusions := [row.name for pair in pairs for row in pair.found.confusions]:
        note.append(f"{confusions[0]}: images of {' that are read as '.join(confusions[0].split(ARROW))}.")
    return note


def _about_intervals(pairs: Sequence[Compared]) -> list[str]:
    rows = [row for pair in pairs for row in (*pair.found.classes, *pair.found.confusions)]
    if not any(isfinite(row.low) for row in rows):
        return ["One run per arm: no intervals."]
    what = "new seeds and new images" if any(row.for_new_images for row in rows) else "new seeds, on these images"
    note = [f"Lines: 95 % intervals for {what}, each on its own.", "Pale: the interval contains 0, or there is none."]
    panels = [panel for pair in pairs for panel in (pair.found.classes, pair.found.confusions) if panel]
    if any(max(_ends(panel), default=0) > _limit(panel) for panel in panels):
        note.append("A line at the edge continues beyond it.")
    return note


def _ends(rows: Sequence[Row]) -> list[float]:
    """Both ends of each interval, without their signs."""
    return [abs(end) for row in rows for end in (row.low, row.high) if isfinite(end)]


def _limit(rows: Sequence[Row]) -> float:
    """The end of an axis: it shows every bar, and its interval as far as twice the longest bar."""
    most = max(abs(row.better) for row in rows)
    return 1.08 * max(most, min(2 * most, max(_ends(rows), default=0))) or 1


def _write_heading(page: Axes, leader: Arm, pair: Compared, top: float, theme: Theme) -> None:
    """Write the names of the two arms, each with its colour."""
    room = (WIDTH - 2 * MARGIN) / 2 / BOLD - 0.5
    x = MARGIN
    for rank, arm in ((1, leader), (pair.rank, pair.arm)):
        write(page, x, top + 0.1, "■", theme.colors[rank - 1], size=TEXT + 2)
        label = fit(f"{rank}  {arm.label}", room)
        write(page, x + 0.2, top + 0.1, label, theme.ink, weight="bold")
        x += 0.2 + text_width(label) * BOLD + 0.3


def _draw_panel(
    figure: Figure,
    page: Axes,
    panel: Panel,
    left: float,
    top: float,
    width: float,
    colors: tuple[str, str],
    theme: Theme,
) -> None:
    """Draw the rows of a panel: their names, both numbers, and the difference as a bar."""
    if not panel.rows:
        return
    names = [fit(row.name, NAME) for row in panel.rows]
    numbers = left + max(text_width(panel.heading, SMALL), *map(text_width, names)) + 0.05
    write(page, left, top - 0.13, panel.heading, theme.quiet, size=SMALL)
    for i, color in enumerate(colors):
        write(page, numbers + (i + 0.8) * NUMBER, top - 0.13, "■", color, ha="right")
    for i, (row, name) in enumerate(zip(panel.rows, names, strict=True)):
        y = top + (i + 0.5) * ROW
        write(page, left, y, name, theme.ink)
        for j, value in enumerate((row.first, row.second)):
            write(page, numbers + (j + 0.85) * NUMBER, y, f"{value:.{panel.decimals}f}", theme.ink, ha="right")
    start = numbers + 2 * NUMBER + 0.1
    axes = add_axes(figure, start, top, left + width - start, len(panel.rows) * ROW, theme)
    limit = _limit(panel.rows)
    axes.set(xlim=(-limit, limit), ylim=(len(panel.rows) - 0.5, -0.5), yticks=[], xlabel=panel.axis)
    ticks = [tick for tick in MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(-limit, limit) if abs(tick) < limit]
    axes.set_xticks(ticks, [f"{abs(tick):g}" for tick in ticks])
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=theme.quiet, linewidth=0.8)
    for i, row in enumerate(panel.rows):
        color = colors[0] if row.better > 0 else colors[1]
        axes.barh(i, row.better, BAR, color=color, alpha=1 if row.is_clear else PALE, linewidth=0)
        if isfinite(row.low):
            axes.hlines(i, row.low, row.high, color=theme.ink, linewidth=0.9, alpha=0.75)
