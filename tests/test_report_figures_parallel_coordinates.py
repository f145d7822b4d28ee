from typing import Any

import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import text_of
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mnist_exp.report.figures import axis, parallel_coordinates
from mnist_exp.report.results import Results

GRID: dict[str, list[Any]] = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "elu"], "dropout": [0, 0.5]}


@pytest.fixture(scope="module")
def results(make_results: MakeResults) -> Results:
    spoiled = {0: "failed", 14: "failed", 15: "failed"}
    return make_results(GRID, seeds=range(2), spoiled=spoiled)


@pytest.fixture(scope="module")
def figure(results: Results) -> Figure:
    figure = parallel_coordinates.draw(results)
    assert figure
    return figure


@pytest.fixture(scope="module")
def lines(figure: Figure) -> LineCollection:
    lines = figure.axes[1].collections[0]
    assert isinstance(lines, LineCollection)
    return lines


def test_each_compared_arm_has_a_line_that_ends_at_its_accuracy(results: Results, lines: LineCollection) -> None:
    means = [100 * arm.val.mean for arm in results.compared][::-1]  # the best is drawn last
    assert np.asarray(lines.get_array()).tolist() == pytest.approx(means)
    low, high = axis.limits(means)
    ends = [segment[-1, 1] for segment in lines.get_segments()]
    assert len(ends) == 10
    assert ends == pytest.approx([(mean - low) / (high - low) for mean in means])


def test_lines_pass_through_the_arms_choices(results: Results, figure: Figure, lines: LineCollection) -> None:
    labels = {text.get_text(): text.get_position() for text in figure.axes[1].texts}
    for arm, segment in zip(results.compared[::-1], lines.get_segments(), strict=True):
        for key, value in arm.choices.items():
            x, y = labels[value]
            crossed = segment[np.isclose(segment[:, 0], x), 1]
            assert crossed.size
            assert np.abs(crossed - y).max() <= 0.25 / len(GRID[key]) + 1e-9, value


def test_the_best_arm_is_thick_and_on_top(lines: LineCollection) -> None:
    widths = np.asarray(lines.get_linewidth())
    assert widths[-1] > 2 * widths[:-1].max()


def test_arms_with_failed_runs_are_left_out(figure: Figure) -> None:
    assert "10 arms, each a line through its choices" in text_of(figure)
    assert "Left out: 2 arms with failed runs." in text_of(figure)


def test_there_is_no_figure_of_two_keys(make_results: MakeResults) -> None:
    two = {key: GRID[key] for key in ("optimizer", "activation")}
    assert parallel_coordinates.draw(make_results(two, seeds=[0])) is None


def test_there_are_seven_keys_at_most(make_results: MakeResults) -> None:
    figure = parallel_coordinates.draw(make_results({f"key_{i}": [0, 1] for i in range(8)}, seeds=[0]))
    assert figure
    assert len({text.get_text() for text in figure.axes[0].texts if text.get_text().startswith("key_")}) == 7
    assert "Shown: the 7 of 8 keys that matter most." in text_of(figure)


def test_lines_are_bounded(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_coordinates, "ARMS", 3)
    figure = parallel_coordinates.draw(results)
    assert figure
    assert f"Shown: the best 3 of {len(results.compared)} arms." in text_of(figure)
