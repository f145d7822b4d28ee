import math
from statistics import fmean

import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import intervals, text_of
from helpers.sweeps import set_accuracy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_exp.report.figures import averages, effects
from mnist_exp.report.figures.keys import Key
from mnist_exp.report.figures.page import CROSS
from mnist_exp.report.results import Results

VALUES = {"optimizer": ["adam", "sgd", "nadam"], "activation": ["relu", "tanh"]}  # the larger effect first


@pytest.fixture(scope="module")
def results(make_results: MakeResults) -> Results:
    return make_results(VALUES, seeds=range(3))


@pytest.fixture(scope="module")
def figure(results: Results) -> Figure:
    figure = effects.draw(results)
    assert figure
    return figure


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


@pytest.mark.parametrize(("panel", "key"), list(enumerate(VALUES, 1)))
def test_a_panel_shows_the_mean_and_interval_of_each_value(
    results: Results, figure: Figure, panel: int, key: str
) -> None:
    axes = figure.axes[panel]
    groups = [[arm for arm in results.arms if arm.choices[key] == value] for value in VALUES[key]]
    means = [fmean(100 * arm.val.mean for arm in arms) for arms in groups]
    assert labels(axes) == VALUES[key]
    assert axes.lines[-1].get_ydata() == pytest.approx(means)
    assert f"{max(means) - min(means):.2f} pp from worst to best" in text_of(figure)
    expected = [averages.interval(arms, results.measure) for arms in groups]
    assert np.array(intervals(axes))[:, :, 1] == pytest.approx(np.array(expected))
    dots = axes.lines[0].get_ydata()
    assert dots == pytest.approx([100 * arm.val.mean for arms in groups for arm in arms])


def test_all_panels_have_one_scale(figure: Figure) -> None:
    _, first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()


def test_the_panels_of_values_with_failed_runs_are_marked(make_results: MakeResults) -> None:
    grid = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh", "elu"], "dropout": [0, 0.5]}
    spoiled = {0: "failed", 14: "failed", 15: "failed", 4: "killed"}  # adam relu 0; sgd relu 0.5; one of adam tanh 0
    results = make_results(grid, seeds=range(2), spoiled=spoiled)
    assert [(arm.label, arm.seeds) for arm in results.failing] == [
        ("adam relu dropout=0", "1 of 2; 1 diverged"),
        ("sgd relu dropout=0.5", "0 of 2; 2 diverged"),
    ]
    figure = effects.draw(results)
    assert figure
    shown = [label for axes in figure.axes[1:] for label in labels(axes)]
    assert sorted(shown) == sorted(
        [*(f"{value} {CROSS}" for value in ("adam", "sgd", "relu", "0", "0.5")), "tanh", "elu"]
    )
    for axes in figure.axes[1:]:
        values = [label.removesuffix(f" {CROSS}") for label in labels(axes)]
        means = [fmean(100 * a.val.mean for a in results.compared if v in a.choices.values()) for v in values]
        assert axes.lines[-1].get_ydata() == pytest.approx(means)


def test_one_key_has_a_title_of_its_own_and_no_dots(make_results: MakeResults) -> None:
    figure = effects.draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=[0]))
    assert figure
    assert "What optimizer does" in text_of(figure)
    assert len(figure.axes) == 2
    assert len(figure.axes[1].lines) == 1


def test_an_arm_far_below_the_others_does_not_hide_what_its_key_does(make_results: MakeResults) -> None:
    grid = {"optimizer": ["adam", "nadam"], "activation": ["relu", "tanh", "elu"]}
    figure = effects.draw(make_results(grid, lambda folder: set_accuracy(folder, 2, 0.1135), seeds=[0]))
    assert figure
    assert len(figure.axes) == 3
    for axes in figure.axes[1:]:
        low, high = axes.get_ylim()
        assert all(low < mean < high for mean in np.asarray(axes.lines[-1].get_ydata()))
    assert "Below the scale: 1 arm." in text_of(figure)


def test_a_key_of_many_names_is_left_out_and_one_of_many_numbers_is_not(make_results: MakeResults) -> None:
    names = effects.draw(
        make_results({"model.name": [f"net_{i}" for i in range(21)], "optimizer": ["adam", "sgd"]}, seeds=[0])
    )
    numbers = effects.draw(make_results({"optimizer.lr": range(1, 22), "optimizer": ["adam", "sgd"]}, seeds=[0]))
    assert names
    assert numbers
    assert "Left out: model.name (21 values)" in text_of(names)
    assert (len(names.axes), len(numbers.axes)) == (2, 3)


def test_there_are_twelve_panels_at_most(make_results: MakeResults) -> None:
    results = make_results({f"key_{i}": [0, 1] for i in range(4)}, seeds=[0])
    panels, keys = effects.draw(results), effects.PANELS
    assert panels
    assert len(panels.axes) == 1 + 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "PANELS", 3)
        fewer = effects.draw(results)
    assert keys == 12
    assert fewer
    assert len(fewer.axes) == 1 + 3
    assert "Shown: the 3 of 4 keys that matter most." in text_of(fewer)


def test_labels_are_level_if_they_have_room_and_slope_if_not() -> None:
    def key(*values: str, numeric: bool) -> Key:
        places = tuple(i / (len(values) - 1) for i in range(len(values)))
        return Key("key", values, numeric, False, places, ([],) * len(values), ([],) * len(values))

    few, many = key("adam", "sgd", numeric=False), key(*(f"net_{i}" for i in range(15)), numeric=False)
    assert effects.tick_labels(few, 2)[:2] == ([0, 1], 0)
    assert effects.tick_labels(many, 2)[:2] == (list(range(15)), 50)
    numbers = effects.tick_labels(key(*map(str, range(1000, 1040)), numeric=True), 2)
    assert numbers.slope == 50
    assert numbers.shown[0] == 0
    assert 5 < len(numbers.shown) < 40
    assert all(math.isfinite(size) for size in (numbers.size, numbers.height))
