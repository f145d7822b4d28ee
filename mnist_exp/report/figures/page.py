"""What the figures of a report share: two themes, texts, Axes and a legend, placed in inches from the top left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from mnist_exp.figure_page import LINE, MARGIN, TEXT, TITLE, WIDTH, add_page, new_figure, text_width, write_head

AXIS = 0.65  # inches: the numbers and the name of a vertical axis
SMALL, TINY = 8, 7  # points
BOLD = 1.13  # width of a bold text, relative to a regular one
NOTE = 112  # characters in a line of a note
LEADING = 8  # the arms that have colours
GRAY = 50  # arms that have gray lines, at most
CROSS = "✕"  # marks arms with failed runs


class Theme(NamedTuple):
    """The colours of a page."""

    ground: str
    ink: str
    quiet: str  # of notes, and of the numbers on axes
    grid: str
    faint: str  # of the lines of all but the leading arms
    colors: tuple[str, ...]  # of the leading arms: Okabe and Ito 2008, safe for colour-blind eyes; lighter on dark
    ramp: LinearSegmentedColormap  # the highest farthest from the ground: ColorBrewer's YlGnBu

    def ramp_of(self, sign: int) -> Colormap:
        """Return the colours of a measure, the best farthest from the ground; `sign` is -1 if lower is better."""
        return self.ramp if sign > 0 else self.ramp.reversed()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The styles of the leading arms' lines."""
        return [{"color": color, "linestyle": "-" if i < 4 else (0, (4, 1.2))} for i, color in enumerate(self.colors)]


LIGHT = Theme(
    ground="#ffffff",
    ink="#1b1e24",
    quiet="#5f6672",
    grid="#e6e8ec",
    faint="#c4c8cf",
    colors=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1e24", "#8c7a1f"),
    ramp=LinearSegmentedColormap.from_list("light", ["#d9ecaa", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#0c2c84"]),
)
DARK = Theme(
    ground="#16181d",
    ink="#e8eaee",
    quiet="#9aa1ad",
    grid="#2b2f37",
    faint="#4a4f5a",
    colors=("#4aa3df", "#f0763a", "#2cc295", "#dd93bd", "#f2b134", "#a5d8f7", "#e8eaee", "#b5a642"),
    ramp=LinearSegmentedColormap.from_list("dark", ["#33489c", "#2468b4", "#1d91c0", "#41b6c4", "#7fcdbb", "#ffffd9"]),
)


class Legend:
    """The names of the leading arms' lines, in columns below the Axes."""

    def __init__(self, names: Sequence[str]) -> None:
        """Lay out the names, the longest of which are cut."""
        room = WIDTH - 2 * MARGIN
        self.labels = [fit(name, room - 0.4) for name in names]
        self.columns = min(4, len(names), max(1, int(room / (max(map(text_width, self.labels)) + 0.6))))
        self.rows = math.ceil(len(names) / self.columns)

    @property
    def height(self) -> float:
        """The height in inches."""
        return self.rows * LINE

    def draw(self, page: Axes, top: float, theme: Theme) -> None:
        """Draw the legend below `top`."""
        for i, label in enumerate(self.labels):
            x, y = MARGIN + i // self.rows * (WIDTH - 2 * MARGIN) / self.columns, top + i % self.rows * LINE
            page.plot([x, x + 0.3], [y, y], linewidth=1.8, **theme.lines[i])
            write(page, x + 0.38, y, label, theme.ink)


def start_page(title: str, note: Sequence[str], height: float, theme: Theme) -> tuple[Figure, Axes]:
    """Return a figure with its title and note, and the page to write on."""
    figure = new_figure(height, theme.ground)
    page = add_page(figure)
    title = fit(title, (WIDTH - 2 * MARGIN) * TEXT / TITLE / BOLD)
    write_head(figure, title, _lines(note), theme.ink, theme.quiet)
    return figure, page


def head_height(note: Sequence[str]) -> float:
    """Return the height in inches of the title and the note."""
    return 0.57 + LINE * len(_lines(note))


def add_axes(figure: Figure, left: float, top: float, width: float, height: float, theme: Theme) -> Axes:
    """Add Axes with a grid; all lengths are in inches."""
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


def write(axes: Axes, x: float, y: float, text: str, color: str, **style: Any) -> None:
    """Write a text that may be a user's: a dollar in it starts no formula."""
    axes.text(x, y, text, **{"size": TEXT, "va": "center_baseline", "color": color, "parse_math": False, **style})


def fit(text: str, width: float) -> str:
    """Return the text, cut if it is wider than `width` inches at TEXT points."""
    if text_width(text) <= width:
        return text
    return next((f"{text[:n]}…" for n in range(len(text) - 1, 0, -1) if text_width(f"{text[:n]}…") <= width), "…")


def break_after(mark: str, text: str, width: float) -> list[str]:
    """Return the text in lines of at most `width` inches at TEXT points, broken after `mark`."""
    lines = [""]
    for part in text.replace(mark, f"{mark}\n").split("\n"):
        if lines[-1] and text_width(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return [fit(line, width) for line in lines]


def _lines(note: Sequence[str]) -> list[str]:
    return wrap(" ".join(note), NOTE)
