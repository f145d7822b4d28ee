"""evidence.png: how the evidence of a sequential sweep grew with its seeds."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.figure_page import LINE, MARGIN, WIDTH, text_width
from mnist_exp.report import sequential
from mnist_exp.report.figures.page import (
    AXIS,
    GRAY,
    LEADING,
    LIGHT,
    Theme,
    add_axes,
    fit,
    head_height,
    start_page,
    write,
)
from mnist_exp.report.formats import count
from mnist_exp.report.results import Results
from mnist_exp.report.verdicts import ALPHA

HEIGHT, FOOT = 3.2, 0.65  # inches: the Axes, and the numbers and the name below them
LABELS, GAP = 2.2, 0.35  # inches: the most width of the labels; between the lines and their labels
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw the e-value of the leader and each other arm by seeds; None for a sweep of fixed seeds."""
    course = sequential.course(results) if sequential.rule(results.sessions) else []
    if not course:
        return None
    course, left_out = course[: LEADING + GRAY], len(course[LEADING + GRAY :])
    leader, pairs = results.compared[0], len(results.compared) * (len(results.compared) - 1) // 2
    enough = pairs / ALPHA
    note = [f"Dashed: {enough:,.0f}, enough for a claim whatever the other pairs show"]
    note[0] += f" (1 / {ALPHA:.2g}, times {pairs} pairs)." if pairs > 1 else f" (1 / {ALPHA:.2g})."
    note = ["How many times better a difference explains the seeds than none does, on the same images.", *note]
    if len({points[-1][0] for _, points in course}) > 1:
        note.append("A line ends where its arm got no more seeds.")
    if others := len(course[LEADING:]):
        note.append(f"Gray: {count(others, 'other arm')}.")
    if left_out:
        note.append(f"Not shown: {count(left_out, 'arm')}.")
    labels = [fit(name, LABELS) for name, _ in course[:LEADING]]
    top, room = head_height(note), max(map(text_width, labels))
    title = f"Evidence that {leader.label} and another arm differ"
    figure, page = start_page(title, note, top + HEIGHT + FOOT, theme)
    width = WIDTH - AXIS - 2 * MARGIN - room - GAP
    axes = add_axes(figure, MARGIN + AXIS, top, width, HEIGHT, theme)
    logs = [log for _, points in course for _, log in points]
    low, high = min(-0.5, *logs) - 0.1, max(math.log10(enough), *logs) + 0.2
    last = max(n for _, points in course for n, _ in points)
    axes.set(xlabel="seeds", ylabel="e-value", xlim=(1.8, last + 0.2), ylim=(low, high))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    powers = range(math.ceil(low), math.floor(high) + 1, 1 + int(high - low) // 8)
    axes.set_yticks(powers, [_number(power) for power in powers])
    axes.axhline(math.log10(enough), color=theme.quiet, linewidth=1.2, linestyle=(0, (5, 3)))
    for _, points in course[LEADING:]:
        axes.plot(*zip(*points, strict=True), color=theme.faint, linewidth=0.8, zorder=1)
    for i, (_, points) in enumerate(course[:LEADING]):
        axes.plot(*zip(*points, strict=True), linewidth=1.6, zorder=20 - i, **theme.lines[i])
        axes.plot(*points[-1], "o", markersize=4.5, color=theme.colors[i], zorder=20 - i)
    ends = [points[-1] for _, points in course[:LEADING]]
    _label(axes, page, labels, ends, (MARGIN + AXIS, top, width), theme)
    return figure


def _label(
    axes: Axes,
    page: Axes,
    labels: Sequence[str],
    ends: Sequence[tuple[int, float]],
    place: tuple[float, float, float],
    theme: Theme,
) -> None:
    """Write a label for each line to the right of the Axes, joined to its end; `place`: left, top and width, inches."""
    left, top, width = place
    (first, last), (low, high) = axes.get_xlim(), axes.get_ylim()
    heights = [top + HEIGHT * (high - log) / (high - low) for _, log in ends]
    for i, y in enumerate(spread(heights, LINE, top, top + HEIGHT)):
        end = left + width * (ends[i][0] - first) / (last - first)
        page.plot([end, left + width + GAP - 0.08], [heights[i], y], color=theme.colors[i], linewidth=0.6, alpha=0.6)
        write(page, left + width + GAP - 0.02, y, labels[i], theme.ink)


def spread(places: Sequence[float], size: float, low: float, high: float) -> list[float]:
    """Return places near those given, in the same order, that are `size` apart, from `low` to `high` if that fits."""
    order = sorted(range(len(places)), key=places.__getitem__)
    found = list(places)
    reached = low - size
    for i in order:
        reached = found[i] = max(found[i], reached + size)
    reached = high + size
    for i in reversed(order):
        reached = found[i] = min(found[i], reached - size)
    return found


def _number(power: int) -> str:
    """Return a power of ten as a tick shows it: 0.1, 1, 1,000, 10⁶."""
    if -3 < power < 5:
        return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
    return f"10{str(power).translate(SUPERSCRIPTS)}"
