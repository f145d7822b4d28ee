"""curves.png: the learning curves of the arms."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.figure_page import MARGIN, WIDTH
from mnist_exp.report.figures import averages, axis
from mnist_exp.report.figures.axis import Floats
from mnist_exp.report.figures.page import (
    AXIS,
    CROSS,
    GRAY,
    LEADING,
    LIGHT,
    Legend,
    Theme,
    add_axes,
    head_height,
    start_page,
)
from mnist_exp.report.formats import count
from mnist_exp.report.results import Arm, Results

HEIGHT, FOOT = 3.2, 0.65  # inches: the Axes, and the numbers and the name below them


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw validation accuracy and loss of each arm by epoch, the leading arms in colour; None without any curve."""
    with_curves = (each for each in enumerate(results.arms, 1) if averages.curve(each[1], "val_accuracy").size)
    arms = list(islice(with_curves, LEADING + GRAY))
    if not arms:
        return None
    leading, others = arms[:LEADING], len(arms[LEADING:])
    left_out = len(results.arms) - arms[-1][0] if others == GRAY else 0
    note = _note([arm for _, arm in leading], others, left_out, losses_differ="loss" in results.swept)
    legend = Legend([_name(rank, arm) for rank, arm in leading])
    top = head_height(note)
    title = f"Learning curves of {f'the {LEADING} leading arms' if others else count(len(leading), 'arm')}"
    figure, page = start_page(title, note, top + HEIGHT + FOOT + legend.height, theme)
    width = WIDTH / 2 - AXIS - 2 * MARGIN
    accuracy = add_axes(figure, MARGIN + AXIS, top, width, HEIGHT, theme)
    accuracy.set(xlabel="epoch", ylabel="validation accuracy (%)")
    _draw_curves(accuracy, [averages.curve(arm, "val_accuracy", 100) for _, arm in arms], theme, higher_is_better=True)
    loss = add_axes(figure, WIDTH / 2 + MARGIN + AXIS, top, width, HEIGHT, theme)
    loss.set(xlabel="epoch", ylabel="validation loss (mean over images)")
    _draw_curves(loss, [averages.curve(arm, "val_loss") for _, arm in arms], theme, higher_is_better=False)
    legend.draw(page, top + HEIGHT + FOOT, theme)
    return figure


def _name(rank: int, arm: Arm) -> str:
    return f"{CROSS}  {arm.label} ({arm.seeds})" if arm.failed else f"{rank}  {arm.label}"


def _note(leading: Sequence[Arm], others: int, left_out: int, losses_differ: bool) -> list[str]:
    note = ["One run per arm: no bands."]
    if any(arm.val.n > 1 for arm in leading):
        note = ["Lines: means over seeds.", "Bands: lowest to highest seed."]
    if others:
        which = f"the next {count(others, 'arm')}" if left_out else f"the other {count(others, 'arm')}"
        note.append(f"Gray: {which}; the axes fit the leading arms.")
    if left_out:
        note.append(f"Not shown: {count(left_out, 'arm')}.")
    if losses_differ:
        note.append("Losses of different loss functions are not comparable.")
    if any(arm.failed for arm in leading):
        note.append(f"{CROSS}: some runs failed; the line shows those that completed.")
    return note


def _draw_curves(axes: Axes, curves: Sequence[Floats], theme: Theme, higher_is_better: bool) -> None:
    """Draw the mean of each arm, and the bands of the leading ones. The axes fit the leading arms."""
    for epochs, _, mean, _ in curves[LEADING:]:
        axes.plot(epochs, mean, color=theme.faint, linewidth=0.6, zorder=1)
    ends: list[float] = []
    for i, (epochs, lowest, mean, highest) in enumerate(curves[:LEADING]):
        style = theme.lines[i]
        if len(epochs) == 1:
            style |= {"marker": "o", "markersize": 4}
        axes.plot(epochs, mean, linewidth=1.6, zorder=20 - i, **style)
        if (lowest < highest).any():
            band: dict[str, Any] = {"color": theme.colors[i], "linewidth": 0, "zorder": 2}
            axes.fill_between(epochs, lowest, highest, alpha=0.15 if len(curves) < 5 else 0.08, **band)
        late = epochs > epochs[-1:] / 10  # the first epochs of many would take most of the height
        ends += [*lowest[late], *highest[late]]
    low, high = axis.limits(ends, sign=1 if higher_is_better else -1)
    last = max(float(curve[0].max(initial=1)) for curve in curves)
    axes.set(xlim=(0.5, last + 0.5), ylim=(low, high))
    axes.set_yticks(*axis.round_ticks(low, high, 8, most=100 if higher_is_better else math.inf))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
