"""The page that every figure stands on: its size, its title and note, and the width of a text.

Figures are made without pyplot, so they need no display and change no global state. Places on a page are inches from
its top left corner.
"""

import io
from collections.abc import Sequence
from functools import cache

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

WIDTH, DPI = 8.0, 150  # inches, and dots per inch: 1,200 pixels, 1.5 times the width of an image in a README
MARGIN, LINE = 0.15, 0.19  # inches: around a page; from one line of text to the next
TITLE, TEXT = 11, 9  # points


def new_figure(height: float, ground: str = "white") -> Figure:
    """Return an empty figure of the common width; `ground` is its background colour."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=ground)


def add_page(figure: Figure) -> Axes:
    """Add Axes that cover the figure and whose unit is the inch, from the top left corner to the right and down."""
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(figure.get_figheight(), 0))
    page.set_axis_off()
    return page


def write_head(figure: Figure, title: str, lines: Sequence[str], ink: str = "black", quiet: str = "0.4") -> None:
    """Write the title and, below it, the lines of the note.

    Args:
        figure: The figure to write on.
        title: One line that fits the width.
        lines: The note, one string per line.
        ink: The colour of the title.
        quiet: The colour of the note.
    """
    height = figure.get_figheight()
    left = MARGIN / WIDTH
    figure.text(left, 1 - 0.17 / height, title, size=TITLE, weight="bold", va="top", color=ink, parse_math=False)
    for i, line in enumerate(lines):
        y = 1 - (0.42 + i * LINE) / height
        figure.text(left, y, line, size=TEXT, va="top", color=quiet, parse_math=False)


@cache
def text_width(text: str, size: float = TEXT) -> float:
    """Return the width in inches of a text of `size` points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
