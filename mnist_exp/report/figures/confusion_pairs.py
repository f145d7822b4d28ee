"""confusion_pairs.png: which classes the leading arm reads better than the next ones, and what it confuses less."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.figure_page import MARGIN, TEXT, WIDTH, text_width
from mnist_exp.report.confusions import Differences, Row, differences
from mnist_exp.report.figures.page import BOLD, LIGHT, SMALL, Theme, add_axes, fit, head_height, start_page, write
from mnist_exp.report.results import WITH_PREDICTIONS, Arm, Results

OTHERS = WITH_PREDICTIONS - 1  # arms that are compared with the leader, at most
ROWS = 10  # classes, and confusions, of a comparison at most
ROW, BAR = 0.22, 0.6  # inches: from one row to the next; height of a bar, in rows
HEADING, HEADERS, FOOT = 0.3, 0.27, 0.58  # inches: above and below the rows
CLASSES, CONFUSIONS = 3.45, 3.95  # inches: the widths of the two panels, of which a name takes NAME at most
NAME, NUMBER = 0.43, 0.52  # a share of the panel; inches: the width of a number
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
    left: float  # inches
    width: float


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
        left, right = MARGIN, WIDTH - MARGIN - CONFUSIONS
        classes = Panel(pair.found.classes, "accuracy (%)", 2, "better by (pp)", left, CLASSES)
        confusions = Panel(pair.found.confusions, "images per run", 1, "better by (images)", right, CONFUSIONS)
        for panel in (classes, confusions):
            _draw_panel(figure, page, panel, top + HEADING + HEADERS, colors, theme)
    return figure


def _about_confusions(pairs: Sequence[Compared]) -> list[str]:
    note = ["Validation images, mean over the runs."]
    if confusions := [row for pair in pairs for row in pair.found.confusions]:
        true, read = (fit(each, 1.3) for each in confusions[0].classes)
        note.append(f"{true} → {read}: images of {true} that are read as {read}.")
    return note


def _about_intervals(pairs: Sequence[Compared]) -> list[str]:
    rows = [row for pair in pairs for row in (*pair.found.classes, *pair.found.confusions)]
    if not any(isfinite(row.low) for row in rows):
        return ["One run per arm: no intervals."]
    what = "new seeds and new images" if any(row.for_new_images for row in rows) else "new seeds, on these images"
    note = [f"Lines: 95 % intervals for {what}, each on its own.", "Pale: the interval contains 0, or there is none."]
    panels = [panel for pair in pairs for panel in (pair.found.classes, pair.found.confusions) if panel]
    if any(row.low < low or row.high > high for panel in panels for low, high in [_limits(panel)] for row in panel):
        note.append("A line at the edge continues beyond it.")
    return note


def _name(row: Row, width: float) -> str:
    """The class of a row, or the two that it is about, in at most `width` inches."""
    name = " → ".join(row.classes)
    if text_width(name) <= width:
        return name
    room = (width - text_width(" → ")) / 2 if len(row.classes) > 1 else width
    return " → ".join(fit(each, room) for each in row.classes)


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of an axis: it shows 0 and every bar, and the intervals as far as twice the longest bar."""
    most = 2 * max(abs(row.better) for row in rows) or 1
    ends = [end for row in rows for end in (0, row.better, row.low, row.high) if isfinite(end)]
    low, high = max(min(ends), -most), min(max(ends), most)
    pad = 0.06 * (high - low) or 1
    return low - pad, high + pad


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
    top: float,
    colors: tuple[str, str],
    theme: Theme,
) -> None:
    """Draw the rows of a panel: their names, both numbers, and the difference as a bar."""
    if not panel.rows:
        return
    left, width = panel.left, panel.width
    names = [_name(row, NAME * width) for row in panel.rows]
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
    low, high = _limits(panel.rows)
    axes.set(xlim=(low, high), ylim=(len(panel.rows) - 0.5, -0.5), yticks=[], xlabel=panel.axis)
    ticks = [tick for tick in MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high) if low < tick < high]
    axes.set_xticks(ticks, [f"{abs(tick):g}" for tick in ticks])
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=theme.quiet, linewidth=0.8)
    for i, row in enumerate(panel.rows):
        color = colors[0] if row.better > 0 else colors[1]
        axes.barh(i, row.better, BAR, color=color, alpha=1 if row.is_clear else PALE, linewidth=0)
        if isfinite(row.low):
            axes.hlines(i, row.low, row.high, color=theme.ink, linewidth=0.9, alpha=0.75)
