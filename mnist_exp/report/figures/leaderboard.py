"""leaderboard.png: a forest plot of the arms."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_exp.figure_page import MARGIN, TEXT, WIDTH, text_width
from mnist_exp.report.figures import averages, axis
from mnist_exp.report.figures.axis import Floats
from mnist_exp.report.figures.page import (
    CROSS,
    LIGHT,
    SMALL,
    TINY,
    Theme,
    add_axes,
    break_after,
    fit,
    head_height,
    start_page,
    write,
)
from mnist_exp.report.formats import count
from mnist_exp.report.results import Arm, Results

ARMS = 30  # at most
ROW, LINE = 0.25, 0.11  # inches: from one arm to the next; from one line of a label to the next
LABEL = 4.4  # inches: the width of a label at most


def draw(results: Results, theme: Theme = LIGHT) -> Figure:
    """Draw the best arms, one row each: label, runs, mean and interval in validation, and test mean."""
    ranked = [*results.compared, *results.failing]
    arms = ranked[:ARMS]
    measure = results.measure
    means, tests = (
        [measure.scale * each.mean for each in part] for part in zip(*((a.val, a.test) for a in arms), strict=True)
    )
    runs, intervals = _runs(arms, measure.scale), _intervals(arms, measure.scale)
    low, high = averages.limits(measure, [*means, *tests, *runs[:, 0]], intervals[:, :2].ravel())
    labels, size = _labels(arms)
    note = averages.direction(measure) + _note(arms, labels, intervals, low, high)
    legend = head_height(note) + 0.05
    top = legend + 0.25
    title = f"The best {ARMS} of {len(ranked)} arms" if len(ranked) > ARMS else count(len(arms), "arm")
    figure, page = start_page(f"{title} by mean validation {measure.title}", note, top + len(arms) * ROW + 0.55, theme)
    left = MARGIN + 0.47 + max(text_width(line, size) for lines in labels for line in lines)
    width = WIDTH - MARGIN - 0.55 - left
    axes = add_axes(figure, left, top, width, len(arms) * ROW, theme)
    axes.set(xlim=(low, high), ylim=(len(arms) - 0.5, -0.5), yticks=[], xlabel=averages.label(measure))
    axes.set_xticks(*axis.round_ticks(low, high, width / 0.7))
    axes.spines["left"].set_visible(False)
    _draw_marks(axes, means, tests, runs, intervals, theme)
    handles, names = axes.get_legend_handles_labels()
    style: dict[str, Any] = {"ncols": 3, "frameon": False, "fontsize": SMALL, "labelcolor": theme.ink}
    style |= {"handlelength": 1, "borderpad": 0, "borderaxespad": 0, "bbox_transform": page.transData}
    figure.legend(handles, names, loc="center left", bbox_to_anchor=(MARGIN, legend), **style)
    write(
        page, WIDTH - MARGIN, legend, "mean (%)" if measure.is_fraction else "mean", theme.quiet, size=SMALL, ha="right"
    )
    for row, (arm, lines, mean) in enumerate(zip(arms, labels, means, strict=True)):
        y = top + (row + 0.5) * ROW
        write(page, MARGIN + 0.17, y, CROSS if arm.failed else str(row + 1), theme.quiet, size=SMALL, ha="right")
        for i, line in enumerate(lines):
            write(page, MARGIN + 0.3, y + (i - (len(lines) - 1) / 2) * LINE, line, theme.ink, size=size)
        if math.isfinite(mean):
            write(page, WIDTH - MARGIN, y, f"{mean:.{measure.decimals}f}", theme.ink, ha="right")
        if averages.is_beyond(mean, (low, high), measure):
            edge, text, side = (
                (low, f" ◂ {mean:.2f}", "left")
                if measure.sign > 0
                else (high, f"{mean:.{measure.decimals}f} ▸ ", "right")
            )
            write(axes, edge, row, text, theme.colors[0], size=SMALL, ha=side)
    return figure


def _draw_marks(
    axes: Axes, means: Sequence[float], tests: Sequence[float], runs: Floats, intervals: Floats, theme: Theme
) -> None:
    """Draw each arm's runs, mean and interval, and test mean below each other, so that none hides another."""
    blue, vermilion = theme.colors[:2]
    rows = np.arange(len(means))
    disc: dict[str, Any] = {"marker": "o", "linestyle": "none", "markeredgewidth": 0, "color": blue}
    diamond: dict[str, Any] = {"marker": "D", "linestyle": "none", "fillstyle": "none", "color": vermilion}
    axes.hlines(rows[1:] - 0.5, *axes.get_xlim(), color=theme.grid, linewidth=0.6)
    axes.hlines(intervals[:, 2], intervals[:, 0], intervals[:, 1], color=blue, linewidth=1.8)
    axes.plot(means, rows, label="validation, mean", markersize=6.5, **disc)
    if runs.size:
        axes.plot(runs[:, 0], runs[:, 1] - 0.26, label="validation, single runs", markersize=3, alpha=0.6, **disc)
    axes.plot(tests, rows + 0.27, label="test, mean", markersize=4.4, **diamond)


