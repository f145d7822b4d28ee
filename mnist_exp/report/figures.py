"""The pictures of a sweep, for a light and for a dark page, as figures that need no display and touch no global state.

Accuracies are in percent. Places are inches from the top left corner: a layout that matplotlib finds takes seconds, as
does importing torch, and with it the pictures of a run.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import combinations
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mnist_exp.report import lr_search, stats
from mnist_exp.report.results import Arm, Results, RunResult, format_value

WIDTH, DPI = 8.0, 150  # inches, dots an inch: the 1,200 px of a run's pictures
MARGIN, LINE, ROW, CELL = (
    0.15,
    0.19,
    0.25,
    0.34,
)  # inches: round a page; a line; a row of the leaderboard, of a heat map
AXIS, COLUMNS = 0.65, 4.4  # inches: an axis's numbers and name; the leaderboard's choices at most
TITLE, TEXT, SMALL, TINY = 11, 9, 8, 7  # points
BOLD = 1.13  # times as wide as regular
LEADING, LISTED, PANELS, AXES = 8, 30, 12, 7  # arms in colour, arms in the leaderboard, panels, parallel axes: at most
MANY, FEW = 20, 8  # values: names of more are left out, numbers of more have no heat map; numbers of few stand evenly
LEAST = 0.01  # % of misses, on a logarithmic axis that has no place for none
CROSS = "✕"  # where arms are of which runs failed
LOST = 20  # a point so many times as far below the best as the median does not stretch an axis
CAPTIONS = {
    "leaderboard.png": "Arms by mean validation accuracy, with 95 % intervals and runs; hollow: the mean in the test.",
    "lr_search.png": "Validation accuracy in the trials, by learning rate; large: the rate that was chosen.",
    "curves.png": "Validation accuracy and loss after each epoch, a line an arm.",
    "effects.png": "Validation accuracy by the value of each swept key, averaged over the others.",
    "heat_maps.png": "Mean validation accuracy for each pair of swept keys, averaged over the other keys.",
    "parallel_coordinates.png": "Each arm as a line through its choices to its mean validation accuracy.",
}

Numbers = NDArray[np.float64]


class Theme(NamedTuple):
    """The colours of a page."""

    ground: str
    ink: str
    quiet: str  # notes, and numbers on axes
    grid: str
    faint: str  # curves that stand back
    colors: tuple[str, ...]  # of the leading arms: Okabe and Ito 2008, safe for colour-blind eyes; on dark, lighter
    ramp: LinearSegmentedColormap  # of accuracies, the best the farthest from the ground: ColorBrewer's YlGnBu


LIGHT = Theme(
    *("#ffffff", "#1b1e24", "#5f6672", "#e6e8ec", "#c4c8cf"),
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1e24", "#8c7a1f"),
    LinearSegmentedColormap.from_list("light", ["#d9ecaa", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#0c2c84"]),
)
DARK = Theme(
    *("#16181d", "#e8eaee", "#9aa1ad", "#2b2f37", "#4a4f5a"),
    ("#4aa3df", "#f0763a", "#2cc295", "#dd93bd", "#f2b134", "#a5d8f7", "#e8eaee", "#b5a642"),
    LinearSegmentedColormap.from_list("dark", ["#33489c", "#2468b4", "#1d91c0", "#41b6c4", "#7fcdbb", "#ffffd9"]),
)


class Key(NamedTuple):
    """A key of which the arms have several values: numbers in ascending order, names as typed."""

    name: str
    values: tuple[str, ...]
    numeric: bool
    log: bool
    places: tuple[float, ...]  # of the values along an axis, from 0 to 1
    groups: tuple[list[Arm], ...]  # the arms with each value that are compared
    failing: tuple[list[Arm], ...]  # those of which runs failed by their own doing: in no mean

    @property
    def means(self) -> list[float]:
        return [_mean(group) for group in self.groups]

    @property
    def ticks(self) -> list[str]:
        """The values as an axis names them."""
        crosses = (f" {CROSS}" * bool(arms) for arms in self.failing)
        return [_fit(_brief(value), 1.2) + cross for value, cross in zip(self.values, crosses, strict=True)]

    @property
    def effect(self) -> float:
        """The difference between its best value and its worst, in percentage points."""
        means = list(filter(math.isfinite, self.means))
        return max(means) - min(means)


def draw(results: Results, dark: bool = False) -> dict[str, bytes]:
    """Every picture that the results allow, as PNGs by file name, in reading order."""
    return {name: _png(figure) for name, figure in figures(results, dark)}


def figures(results: Results, dark: bool = False) -> Iterator[tuple[str, Figure]]:
    """The same as figures, one after the other."""
    makers: tuple[Callable[[Results, Theme], Figure | None], ...]
    makers = leaderboard, sensitivity, curves, effects, heat_maps, parallel_coordinates
    for name, make in zip(CAPTIONS, makers if results.arms else (), strict=False):
        figure = make(results, DARK if dark else LIGHT)
        if figure:
            yield name, figure


def leaderboard(results: Results, theme: Theme = LIGHT) -> Figure:
    """Show the best arms, a row each: choices, runs, mean and interval in validation, mean in the test."""
    ranked = [*results.compared, *results.failing]
    arms = ranked[:LISTED]
    rows, blue, vermilion = np.arange(len(arms)), *theme.colors[:2]
    means, tests = [100 * arm.val.mean for arm in arms], [100 * arm.test.mean for arm in arms]
    several = [(row, arm) for row, arm in enumerate(arms) if arm.val.n > 1]
    runs = np.array([(100 * _accuracy(run), row) for row, arm in several for run in arm.runs]).reshape(-1, 2)
    bars = np.array([(100 * arm.val.low, 100 * arm.val.high, row) for row, arm in several]).reshape(-1, 3)
    bars = bars[np.isfinite(bars[:, 0])]
    low, high = _span([*means, *tests, *runs[:, 0]], bars[:, :2].ravel())
    disc = {"marker": "o", "linestyle": "none", "markeredgewidth": 0, "color": blue}
    diamond = {"marker": "D", "linestyle": "none", "markersize": 4.4, "fillstyle": "none", "color": vermilion}
    marks: list[tuple[str, Any, Any, dict[str, Any]]] = [("validation, mean", means, rows, disc | {"markersize": 6.5})]
    if several:  # each below the other, or one would hide the next
        marks.append(("validation, a run", runs[:, 0], runs[:, 1] - 0.26, disc | {"markersize": 3, "alpha": 0.6}))
    marks.append(("test, mean", tests, rows + 0.27, diamond))

    columns, size, left_out = _columns(arms)
    title = f"The best {LISTED} of {len(ranked)} arms" if len(ranked) > LISTED else _count(len(arms), "arm")
    note = ["Ranked by validation alone; the test set has no say."]
    note += ["Bars: 95 % intervals of the mean over seeds."] * bool(bars.size) + _without_bars(arms)
    note += [f"{CROSS}: runs failed; those that completed are not compared."] * any(arm.failed for arm in arms)
    note += ["A bar that meets the edge goes on."] * bool((bars[:, 0] < low).any() or (bars[:, 1] > high).any())
    legend = _head(note + left_out) + 0.05
    top = legend + 0.3 + max(2, *(len(heading) for heading, _, _ in columns)) * 0.15
    figure, page = _page(f"{title} by mean validation accuracy", note + left_out, top + len(arms) * ROW + 0.55, theme)
    x = MARGIN + 0.23
    for label, _, _, style in marks:
        page.plot(x, legend, **style)
        _write(page, x + 0.12, legend, label, theme.ink, size=SMALL)
        x += _inches(label, SMALL) + 0.4
    x = MARGIN + 0.3
    ranks = [CROSS if arm.failed else str(row + 1) for row, arm in enumerate(arms)]
    _column(page, MARGIN + 0.17, top, [], ranks, theme.quiet, theme, SMALL, "right")
    for heading, values, width in columns:
        _column(page, x, top, heading, values, theme.ink, theme, size, "left")
        x += width
    figures = [f"{mean:.2f}" if math.isfinite(mean) else "" for mean in means]
    _column(page, WIDTH - MARGIN, top, ["mean", "(%)"], figures, theme.ink, theme, size, "right")

    wide = WIDTH - MARGIN - 0.55 - x
    axes = _axes(figure, x, top, wide, len(arms) * ROW, theme)
    axes.set(xlim=(low, high), ylim=(len(arms) - 0.5, -0.5), yticks=[], xlabel="accuracy (%)")
    axes.set_xticks(*_ticks(low, high, wide / 0.7))
    axes.spines["left"].set_visible(False)
    axes.hlines(rows[1:] - 0.5, low, high, color=theme.grid, linewidth=0.6)
    axes.hlines(bars[:, 2], bars[:, 0], bars[:, 1], color=blue, linewidth=1.8)
    for label, xs, ys, style in marks:
        axes.plot(xs, ys, label=label, **style)
    for row, mean in enumerate(means):
        if mean < low:
            _write(axes, low, row, f" ◂ {mean:.2f}", blue, size=SMALL)
    return figure


def _without_bars(arms: Sequence[Arm]) -> list[str]:
    """Why some arms have no interval, or all."""
    found = [arm.val for arm in arms if arm.runs and math.isnan(arm.val.low)]
    why = ["one run"] * any(val.n == 1 for val in found) + ["equal runs"] * any(val.sd == 0 for val in found)
    why += ["two runs, which say nearly nothing"] * any(val.sd > 0 for val in found)
    return [f"{'No bar' if len(found) < len(arms) else 'No intervals'}: {' or '.join(why)}."] * bool(why)


def curves(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Show validation accuracy and loss of each arm against the epoch, the leading arms in colour."""
    drawn = [(arm, str(rank)) for rank, arm in enumerate(results.arms, 1) if _curve(arm, "val_accuracy").size]
    if not drawn:
        return None
    leading, others = drawn[:LEADING], drawn[LEADING:]
    what = f"the {LEADING} leading arms" if others else _count(len(leading), "arm")
    note = ["One run an arm: no bands."]
    if any(arm.val.n > 1 for arm, _ in leading):
        note = ["Lines: means over seeds.", "Bands: lowest to highest seed."]
    note += [f"Gray: the other {_count(len(others), 'arm')}; the axes fit the leaders."] * bool(others)
    note += ["Losses of different loss functions do not compare."] * ("loss" in results.swept)
    note += [f"{CROSS}: runs failed; the line is of those that completed."] * any(arm.failed for arm, _ in leading)
    legend = _Legend(
        [f"{CROSS}  {arm.label} ({arm.seeds})" if arm.failed else f"{rank}  {arm.label}" for arm, rank in leading]
    )
    top, tall, wide = _head(note), 3.2, WIDTH / 2 - AXIS - 2 * MARGIN
    figure, page = _page(f"Learning curves of {what}", note, top + tall + 0.65 + legend.height, theme)
    styles = _styles(theme)
    columns = [("val_accuracy", 100, "validation accuracy (%)"), ("val_loss", 1, "validation loss (mean over images)")]
    for i, (column, scale, name) in enumerate(columns):
        axes = _axes(figure, i * WIDTH / 2 + MARGIN + AXIS, top, wide, tall, theme)
        axes.set(xlabel="epoch", ylabel=name)
        _draw_curves(axes, [_curve(arm, column, scale) for arm, _ in drawn], styles, theme)
    legend.draw(page, top + tall + 0.65, styles, theme)
    return figure


