import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import text_of

from mnist_exp.report.figures import heat_maps
from mnist_exp.report.figures.page import CROSS, DARK, LIGHT, Theme

GRID = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "elu"]}


def test_cells_hold_the_means_and_stay_blank_where_nothing_completed(make_results: MakeResults) -> None:
    results = make_results(GRID, seeds=range(2), spoiled={8: "killed", 9: "killed"})
    figure = heat_maps.draw(results)
    assert figure
    axes = figure.axes[1]
    means = {tuple(arm.choices.values()): f"{100 * arm.val.mean:.2f}" for arm in results.arms}
    assert len(means) == 5
    shown = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    places = {(i, j): (y, x) for i, y in enumerate(GRID["optimizer"]) for j, x in enumerate(GRID["activation"])}
    assert shown == {place: means[choices] for place, choices in places.items() if choices in means}
    [cells] = axes.collections
    assert np.ma.getmaskarray(np.ma.asarray(cells.get_array())).tolist() == [[False] * 3, [False, True, False]]
    assert "Blank: nothing completed." in text_of(figure)
    assert "5 of 6 combinations" in text_of(figure)


@pytest.mark.parametrize(("status", "failed"), [("failed", True), ("running", False)])
def test_a_cell_without_a_mean_is_crossed_if_runs_failed_and_blank_if_not(
    make_results: MakeResults, status: str, failed: bool
) -> None:
    grid = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}
    figure = heat_maps.draw(make_results(grid, seeds=[0], spoiled={3: status}))
    assert figure
    assert (CROSS in [text.get_text() for text in figure.axes[1].texts]) is failed
    assert ("no mean includes" in text_of(figure)) is failed
    assert ("Blank: nothing completed." in text_of(figure)) is not failed


def test_a_cell_with_some_failed_arms_has_a_mean_and_a_cross(make_results: MakeResults) -> None:
    spoiled = {0: "failed", 14: "failed", 15: "failed"}  # adam relu 0; sgd relu 0.5
    figure = heat_maps.draw(make_results(GRID | {"dropout": [0, 0.5]}, seeds=range(2), spoiled=spoiled))
    assert figure
    crosses = [sum(text.get_text() == CROSS for text in axes.texts) for axes in figure.axes[1:4]]
    assert sorted(crosses) == [2, 2, 2]
    numbers = [sum(text.get_text() != CROSS for text in axes.texts) for axes in figure.axes[1:4]]
    assert sorted(numbers) == [4, 6, 6]


def test_there_is_a_heat_map_for_each_pair_and_twelve_at_most(make_results: MakeResults) -> None:
    three = heat_maps.draw(make_results(GRID | {"dropout": [0, 0.5]}, seeds=[0]))
    six = heat_maps.draw(make_results({f"key_{i}": [0, 1] for i in range(6)}, seeds=[0]))
    assert three
    assert six
    assert len(three.axes) == 1 + 3 + 1  # the page, the heat maps, and the scale
    assert len(six.axes) == 1 + 12 + 1
    assert "Shown: the 12 of 15 pairs that matter most." in text_of(six)


def test_there_is_no_figure_of_one_key_or_of_one_with_many_values(make_results: MakeResults) -> None:
    assert heat_maps.draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=[0])) is None
    names = {"model.name": [f"net_{i}" for i in range(21)], "optimizer": ["adam", "sgd"]}
    assert heat_maps.draw(make_results(names, seeds=[0])) is None
    numbers = {"optimizer.lr": range(1, 22), "optimizer": ["adam", "sgd"]}
    assert heat_maps.draw(make_results(numbers, seeds=[0])) is None


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_numbers_can_be_read_on_every_colour(theme: Theme) -> None:
    def luminance(color: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for color in theme.ramp(np.linspace(0, 1, 50)):
        ink = heat_maps.readable_on(tuple(color))
        rgb = tuple(int(ink[i : i + 2], 16) / 255 for i in (1, 3, 5))
        dark, light = sorted([luminance(tuple(color)), luminance(rgb)])
        assert (light + 0.05) / (dark + 0.05) >= 4
