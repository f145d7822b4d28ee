"""search.png: how a search went, and what it found for each key."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_exp.figure_page import MARGIN, WIDTH
from mnist_exp.report import search
from mnist_exp.report.figures import axis
from mnist_exp.report.figures.keys import as_numbers
from mnist_exp.report.figures.page import AXIS, LEADING, LIGHT, Legend, Theme, add_axes, fit, head_height, start_page
from mnist_exp.report.formats import count
from mnist_exp.report.results import Results
from mnist_exp.report.search import Search

HEIGHT, FOOT, COLUMNS = 2.3, 0.65, 3  # inches: an Axes, the numbers and the name below it; Axes in a row
MAX_WORDS = 8  # values of a list that have a place of their own
MAX_TICKS = 3  # of a logarithmic axis


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw the best result so far, and each key's value against the result; None without a search of settings."""
    searches = search.searches(results) if results.has_finalists else []
    found = [each for each in searches if each.completed][:LEADING]
    if not found:
        return None
    keys = list(dict.fromkeys(key for each in found for key in each.keys))
    rows = 1 + math.ceil(len(keys) / COLUMNS)
    note = ["Dots: trials, by their number and by the value of each key.", "Line: the best trial so far."]
    if failed := sum(len(each.trials) - len(each.completed) for each in found):
        note.append(f"Left out: {count(failed, 'trial')} that failed, were pruned or did not finish.")
    if len(searches) > len(found):
        note.append(f"Not shown: {count(len(searches) - len(found), 'arm')}.")
    legend, top = Legend([each.label for each in found]), head_height(note)
    height = top + rows * (HEIGHT + FOOT) + (legend.height if len(found) > 1 else 0)
    title = f"Search: {count(sum(len(each.trials) for each in found), 'trial')} of {count(len(keys), 'key')}"
    figure, page = start_page(title, note, height, theme)
    ends = _ends(found)
    axes = add_axes(figure, MARGIN + AXIS, top, WIDTH - AXIS - 2 * MARGIN, HEIGHT, theme)
    for each, style in zip(found, theme.lines, strict=False):
        numbers = np.arange(1.0, len(each.trials) + 1)
        axes.step(numbers, axis.misses(each.best_so_far), where="post", linewidth=1.6, **style)
        _draw_dots(axes, numbers, axis.misses([trial.reached for trial in each.trials]), style["color"])
    axes.set(xlabel="trial", ylabel="validation (%)")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axis.show_accuracies(axes, ends)
    width = (WIDTH - 2 * MARGIN) / COLUMNS
    for place, key in enumerate(keys):
        row, column = divmod(place, COLUMNS)
        left, above = MARGIN + column * width + AXIS, top + (row + 1) * (HEIGHT + FOOT)
        axes = add_axes(figure, left, above, width - AXIS - 0.15, HEIGHT, theme)
        _draw_key(axes, key, found, theme)
        axes.set(xlabel=fit(key, width - AXIS), ylabel="" if column else "validation (%)")
        axis.show_accuracies(axes, ends)
    if len(found) > 1:
        legend.draw(page, top + rows * (HEIGHT + FOOT), theme)
    return figure


def _ends(found: list[Search]) -> tuple[float, float]:
    """Return the fewest and the most misses to show, in percent."""
    misses = axis.misses([trial.reached for each in found for trial in each.completed])
    room = max((misses.max() / misses.min()) ** 0.06, 1.02)
    return misses.min() / room, misses.max() * room


def _draw_key(axes: Axes, key: str, found: list[Search], theme: Theme) -> None:
    """Draw every trial at its value of a key; what is no number has a place in the order of its words."""
    texts = sorted({trial.setting[key] for each in found for trial in each.completed if key in trial.setting})
    numbers = as_numbers(texts)
    places = dict(zip(texts, numbers or map(float, range(len(texts))), strict=True))
    for each, style in zip(found, theme.lines, strict=False):
        trials = [trial for trial in each.completed if key in trial.setting]
        points = axis.misses([trial.reached for trial in trials])
        _draw_dots(axes, np.array([places[trial.setting[key]] for trial in trials]), points, style["color"])
    if not numbers:
        axes.set_xticks(range(len(texts))[:MAX_WORDS], [fit(text, 0.8) for text in texts][:MAX_WORDS])
        axes.set_xlim(-0.5, len(texts) - 0.5)
    elif any(key in each.log_keys for each in found):
        axes.set_xscale("log")
        ticks, labels = axis.log_ticks(*axes.get_xlim())
        every = math.ceil(len(ticks) / MAX_TICKS)
        axes.set_xticks(ticks[::every], labels[::every])
    elif all(number.is_integer() for number in numbers):
        axes.xaxis.set_major_locator(MaxNLocator(MAX_TICKS, integer=True))


def _draw_dots(axes: Axes, xs: axis.Floats, ys: axis.Floats, color: str) -> None:
    axes.plot(xs, ys, "o", markersize=3.5, alpha=0.6, color=color)
