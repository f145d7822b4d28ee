"""What a figure shows."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text


def text_of(figure: Figure) -> str:
    """All texts."""
    return " ".join(texts(figure))


def texts(figure: Figure) -> list[str]:
    """The texts one by one, without empty ones."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def formulas(figure: Figure) -> list[str]:
    """The texts with a dollar that matplotlib reads as formulas."""
    return [
        text.get_text()
        for text in figure.findobj(Text)
        if isinstance(text, Text) and "$" in text.get_text() and text.get_parse_math()
    ]


def is_on_its_page(figure: Figure) -> bool:
    """Whether nothing is cut off at the edges."""
    if figure.get_layout_engine():
        figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return bool(min(box.x0, box.y0) > -1e-6 and box.x1 < width + 1e-6 and box.y1 < height + 1e-6)


def overlapping(texts: Sequence[Text]) -> list[tuple[str, str]]:
    """The pairs of texts that touch, once their figure is drawn."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (name, other)
        for i, (name, box) in enumerate(boxes)
        for other, other_box in boxes[i + 1 :]
        if box.overlaps(other_box)
    ]


def points(line: Line2D) -> list[list[float]]:
    """The points (x, y) of a line."""
    found: list[list[float]] = np.asarray(line.get_xydata(), dtype=float).tolist()
    return found


def intervals(axes: Axes) -> list[list[list[float]]]:
    """Both ends of each interval: thick lines, horizontal or vertical."""
    return [
        segment.tolist()
        for lines in axes.collections
        if isinstance(lines, LineCollection) and np.min(lines.get_linewidth()) > 1.5
        for segment in lines.get_segments()
    ]


def bands(figure: Figure) -> int:
    """How many bands there are between the lowest and the highest seed."""
    return len(figure.findobj(PolyCollection))