def sensitivity(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Show what each arm's trials reached at each learning rate, the best arms in colour."""
    found = lr_search.searches(results.lr_search) if results.lr_search else []
    drawn = sorted((it for it in found if it.best), key=lambda it: -it.reached)
    if not drawn:
        return None
    leading, others = drawn[:LEADING], drawn[LEADING:]
    note = ["Lines: means over seeds.", "Bands: lowest to highest seed.", "Large: the rate that was chosen."]
    note += [f"Gray: {_count(len(others), 'other arm')}."] * bool(others)
    note += ["Left out: rates at which a trial failed."] * any(it.failed for it in drawn)
    legend, top, tall = _Legend([it.label for it in leading]), _head(note), 3.4
    title = f"Trials: validation accuracy by learning rate, {_count(len(drawn), 'arm')}"
    figure, page = _page(title, note, top + tall + 0.65 + legend.height, theme)
    axes = _axes(figure, MARGIN + AXIS, top, WIDTH - AXIS - 2 * MARGIN, tall, theme)
    styles = _styles(theme)
    for i, it in enumerate(drawn):
        rates = [lr_search.rate(arm.runs[0]) for arm in it.arms]
        style = styles[i] if i < LEADING else {"color": theme.faint, "zorder": 1}
        misses = np.array([[1 - arm.val.mean, 1 - arm.val.best, 1 - arm.val.worst] for arm in it.arms]).T
        mean, lowest, highest = (100 * misses).clip(LEAST)
        axes.plot(rates, mean, marker="o", markersize=3.5, linewidth=1.6, **style)
        axes.plot(it.chosen, mean.min(), "o", markersize=8, color=style["color"])
        if i < LEADING:
            axes.fill_between(rates, lowest, highest, color=style["color"], alpha=0.1, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="validation accuracy (%)")
    axes.invert_yaxis()  # of misses, evenly spaced by their ratio
    axes.set_yticks(*_accuracies(*sorted(axes.get_ylim())))
    axes.set_xticks(*_rates(*axes.get_xlim()))
    axes.minorticks_off()
    legend.draw(page, top + tall + 0.65, styles, theme)
    return figure


def _accuracies(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks for misses (%) from low to high on a logarithmic axis, and the accuracies that they stand for."""
    finest = [step * 10.0**power for power in range(-3, 2) for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    ticks = [tick for tick in finest if low <= tick <= high]
    for steps in ("12358", "125", "1"):  # first digits of what is kept, where there are too many
        ticks = (
            ticks if len(ticks) <= 10 else [tick for tick in ticks if f"{tick:e}"[0] in steps and f"{tick:e}"[2] == "0"]
        )
    return ticks, [f"{100 - tick:.10g}" for tick in ticks]


def _rates(low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks for learning rates from low to high on a logarithmic axis, three or more, and how to write them."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), [step / 100 for step in range(100, 1000, 2)]):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    ticks = ticks[:: math.ceil(len(ticks) / 10)]
    return ticks, [f"{tick:.3g}" for tick in ticks]


def _styles(theme: Theme) -> list[dict[str, Any]]:
    """How the lines of the leading arms are drawn."""
    return [{"color": color, "linestyle": "-" if i < 4 else (0, (4, 1.2))} for i, color in enumerate(theme.colors)]


class _Legend:
    """Names of lines below a picture, in columns."""

    def __init__(self, names: Sequence[str]) -> None:
        self.labels = [_fit(name, WIDTH - 2 * MARGIN - 0.4) for name in names]
        room = WIDTH - 2 * MARGIN
        self.across = min(4, len(names), max(1, int(room / (max(map(_inches, self.labels)) + 0.6))))
        self.down = math.ceil(len(names) / self.across)

    @property
    def height(self) -> float:
        return self.down * LINE

    def draw(self, page: Axes, top: float, styles: Sequence[dict[str, Any]], theme: Theme) -> None:
        for i, label in enumerate(self.labels):
            x, y = MARGIN + i // self.down * (WIDTH - 2 * MARGIN) / self.across, top + i % self.down * LINE
            page.plot([x, x + 0.3], [y, y], linewidth=1.8, **styles[i])
            _write(page, x + 0.38, y, label, theme.ink)


def _draw_curves(axes: Axes, curves: Sequence[Numbers], styles: Sequence[dict[str, Any]], theme: Theme) -> None:
    """Draw the arms' means, and for the leading ones, which the axes fit, the bands."""
    accuracy, bounds = "accuracy" in axes.get_ylabel(), list[float]()
    for epochs, _, mean, _ in curves[LEADING:]:
        axes.plot(epochs, mean, color=theme.faint, linewidth=0.6, zorder=1)
    for i, (epochs, lowest, mean, highest) in enumerate(curves[:LEADING]):
        dots: dict[str, Any] = {"marker": "o", "markersize": 4} if len(epochs) == 1 else {}
        axes.plot(epochs, mean, linewidth=1.6, zorder=20 - i, **styles[i], **dots)
        if (lowest < highest).any():
            band: dict[str, Any]
            band = {"color": theme.colors[i], "alpha": 0.15 if len(curves) < 5 else 0.08, "linewidth": 0, "zorder": 2}
            axes.fill_between(epochs, lowest, highest, **band)
        settled = epochs > epochs[-1:] / 10  # or the first epochs of many would take all the height
        bounds += [*lowest[settled], *highest[settled]]
    sign = 1 if accuracy else -1  # a lost arm has a low accuracy, and a high loss
    low, high = sorted(sign * end for end in _span([sign * bound for bound in bounds]))
    last = max(float(curve[0].max(initial=1)) for curve in curves)
    axes.set(xlim=(0.5, last + 0.5), ylim=(low, high))
    axes.set_yticks(*_ticks(low, high, 8, most=100 if accuracy else math.inf))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def effects(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Show for each key what its values reach: the mean of the arms with a value, and those arms as dots."""
    found, left_out = _keys(results)
    keys = sorted(found, key=lambda key: -key.effect)[:PANELS]
    if not keys:
        return None
    intervals = {key.name: [_interval(group) for group in key.groups] for key in keys}
    bars = [end for some in intervals.values() for it in some if it for end in it]
    low, high = _span([100 * arm.val.mean for arm in results.compared], bars)
    worst = min(mean for key in keys for mean in key.means if math.isfinite(mean))
    if worst < low:  # single arms may be lost, means may not
        low, high = worst - 0.05 * (high - worst), high + 0.05 * (high - worst)
    grouped = any(len(group) > 1 for key in keys for group in key.groups)
    title = "What each key does, averaged over the others" if len(found) > 1 else f"What {keys[0].name} does"
    note = ["Large: the mean of the arms with that value.", "Small: those arms."] * grouped
    note += ["Bars: 95 % intervals of the mean over seeds."] * bool(bars)
    note += ["A bar that meets the edge goes on."] * any(end < low or end > high for end in bars)
    some = len(bars) < 2 * sum(len(key.values) for key in keys)
    note += ["No bar: one seed, other seeds, or two that say nearly nothing."] * (bool(bars) and some)
    note += _unbalanced(results.compared, found) + _below(results.compared, low) + left_out + _failing(keys)
    note += _most(PANELS, len(found), "keys")
    across = min(3, len(keys))
    wide, tall, gap = (WIDTH - 2 * MARGIN - AXIS - (across - 1) * 0.25) / across, 2.1, 0.25
    inset = min(0.45, wide / 6)  # inches: from an end of the axis to the first value
    names = [_below_axis(key, wide - 2 * inset) for key in keys]
    feet = [max(foot for *_, foot in names[i : i + across]) for i in range(0, len(keys), across)]
    tops = np.cumsum([_head(note) + 0.47, *(tall + foot + 0.6 for foot in feet)])
    figure, page = _page(title, note, tops[-1] - 0.42, theme)
    for i, (key, (shown, slope, size, _)) in enumerate(zip(keys, names, strict=True)):
        top, left = tops[i // across], MARGIN + AXIS + i % across * (wide + gap)
        fitting = max(TINY, min(TEXT, TEXT * wide / BOLD / _inches(key.name)))
        heading = _fit(key.name, wide / BOLD * TEXT / fitting)
        _write(page, left, top - 0.33, heading, theme.ink, size=fitting, weight="bold")
        log = ", log scale" if key.log else ""
        _write(page, left, top - 0.15, f"{key.effect:.2f} pp from worst to best{log}", theme.quiet, size=SMALL)
        axes = _axes(figure, left, top, wide, tall, theme)
        unit = 1 / (wide - 2 * inset)  # of the axis, an inch
        axes.set(xlim=(-inset * unit, 1 + inset * unit), ylim=(low, high))
        axes.grid(visible=False, axis="x")
        axes.set_yticks(*_ticks(low, high, 6))
        if i % across:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("validation accuracy (%)")
        turned: dict[str, Any] = {"rotation": slope, "rotation_mode": "anchor", "ha": "right"} if slope else {}
        texts = [key.ticks[j] for j in shown]
        axes.set_xticks([key.places[j] for j in shown], texts, size=size, parse_math=False, **turned)
        if grouped:
            beside = [place - 0.09 * unit for place, arms in zip(key.places, key.groups, strict=True) for _ in arms]
            dots = [100 * arm.val.mean for arms in key.groups for arm in arms]
            axes.plot(beside, dots, "o", color=theme.quiet, alpha=0.4, markersize=3, markeredgewidth=0)
        blue, line = theme.colors[0], "-" if key.numeric else "none"
        axes.plot(key.places, key.means, "o", linestyle=line, color=blue, markersize=6, markeredgewidth=0)
        for place, ends in zip(key.places, intervals[key.name], strict=True):
            if ends:
                axes.vlines(place, *ends, color=blue, linewidth=1.8)
    return figure


def heat_maps(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Show a table for each pair of keys, the mean of the arms with both values in its cell."""
    keys = [key for key in _keys(results)[0] if len(key.values) <= MANY]
    tables = [_table(*sorted(pair, key=lambda key: len(key.values))) for pair in combinations(keys, 2)]
    pairs = len(tables)
    tables = sorted(tables, key=lambda table: np.nanmin(table.means) - np.nanmax(table.means))[:PANELS]
    if not tables or not results.compared:
        return None
    low, high = _span([mean for table in tables for mean in table.means.flat])
    note = ["Each cell: the mean of the arms with both values."]
    note += ["The pair with the widest range first."] * (pairs > 1) + _unbalanced(results.compared, keys)
    note += _failing(keys)
    note += ["Blank: nothing completed."] * any((np.isnan(it.means) & ~it.failing).any() for it in tables)
    note += ["Cells below the scale take its lowest colour."] * any((table.means < low).any() for table in tables)
    note += _most(PANELS, pairs, "pairs")
    places, x, y, bottom = list[tuple[float, float]](), MARGIN, _head(note), 0.0
    for table in tables:  # they flow as words do
        if x > MARGIN and x + table.width > WIDTH - MARGIN:
            x, y = MARGIN, bottom
        places.append((x, y))
        x, bottom = x + table.width + 0.35, max(bottom, y + table.height + 0.25)
    figure, page = _page("What the keys do together: validation accuracy (%)", note, bottom + 0.55, theme)
    norm = Normalize(low, high, clip=True)
    for table, (x, y) in zip(tables, places, strict=True):
        _draw_table(figure, page, table, x, y, norm, theme)
    bar = _axes(figure, MARGIN + 0.15, bottom, 3, 0.12, theme)
    bar.pcolormesh(np.linspace(low, high, 257), [0, 1], np.linspace(low, high, 256)[None], cmap=theme.ramp, norm=norm)
    bar.set(xlim=(low, high), yticks=[], xlabel="mean validation accuracy (%)")
    bar.spines[:].set_visible(False)
    bar.set_xticks(*_ticks(low, high, 5))
    return figure


def _draw_table(figure: Figure, page: Axes, table: Table, x: float, y: float, norm: Normalize, theme: Theme) -> None:
    """Draw a heat map with its title and names, its top left corner at (x, y)."""
    rows, columns = table.means.shape
    left, top = x + table.names, y + table.heading
    _write(page, x, y + 0.1, table.title, theme.ink, weight="bold")
    axes = _axes(figure, left, top, columns * table.cell, rows * CELL, theme)
    axes.set_axis_off()
    edges, shown = (np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5), np.ma.masked_invalid(table.means)
    axes.pcolormesh(*edges, shown, cmap=theme.ramp, norm=norm, edgecolors=theme.ground, linewidth=1.5)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    size = min(TEXT, 0.88 * table.cell * TEXT / _inches("98.88"))
    for (i, j), mean in np.ndenumerate(table.means):
        if math.isfinite(mean):
            _write(axes, j, i, f"{mean:.2f}", _on(theme.ramp(norm(mean))), size=size, ha="center")
        if table.failing[i, j]:
            spot = (j + 0.36, i - 0.26) if math.isfinite(mean) else (j, i)
            color = _on(theme.ramp(norm(mean))) if math.isfinite(mean) else theme.colors[1]
            _write(axes, *spot, CROSS, color, size=SMALL, ha="center")
    for i, value in enumerate(table.down.values):
        _write(page, left - 0.08, top + (i + 0.5) * CELL, _name(value), theme.ink, ha="right")
    turned: dict[str, Any] = {"rotation": 90, "va": "bottom"} if table.turned else {"va": "baseline"}
    for j, value in enumerate(table.across.values):
        spot = left + (j + 0.5) * table.cell, top - 0.06
        _write(page, *spot, _name(value), theme.ink, ha="center", size=min(TEXT, 65 * table.cell), **turned)


def parallel_coordinates(results: Results, theme: Theme = LIGHT) -> Figure | None:
    """Show each arm as a line through its choices to its accuracy, where three keys or more vary."""
    found, left_out = _keys(results)
    if len(found) < 3:
        return None
    keys = sorted(found, key=lambda key: key.effect)[-AXES:]
    arms = results.compared
    means = np.array([100 * arm.val.mean for arm in arms])
    low, high = _span(means)
    heights = np.clip((means - low) / (high - low), 0, 1)
    note = ["Thick: the first.", "The greater a key's effect, the nearer to the accuracy it stands."]
    note += [*_below(arms, low), *left_out, *_most(AXES, len(found), "keys")]
    note += [f"Left out: {_count(len(results.failing), 'arm')} of which runs failed."] * bool(results.failing)
    xs = np.linspace(MARGIN + 0.7, WIDTH - MARGIN - 0.75, len(keys) + 1)
    room = min(1.5, float(xs[1] - xs[0]) - 0.12)
    headings = [*(_broken(key.name, room / BOLD) for key in keys), ["validation", "accuracy", "(%)"]]
    top, tall = _head(note) + 0.1 + max(map(len, headings)) * 0.16, 4.0
    figure, page = _page(f"{_count(len(means), 'arm')}, each a line through its choices", note, top + tall + 0.2, theme)
    axes = _axes(figure, 0, top, WIDTH, tall, theme)
    axes.set_axis_off()
    stops = np.array([*(_crossings(key, arms, heights) for key in keys), heights]).T
    bend = (1 - np.cos(np.linspace(0, np.pi, 25))) / 2
    along = (xs[:-1, None] + np.diff(xs)[:, None] * np.linspace(0, 1, 25)).ravel()
    paths = (stops[:, :-1, None] + np.diff(stops)[:, :, None] * bend).reshape(len(stops), -1)
    lines = [np.column_stack([along, path]) for path in paths[::-1]]  # the best on top
    thin = max(0.35, min(0.9, 20 / len(lines)))
    widths, alphas = ([usual] * (len(lines) - 1) + [first] for usual, first in ((1.0, 2.6), (thin, 1.0)))
    norm = Normalize(low, high, clip=True)
    style: dict[str, Any] = {"cmap": theme.ramp, "norm": norm, "linewidths": widths, "alpha": alphas}
    axes.add_collection(LineCollection(lines, array=means[::-1], **style))
    for x, heading in zip(xs, headings, strict=True):
        for i, line in enumerate(reversed(heading)):
            _write(page, x, top - 0.1 - i * 0.16, line, theme.ink, weight="bold", ha="center", va="baseline")
        axes.vlines(x, 0, 1, color=theme.quiet, linewidth=0.8, zorder=3)
    box = {"facecolor": theme.ground, "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    for x, key in zip(xs, keys, strict=False):
        slots = _slots(key)
        for j in _apart([tall * slot for slot in slots], [0.17] * len(slots)):
            _write(axes, x, slots[j], _fit(_brief(key.values[j]), room), theme.ink, ha="center", bbox=box, zorder=4)
    right, levels = float(xs[-1]), np.linspace(0, 1, 257)
    scale = low + (high - low) * levels[:-1, None]
    axes.pcolormesh([right, right + 0.09], levels, scale, cmap=theme.ramp, norm=norm, zorder=4)
    for tick, label in zip(*_ticks(low, high, 8), strict=True):
        _write(axes, right + 0.15, (tick - low) / (high - low), label, theme.ink)
    axes.set(xlim=(0, WIDTH), ylim=(0, 1))
    return figure


class Table(NamedTuple):
    """A heat map and its measures in inches."""

    down: Key
    across: Key
    means: Numbers  # percent, nan where there is none; (down, across)
    failing: NDArray[np.bool_]  # where arms are of which runs failed
    title: str
    names: float  # width of the rows' names
    cell: float  # width of a cell
    turned: bool  # whether the columns' names stand upright
    heading: float  # height of all above the cells

    @property
    def width(self) -> float:
        return max(self.names + len(self.across.values) * self.cell, BOLD * _inches(self.title))

    @property
    def height(self) -> float:
        return self.heading + len(self.down.values) * CELL


def _table(down: Key, across: Key) -> Table:
    """The heat map of two keys."""

    def cells(groups: Sequence[list[Arm]]) -> list[list[list[Arm]]]:
        return [[[arm for arm in row if arm.choices[across.name] == x] for x in across.values] for row in groups]

    means = np.array([[_mean(cell) for cell in row] for row in cells(down.groups)])
    failing = np.array([[bool(cell) for cell in row] for row in cells(down.failing)])
    names, longest = (max(_inches(_name(value)) for value in key.values) for key in (down, across))
    cell = min(max(0.56, min(longest + 0.14, 0.9)), (WIDTH - 2 * MARGIN - names - 0.1) / len(across.values))
    turned = longest + 0.06 > cell
    title = _fit(f"{down.name} ↓  {across.name} →", (WIDTH - 2 * MARGIN) / BOLD)
    return Table(down, across, means, failing, title, names + 0.1, cell, turned, 0.34 + (longest if turned else 0.12))


def _keys(results: Results) -> tuple[list[Key], list[str]]:
    """The keys of which the arms have several values, and a sentence on those left out."""
    keys, left_out, every = list[Key](), list[str](), [*results.compared, *results.failing]
    for name in results.crossed if results.compared else ():
        typed = dict.fromkeys(format_value(run.job.choices.get(name)) for run in results.runs)
        groups = {value: [arm for arm in every if arm.choices[name] == value] for value in typed}
        groups = {value: arms for value, arms in groups.items() if arms}
        numbers = _numbers(list(groups))
        if len(groups) > MANY and not numbers:
            left_out.append(f"{name} ({len(groups)} values)")
        elif sum(any(not arm.failed for arm in arms) for arms in groups.values()) > 1:
            values = sorted(groups, key=float) if numbers else list(groups)
            line = np.array(sorted(numbers)) if numbers else np.arange(len(values))
            log = bool(numbers) and line[0] > 0 and line[-1] / line[0] >= 20
            line = np.log(line) if log else line
            places = (line - line[0]) / (line[-1] - line[0])
            arms = (
                tuple([arm for arm in groups[value] if bool(arm.failed) is failing] for value in values)
                for failing in (False, True)
            )
            keys.append(Key(name, tuple(values), bool(numbers), bool(log), tuple(places.tolist()), *arms))
    return keys, [f"Left out: {', '.join(left_out)}."] if left_out else []


def _numbers(values: Sequence[str]) -> list[float]:
    """The values as numbers; none if one is no number or two are equal."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) and len(set(numbers)) == len(numbers) else []


def _mean(arms: Sequence[Arm]) -> float:
    """The mean of the arms' means, in percent; nan of none."""
    return 100 * math.fsum(arm.val.mean for arm in arms) / len(arms) if arms else math.nan


def _interval(arms: Sequence[Arm]) -> tuple[float, float] | None:
    """The 95 % interval over seeds of the arms' mean, in percent; None unless all have the same seeds."""
    runs = [{run.job.seed: _accuracy(run) for run in arm.runs} for arm in arms]
    if not runs or len(runs[0]) < 2 or any(run.keys() != runs[0].keys() for run in runs):
        return None
    summary = stats.summary([math.fsum(run[seed] for run in runs) / len(runs) for seed in sorted(runs[0])])
    return (100 * summary.low, 100 * summary.high) if summary.low < summary.high else None


def _accuracy(run: RunResult) -> float:
    return float(run.summary["best_val_accuracy"] or 0)


def _curve(arm: Arm, column: str, scale: float = 1) -> Numbers:
    """Epoch, lowest, mean and highest over the arm's runs, at the epochs that all of them have: (4, epochs)."""
    runs = [dict(zip(run.curves.get("epoch", []), run.curves.get(column, []), strict=False)) for run in arm.runs]
    epochs = sorted(set(runs[0]).intersection(*runs))
    values = scale * np.array([[run[epoch] for epoch in epochs] for run in runs])
    values[~np.isfinite(values)] = np.nan  # a gap in the line
    return np.array([epochs, values.min(0), values.mean(0), values.max(0)])


def _unbalanced(arms: Sequence[Arm], keys: Sequence[Key]) -> list[str]:
    """A warning where not every combination of values has an arm."""
    whole = math.prod(len(key.values) for key in keys)
    there = len({tuple(arm.choices[key.name] for key in keys) for arm in arms})
    return [f"Not balanced: {there} of {whole} combinations completed."] if there < whole else []


def _failing(keys: Sequence[Key]) -> list[str]:
    told = f"{CROSS}: here are arms of which runs failed; no mean includes them."
    return [told] * any(any(key.failing) for key in keys)


def _below(arms: Sequence[Arm], low: float) -> list[str]:
    lost = sum(100 * arm.val.mean < low for arm in arms)
    return [f"Below the scale: {_count(lost, 'arm')}."] if lost else []


def _most(shown: int, found: int, what: str) -> list[str]:
    return [f"Shown: the {shown} of {found} {what} that matter most."] if found > shown else []


def _span(points: Sequence[float] | Numbers, bars: Sequence[float] | Numbers = ()) -> tuple[float, float]:
    """The ends of an axis for all points but those lost far below, and for bars as long as the points' range allows."""
    found = sorted(filter(math.isfinite, points)) or [0.0]
    best, usual = found[-1], found[(len(found) - 1) // 2]
    lowest = min(point for point in found if point >= best - LOST * max(best - usual, 0.1))
    room = max(best - lowest, 0.1)
    ends = [lowest, best, *filter(math.isfinite, bars)]
    low, high = max(min(ends), lowest - room), min(max(ends), best + room, max(best, 100))
    pad = 0.05 * (high - low) or 0.1
    return low - pad, high + pad


def _ticks(low: float, high: float, count: float, most: float = 100) -> tuple[list[float], list[str]]:
    """Round numbers between low and high, and how to write them."""
    ticks = MaxNLocator(nbins=max(2, int(count)), steps=[1, 2, 5, 10]).tick_values(low, min(high, most))
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    shown = [float(tick) for tick in ticks if max(0, low) <= tick <= min(high, most + 1e-9)]
    return shown, [f"{tick:.{decimals}f}" for tick in shown]


def _apart(places: Sequence[float], sizes: Sequence[float]) -> list[int]:
    """Which of a row of labels to show so that none touch: the first, and each that has room after the one before."""
    shown = [0]
    for i in range(1, len(places)):
        if places[i] - places[shown[-1]] >= (sizes[i] + sizes[shown[-1]]) / 2:
            shown.append(i)
    return shown


def _below_axis(key: Key, width: float) -> tuple[list[int], int, float, float]:
    """How a key's values fit below an axis: which, at what slope (degrees), in what size, how deep (inches)."""
    places, everything = [place * width for place in key.places], list(range(len(key.values)))
    widths = list(map(_inches, key.ticks))
    for size in (TEXT, SMALL, TINY):
        if _apart(places, [wide * size / TEXT + 0.07 for wide in widths]) == everything:
            return everything, 0, size, 0.25
    if key.numeric:
        return _apart(places, [0.17] * len(places)), 50, TEXT, 0.2 + 0.77 * max(widths)
    shrink = min(1, 60 * width / len(places) / TEXT)
    return everything, 50, TEXT * shrink, 0.2 + 0.77 * max(widths) * shrink


def _slots(key: Key) -> Sequence[float]:
    """Where a key's values stand on an axis of parallel coordinates."""
    if key.numeric and len(key.values) > FEW:
        return [0.05 + 0.9 * place for place in key.places]
    return [(i + 0.5) / len(key.values) for i in range(len(key.values))]


def _crossings(key: Key, arms: Sequence[Arm], heights: Numbers) -> Numbers:
    """Where the arms' lines cross a key's axis: round their value, the better the higher, where there is room."""
    slots = dict(zip(key.values, _slots(key), strict=True))
    loose = 0.0 if key.numeric and len(key.values) > FEW else 0.5 / len(key.values)
    return np.array([slots[arm.choices[key.name]] for arm in arms]) + loose * (heights - 0.5)


def _columns(arms: Sequence[Arm]) -> tuple[list[tuple[list[str], list[str], float]], float, list[str]]:
    """The leaderboard's choices as columns of heading, values and width; their size; a sentence on what has no room."""
    names = list(dict.fromkeys(name for arm in arms for name in arm.choices))
    cells = {name: [_name(arm.choices.get(name, "-")) for arm in arms] for name in names}
    if any(len(arm.runs) < arm.planned for arm in arms):
        cells["seeds"] = [arm.seeds for arm in arms]
    columns = list[tuple[list[str], list[str], float]]()
    for name, values in cells.items():
        heading = _broken(name, 1.2)
        width = max([_inches(line, SMALL) for line in heading] + [_inches(value) for value in values])
        columns.append((heading, values, width + 0.17))
    shrink = max(TINY / TEXT, min(1, COLUMNS / max(1, sum(width for _, _, width in columns))))
    columns = [(heading, values, width * shrink) for heading, values, width in columns]
    shown = len(names)
    while sum(width for _, _, width in columns) > COLUMNS * 1.02:
        shown -= 1
        columns.pop(shown)  # a choice, and not the seeds
    missing = ", ".join(names[shown:])
    return columns or [([], ["default"], 1.0)], TEXT * shrink, [f"No room for {missing}."] if missing else []


def _column(
    page: Axes,
    x: float,
    top: float,
    heading: Sequence[str],
    values: Sequence[str],
    color: str,
    theme: Theme,
    size: float,
    ha: str,
) -> None:
    """Write a column of the leaderboard, its heading above `top`."""
    for i, line in enumerate(reversed(heading)):
        _write(page, x, top - 0.09 - i * 0.15, line, theme.quiet, size=min(size, SMALL), ha=ha, va="baseline")
    for row, value in enumerate(values):
        _write(page, x, top + (row + 0.5) * ROW, value, color, size=size, ha=ha)


def _on(color: tuple[float, float, float, float]) -> str:
    """The ink that is read best on a colour, by its relative luminance (WCAG 2)."""
    linear = [((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return DARK.ground if np.dot(linear, [0.2126, 0.7152, 0.0722]) > 0.19 else LIGHT.ground


def _page(title: str, note: Sequence[str], height: float, theme: Theme) -> tuple[Figure, Axes]:
    """A figure with its title and note, and Axes all over it whose unit is the inch."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=theme.ground)
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    page.set_axis_off()
    _write(
        page,
        MARGIN,
        0.17,
        _fit(title, (WIDTH - 2 * MARGIN) * TEXT / TITLE / BOLD),
        theme.ink,
        size=TITLE,
        weight="bold",
        va="top",
    )
    for i, line in enumerate(_lines(note)):
        _write(page, MARGIN, 0.44 + i * LINE, line, theme.quiet, va="top")
    return figure, page


def _lines(note: Sequence[str]) -> list[str]:
    return wrap(" ".join(note), 112)


def _head(note: Sequence[str]) -> float:
    """The inches of a page that its title and note take."""
    return 0.57 + LINE * len(_lines(note))


def _axes(figure: Figure, left: float, top: float, width: float, height: float, theme: Theme) -> Axes:
    """Axes with a grid, at a place in inches."""
    whole = figure.get_figheight()
    axes = figure.add_axes((left / WIDTH, 1 - (top + height) / whole, width / WIDTH, height / whole), facecolor="none")
    axes.tick_params(colors=theme.quiet, labelsize=TEXT, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=theme.quiet, size=TEXT)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_color(theme.grid)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _write(axes: Axes, x: float, y: float, text: str, color: str, **style: Any) -> None:
    """Write what may be a user's word: a dollar in it starts no formula."""
    axes.text(x, y, text, **{"size": TEXT, "va": "center_baseline", "color": color, "parse_math": False, **style})


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _broken(name: str, width: float) -> list[str]:
    """A key in lines of so many inches, broken after dots."""
    lines = [""]
    for part in name.replace(".", ". ").split(" "):
        if lines[-1] and _inches(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return [_fit(line, width) for line in lines]


def _name(value: str) -> str:
    return _fit(_brief(value), 1.5)


def _brief(value: str) -> str:
    """A value with four digits if it is a number of more than eight characters, and quotes if it is empty."""
    return f"{float(value):.4g}" if len(value) > 8 and _numbers([value]) else value or '""'


def _fit(text: str, width: float) -> str:
    """The text, cut where it is wider than so many inches at TEXT points."""
    if _inches(text) <= width:
        return text
    return next((f"{text[:n]}…" for n in range(len(text) - 1, 0, -1) if _inches(f"{text[:n]}…") <= width), "…")


@cache
def _inches(text: str, size: float = TEXT) -> float:
    """The width of `text` in so many points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
