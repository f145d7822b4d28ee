"""lr_search.png: what the trials of a learning-rate search reached."""

import math

import numpy as np
from matplotlib.figure import Figure

from mnist_exp.figure_page import MARGIN, WIDTH
from mnist_exp.report import lr_search
from mnist_exp.report.figures.page import AXIS, GRAY, LEADING, LIGHT, Legend, Theme, add_axes, head_height, start_page
from mnist_exp.report.formats import count
from mnist_exp.report.results import Results

HEIGHT, FOOT = 3.4, 0.65  # inches: the Axes, and the numbers and the name below them
LEAST = 0.01  # % of misses: a logarithmic axis has no place for 0


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw the accuracy of each arm by learning rate, the best arms in colour; None without a search."""
    found = lr_search.searches(results.lr_search) if results.lr_search else []
    searches = sorted((search for search in found if search.best), key=lambda search: -search.reached)
    if not searches:
        return None
    leading, others, left_out = searches[:LEADING], len(searches[LEADING:][:GRAY]), len(searches[LEADING + GRAY :])
    note = ["Lines: means over seeds.", "Bands: lowest to highest seed.", "Large: the chosen rate."]
    if others:
        note.append(f"Gray: {count(others, 'other arm')}.")
    if left_out:
        note.append(f"Not shown: {count(left_out, 'arm')}.")
    if any(search.failed for search in searches):
        note.append("Left out: rates at which a trial failed.")
    legend, top = Legend([search.label for search in leading]), head_height(note)
    title = f"Trials: validation accuracy by learning rate, {count(len(searches), 'arm')}"
    figure, page = start_page(title, note, top + HEIGHT + FOOT + legend.height, theme)
    axes = add_axes(figure, MARGIN + AXIS, top, WIDTH - AXIS - 2 * MARGIN, HEIGHT, theme)
    for i, search in enumerate(searches[: LEADING + GRAY]):
        rates = [lr_search.rate(arm.runs[0]) for arm in search.arms]
        style = theme.lines[i] if i < LEADING else {"color": theme.faint, "zorder": 1}
        misses = np.array([[1 - arm.val.mean, 1 - arm.val.best, 1 - arm.val.worst] for arm in search.arms]).T
        mean, lowest, highest = (100 * misses).clip(LEAST)
        axes.plot(rates, mean, marker="o", markersize=3.5, linewidth=1.6, **style)
        axes.plot(search.chosen, mean.min(), "o", markersize=8, color=style["color"])
        if i < LEADING:
            axes.fill_between(rates, lowest, highest, color=style["color"], alpha=0.1, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="validation accuracy (%)")
    axes.invert_yaxis()  # the axis holds misses, which a logarithmic axis spaces by their ratio
    axes.set_yticks(*accuracy_ticks(*sorted(axes.get_ylim())))
    axes.set_xticks(*rate_ticks(*axes.get_xlim()))
    axes.minorticks_off()
    legend.draw(page, top + HEIGHT + FOOT, theme)
    return figure


def accuracy_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Return ticks on a logarithmic axis of misses (%), at most ten where possible, labelled with the accuracies."""
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ticks = [step * 10.0**power for power in range(-3, 2) for step in steps if low <= step * 10.0**power <= high]
    for first_digits in ("12358", "125", "1"):
        if len(ticks) > 10:
            ticks = [tick for tick in ticks if f"{tick:e}"[0] in first_digits and f"{tick:e}"[2] == "0"]
    return ticks, [f"{100 - tick:.10g}" for tick in ticks]


def rate_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Return three to ten ticks on a logarithmic axis of learning rates, and their labels."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), [step / 100 for step in range(100, 1000, 2)]):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: math.ceil(len(ticks) / 10)]
    return ticks, [f"{tick:.3g}" for tick in ticks]
