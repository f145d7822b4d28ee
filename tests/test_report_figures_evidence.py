from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import is_on_its_page, overlapping, points, text_of
from helpers.sweeps import edit_ledger
from matplotlib.figure import Figure
from matplotlib.text import Text

from mnist_exp.report import sequential
from mnist_exp.report.figures import evidence
from mnist_exp.report.results import Results

GRID = {"optimizer": ["adam", "sgd", "rmsprop", "nadam"]}


def until(folder: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        if "job" not in entry:
            entry["until"] = {"max_seeds": 40, "smallest": 0.1}

    edit_ledger(folder, change)


@pytest.fixture(scope="module")
def found(make_results: MakeResults) -> Results:
    return make_results(GRID, seeds=range(9), change=until, spread=0.002)


def drawn(results: Results) -> Figure:
    figure = evidence.draw(results)
    assert figure
    return figure


def test_each_pair_has_a_line_of_its_evidence_and_a_label(found: Results) -> None:
    figure = drawn(found)
    page, axes = figure.axes
    course = sequential.course(found)
    lines = [points(line) for line in axes.lines if len(points(line)) > 2]
    assert lines == [[list(point) for point in points] for _, points in course]
    labels = [text.get_text() for text in page.texts]
    assert labels == [name for name, _ in course] != []
    assert "Evidence that adam and another arm differ" in text_of(figure)


def test_the_dashed_line_is_enough_for_a_claim(found: Results) -> None:
    axes = drawn(found).axes[1]
    (dashed,) = [line for line in axes.lines if len(set(np.asarray(line.get_ydata()))) == 1 and len(points(line)) == 2]
    assert points(dashed)[0][1] == pytest.approx(np.log10(6 / 0.05))
    assert "Dashed: 120, enough for a claim whatever the other pairs show (1 / 0.05, times 6 pairs)." in text_of(
        drawn(found)
    )


def test_nothing_is_cut_off_and_no_labels_touch(make_results: MakeResults) -> None:
    grid = {"a.long.key.of_many_parts": [f"{i} {'x' * 40}" for i in range(14)]}
    figure = drawn(make_results(grid, seeds=range(6), change=until))
    assert is_on_its_page(figure)
    labels = [text for text in figure.axes[0].texts if isinstance(text, Text)]
    assert len(labels) == 8
    assert overlapping(labels) == []
    assert "Gray: 5 other arms." in text_of(figure)


def test_there_is_no_figure_for_fixed_seeds_or_one_arm(make_results: MakeResults) -> None:
    assert evidence.draw(make_results(GRID, seeds=range(3))) is None
    assert evidence.draw(make_results({"optimizer": ["adam"]}, seeds=range(3), change=until)) is None


@pytest.mark.parametrize(
    ("places", "expected"),
    [([1.0, 5.0], [1.0, 5.0]), ([2.0, 2.1], [2.0, 3.0]), ([9.9, 9.8], [10.0, 9.0]), ([0.0, 0.0, 9.0], [0.0, 1.0, 9.0])],
)
def test_labels_are_moved_apart(places: list[float], expected: list[float]) -> None:
    assert evidence.spread(places, 1, 0, 10) == pytest.approx(expected)


def test_ticks_are_readable_numbers() -> None:
    shown = [evidence._number(power) for power in (-3, -1, 0, 4, 6, 12)]
    assert shown == ["10⁻³", "0.1", "1", "10,000", "10⁶", "10¹²"]
