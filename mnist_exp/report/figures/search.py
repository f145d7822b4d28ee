"""search.png: how a search went, and what it found for each key."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_exp.figure_page import MARGIN, WIDTH
from mnist_exp.report import space_search
from mnist_exp.report.figures.learning_rates import rate_ticks
from mnist_exp.report.figures.page import AXIS, LEADING, LIGHT, Legend, Theme, add_axes, fit, head_height, start_page
from mnist_exp.report.formats import count
from mnist_exp.report.results import Results
from mnist_exp.report.space_search import Search

HEIGHT, FOOT, COLUMNS = 2.3, 0.65, 3  # inches: an Axes, the numbers and the name below it; Axes in a row
MAX_WORDS = 8  # values of a list that have a place of their own
MAX_TICKS = 4  # of a logarithmic axis
WORST = 0.25  # quantile of the trials at the lower end of the scale: the bad ones would hide the good ones


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw the best result so far, and each key's value against the result; None without a search."""
    found = [each for each in space_search.searches(results) if each.completed][:LEADING]
    if not found:
        return None
    keys = list(dict.fromkeys(key for each in found for key in each.keys))
    rows = 1 + math.ceil(len(keys) / COLUMNS)
    note = [
        "Top: the best trial so far.",
        "Below: every trial, by the value of each key.",
        "The worst quarter may be cut off.",
    ]
    names = [each.label for each in found] if len(found) > 1 else []
    legend, top = Legend(names) if names else None, head_height(note)
    height = top + rows * (HEIGHT + FOOT) + (legend.height if legend else 0)
    title = f"Search: {count(sum(len(each.trials) for each in found), 'trial')} of {count(len(keys), 'key')}"
    figure, page = start_page(title, note, height, theme)
    limits = _limits(found)
    axes = add_axes(figure, MARGIN + AXIS, top, WIDTH - AXIS - 2 * MARGIN, HEIGHT, theme)
    for each, style in zip(found, theme.lines, strict=False):
        axes.step(
            range(1, len(each.trials) + 1), 100 * np.array(each.best_so_far), where="post", linewidth=1.6, **style
        )
    axes.set(xlabel="trial", ylabel="best validation (%)", ylim=limits)
    width = (WIDTH - 2 * MARGIN) / COLUMNS
    for place, key in enumerate(keys):
        row, column = divmod(place, COLUMNS)
        left, above = MARGIN + column * width + AXIS, top + (row + 1) * (HEIGHT + FOOT)
        axes = add_axes(figure, left, above, width - AXIS - 0.15, HEIGHT, theme)
        _draw_key(axes, key, found, theme)
        axes.set(xlabel=fit(key, width - AXIS), ylim=limits)
        if not column:
            axes.set_ylabel("validation (%)")
    if legend:
        legend.draw(page, top + rows * (HEIGHT + FOOT), theme)
    return figure


def _limits(found: list[Search]) -> tuple[float, float]:
    """Return the ends of the scale, in percent."""
    values = 100 * np.array([trial.reached for each in found for trial in each.completed])
    low, high = float(np.quantile(values, WORST)), float(values.max())
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def _draw_key(axes: Axes, key: str, found: list[Search], theme: Theme) -> None:
    """Draw every trial at its value of a key; what is no number has a place in the order of its words."""
    texts = sorted({trial.setting[key] for each in found for trial in each.completed if key in trial.setting})
    numbers = dict(zip(texts, _numbers(texts), strict=True))
    for each, style in zip(found, theme.lines, strict=False):
        trials = [trial for trial in each.completed if key in trial.setting]
        points = [(numbers[trial.setting[key]], 100 * trial.reached) for trial in trials]
        if points:
            axes.plot(*zip(*points, strict=True), "o", markersize=3.5, alpha=0.7, color=style["color"])
    if not _are_numbers(texts):
        axes.set_xticks(range(len(texts))[:MAX_WORDS], [fit(text, 0.8) for text in texts][:MAX_WORDS])
        axes.set_xlim(-0.5, len(texts) - 0.5)
    elif any(key in each.log_keys for each in found):
        axes.set_xscale("log")
        ticks, labels = rate_ticks(*axes.get_xlim())
        every = math.ceil(len(ticks) / MAX_TICKS)
        axes.set_xticks(ticks[::every], labels[::every])
        axes.minorticks_off()


def _numbers(texts: list[str]) -> list[float]:
    return [float(text) for text in texts] if _are_numbers(texts) else [float(place) for place in range(len(texts))]


def _are_numbers(texts: list[str]) -> bool:
    try:
        return all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
