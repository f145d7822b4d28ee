"""lr_search.png: what the trials of a learning-rate search reached."""

from matplotlib.figure import Figure

from mnist_exp.config import LR
from mnist_exp.figure_page import MARGIN, WIDTH
from mnist_exp.report import search
from mnist_exp.report.figures import axis
from mnist_exp.report.figures.page import AXIS, GRAY, LEADING, LIGHT, Legend, Theme, add_axes, head_height, start_page
from mnist_exp.report.formats import count
from mnist_exp.report.results import Results

HEIGHT, FOOT = 3.4, 0.65  # inches: the Axes, and the numbers and the name below them


def draw(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Draw the accuracy of each arm by learning rate, the best arms in colour; None without a search."""
    found = [(each, each.best.reached) for each in search.searches(results) if each.is_of_rates and each.best]
    searches = [each for each, _ in sorted(found, key=lambda pair: -pair[1])]
    if not searches:
        return None
    leading, others, left_out = searches[:LEADING], len(searches[LEADING:][:GRAY]), len(searches[LEADING + GRAY :])
    note = ["Lines: means over seeds.", "Bands: lowest to highest seed.", "Large: the chosen rate."]
    if others:
        note.append(f"Gray: {count(others, 'other arm')}.")
    if left_out:
        note.append(f"Not shown: {count(left_out, 'arm')}.")
    if any(trial.failed for each in searches for trial in each.trials):
        note.append("Left out: rates at which a trial failed.")
    legend, top = Legend([each.label or LR for each in leading]), head_height(note)
    title = f"Trials: validation accuracy by learning rate, {count(len(searches), 'arm')}"
    figure, page = start_page(title, note, top + HEIGHT + FOOT + legend.height, theme)
    axes = add_axes(figure, MARGIN + AXIS, top, WIDTH - AXIS - 2 * MARGIN, HEIGHT, theme)
    for i, each in enumerate(searches[: LEADING + GRAY]):
        trials = sorted(each.completed, key=lambda trial: float(trial.setting[LR]))
        rates = [float(trial.setting[LR]) for trial in trials]
        style = theme.lines[i] if i < LEADING else {"color": theme.faint, "zorder": 1}
        ends = [[trial.reached, max(trial.values), min(trial.values)] for trial in trials]
        mean, lowest, highest = axis.misses(ends).T
        axes.plot(rates, mean, marker="o", markersize=3.5, linewidth=1.6, **style)
        axes.plot(rates[mean.argmin()], mean.min(), "o", markersize=8, color=style["color"])
        if i < LEADING:
            axes.fill_between(rates, lowest, highest, color=style["color"], alpha=0.1, linewidth=0)
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy (%)")
    axes.set_xticks(*axis.log_ticks(*axes.get_xlim()))
    axis.show_accuracies(axes)
    legend.draw(page, top + HEIGHT + FOOT, theme)
    return figure
