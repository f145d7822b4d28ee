"""The figures of a report, for a light and for a dark page.

Fractions are in percent. Every place is fixed in inches, because a layout that matplotlib finds takes seconds.
"""

from collections.abc import Callable, Iterator

from matplotlib.figure import Figure

from mnist_exp.figure_page import to_png
from mnist_exp.report.figures import (
    confusion_pairs,
    curves,
    effects,
    evidence,
    heat_maps,
    leaderboard,
    parallel_coordinates,
    response,
    search,
)
from mnist_exp.report.figures.page import DARK, LIGHT, Theme
from mnist_exp.report.results import Results

FIGURES: dict[str, Callable[[Results, Theme], Figure | None]] = {  # in reading order
    "leaderboard.png": leaderboard.draw,
    "evidence.png": evidence.draw,
    "lr_search.png": response.draw,
    "search.png": search.draw,
    "trials.png": parallel_coordinates.draw_trials,
    "curves.png": curves.draw,
    "effects.png": effects.draw,
    "heat_maps.png": heat_maps.draw,
    "parallel_coordinates.png": parallel_coordinates.draw,
    "confusion_pairs.png": confusion_pairs.draw,
}
CAPTIONS = {
    "leaderboard.png": "Arms by their validation mean, with 95 % intervals and runs; hollow: test mean.",
    "evidence.png": "Evidence that the leader and another arm differ, by seeds, one line per pair.",
    "lr_search.png": "Validation accuracy of the trials by learning rate; large: the chosen rate.",
    "search.png": "The best trial of the search so far, and every completed trial by the value of each searched key.",
    "trials.png": "Each completed trial of the search as a line through its setting to its validation mean.",
    "curves.png": "Validation accuracy and loss after each epoch, one line per arm.",
    "effects.png": "Validation mean by the value of each swept key, averaged over the others.",
    "heat_maps.png": "Validation mean for each pair of swept keys, averaged over the other keys.",
    "parallel_coordinates.png": "Each arm as a line through its choices to its validation mean.",
    "confusion_pairs.png": "The classes that the leading arm reads better or worse than the next ones, and what it "
    "confuses less or more often.",
}


def draw(results: Results, dark: bool = False) -> dict[str, bytes]:
    """Draw every figure for which the results suffice.

    Args:
        results: What to draw.
        dark: Whether the figures are for a dark page.

    Returns:
        PNG files by name, in reading order.
    """
    return {name: to_png(figure) for name, figure in figures(results, dark)}


def figures(results: Results, dark: bool = False) -> Iterator[tuple[str, Figure]]:
    """Make the figures of `draw` one after the other, and yield each with its name."""
    if not results.arms:
        return
    for name, draw_figure in FIGURES.items():
        figure = draw_figure(results, DARK if dark else LIGHT)
        if figure:
            yield name, figure