def _runs(arms: Sequence[Arm], scale: int) -> Floats:
    """The value and the row of each run, for arms of several runs: (runs, 2)."""
    pairs = [(scale * run.val, row) for row, arm in enumerate(arms) if arm.val.n > 1 for run in arm.runs]
    return np.array(pairs).reshape(-1, 2)


def _intervals(arms: Sequence[Arm], scale: int) -> Floats:
    """Both ends and the row of each interval: (intervals, 3)."""
    found = [
        (scale * arm.val.low, scale * arm.val.high, row) for row, arm in enumerate(arms) if math.isfinite(arm.val.low)
    ]
    return np.array(found).reshape(-1, 3)


def _labels(arms: Sequence[Arm]) -> tuple[list[list[str]], float]:
    """The labels in one line each, or in two where one has no room, and their size in points."""
    longest = max(text_width(arm.label + _seeds(arm)) for arm in arms)
    size = max(TINY, TEXT * min(1, LABEL / longest))
    return [_lines(arm, LABEL * TEXT / size) for arm in arms], size


def _lines(arm: Arm, width: float) -> list[str]:
    """The label, and how many seeds the arm has if it lacks some."""
    if text_width(arm.label + _seeds(arm)) <= width:
        return [arm.label + _seeds(arm)]
    first, *others = break_after(" ", arm.label, width)
    rest = fit("".join(others), width - text_width(_seeds(arm))) + _seeds(arm)
    return [first, rest] if rest else [first]


def _seeds(arm: Arm) -> str:
    return f" ({arm.seeds})" if len(arm.runs) < arm.planned else ""


def _note(arms: Sequence[Arm], labels: Sequence[list[str]], intervals: Floats, low: float, high: float) -> list[str]:
    note = ["Ranked by validation alone; the test set does not count."]
    if intervals.size:
        note.append("Bars: 95 % intervals of the mean over seeds.")
    note += _about_missing_intervals(arms)
    if any(arm.failed for arm in arms):
        note.append(f"{CROSS}: some runs failed, so the arm is not compared.")
    if (intervals[:, 0] < low).any() or (intervals[:, 1] > high).any():
        note.append("A bar at the edge continues beyond it.")
    if any(arm.label not in "".join(lines) for arm, lines in zip(arms, labels, strict=True)):
        note.append("…: the report's table has the full label.")
    return note


def _about_missing_intervals(arms: Sequence[Arm]) -> list[str]:
    """Why some or all arms have no interval."""
    missing = [arm.val for arm in arms if arm.runs and math.isnan(arm.val.low)]
    reasons = []
    if any(val.n == 1 for val in missing):
        reasons.append("one run")
    if any(val.sd == 0 for val in missing):
        reasons.append("equal runs")
    if any(val.sd > 0 for val in missing):
        reasons.append("two runs whose interval is too wide")
    if not reasons:
        return []
    what = "No bar" if len(missing) < len(arms) else "No intervals"
    return [f"{what}: {' or '.join(reasons)}."]
