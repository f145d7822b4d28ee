from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import bands, formulas, intervals, is_on_its_page, text_of
from helpers.sweeps import edit_summary
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mnist_exp import figure_page
from mnist_exp.report import figures
from mnist_exp.report.results import Results
from mnist_exp.store import predictions
from mnist_exp.store.run_folder import PREDICTIONS
from mnist_exp.system import files

ALWAYS = ["leaderboard.png", "curves.png"]
THREE_KEYS = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"], "dropout": [0, 0.5]}
ODD = {"a.long.key.of_many_parts.and_words": ["x" * 60, "$y_2$"], "b": ["", "ñ"], "n": range(10)}


def draw(results: Results) -> dict[str, Figure]:
    return dict(figures.figures(results))


@pytest.fixture(scope="module")
def three_keys(make_results: MakeResults) -> Results:
    return make_results(THREE_KEYS, seeds=[0])


@pytest.fixture(scope="module")
def pngs(three_keys: Results) -> dict[str, bytes]:
    return figures.draw(three_keys)


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        ([], []),
        (["optimizer"], ["effects.png"]),
        (["optimizer", "activation"], ["effects.png", "heat_maps.png"]),
        (["optimizer", "activation", "dropout"], ["effects.png", "heat_maps.png", "parallel_coordinates.png"]),
    ],
)
def test_the_number_of_keys_decides_which_figures_there_are(
    make_results: MakeResults, keys: list[str], more: list[str]
) -> None:
    assert list(draw(make_results({key: THREE_KEYS[key] for key in keys}, seeds=range(2)))) == ALWAYS + more


@pytest.mark.parametrize(("by", "title"), [("log_loss", "log loss"), ("calibration_error", "calibration error (%)")])
def test_figures_show_the_measure_of_the_report(make_results: MakeResults, by: str, title: str) -> None:
    results = make_results(THREE_KEYS, by=by, seeds=range(2), images=2000)
    drawn = draw(results)
    assert list(drawn) == [*ALWAYS, "effects.png", "heat_maps.png", "parallel_coordinates.png", "confusion_pairs.png"]
    measured = [name for name in drawn if name not in ("curves.png", "confusion_pairs.png")]
    assert [name for name in measured if "Lower is better." not in text_of(drawn[name])] == []
    assert [name for name in measured if "accuracy" in text_of(drawn[name])] == []
    for name in ("leaderboard.png", "effects.png", "heat_maps.png"):
        assert title in text_of(drawn[name])
    assert "validation accuracy (%)" in text_of(drawn["curves.png"])
    best = results.arms[0]
    assert results.measure.show(best.val.mean) in text_of(drawn["leaderboard.png"])
    assert not [name for name, figure in drawn.items() if not is_on_its_page(figure)]


def test_the_best_of_a_loss_is_drawn_as_the_best(make_results: MakeResults) -> None:
    """It has the colour of the best, and ends on top."""
    results = make_results(THREE_KEYS, by="log_loss", seeds=range(2), images=2000)
    drawn = draw(results)
    [cells] = drawn["heat_maps.png"].axes[1].collections
    means = np.asarray(cells.get_array()).ravel()
    brightness = np.asarray(cells.cmap(cells.norm(means)))[:, :3].sum(axis=1)
    assert brightness.argmin() == means.argmin()
    lines = drawn["parallel_coordinates.png"].axes[1].collections[0]
    assert isinstance(lines, LineCollection)
    ends = [segment[-1, 1] for segment in lines.get_segments()][::-1]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] > 0.9 > 0.1 > ends[-1]


def test_an_arm_far_worse_in_loss_does_not_stretch_the_axes(make_results: MakeResults) -> None:
    """The log loss of an arm that guesses is 2.3; those of the others are near 0.06."""

    def guess(folder: Path) -> None:
        kept = predictions.read(folder / "2", files.sha256(folder / "2" / PREDICTIONS))
        assert kept
        bad = kept.val._replace(log_probability=np.full_like(kept.val.log_probability, -2.3))
        predictions.write(folder / "2", kept._replace(val=bad))
        edit_summary(folder / "2", {"files": {PREDICTIONS: files.sha256(folder / "2" / PREDICTIONS)}})

    grid = {"activation": ["relu", "tanh", "elu"], "dropout": [0, 0.5]}
    drawn = draw(make_results(grid, guess, by="log_loss", seeds=[0], images=2000))
    axes = drawn["leaderboard.png"].axes[1]
    assert axes.get_xlim()[1] < 0.2
    assert [text.get_text().strip() for text in axes.texts] == ["2.3008 ▸"]  # of float16
    assert "Above the scale: 1 arm." in text_of(drawn["effects.png"])
    assert "Cells above the scale take its highest colour." in text_of(drawn["heat_maps.png"])


def test_every_figure_has_a_caption() -> None:
    assert list(figures.CAPTIONS) == list(figures.FIGURES)


def test_figures_are_pngs_of_the_common_width(pngs: dict[str, bytes]) -> None:
    assert list(pngs) == [*ALWAYS, "effects.png", "heat_maps.png", "parallel_coordinates.png"]
    for png in pngs.values():
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(png[16:20]) == 1200


def test_equal_results_have_equal_bytes_and_a_dark_page_has_others(three_keys: Results, pngs: dict[str, bytes]) -> None:
    assert figures.draw(three_keys) == pngs
    dark = figures.draw(three_keys, dark=True)
    assert list(dark) == list(pngs)
    assert not [name for name, png in pngs.items() if dark[name] == png]


def test_figures_need_no_pyplot_and_leave_its_settings_alone(three_keys: Results) -> None:
    from matplotlib import pyplot

    settings = dict(mpl.rcParams)
    assert figures.draw(three_keys)
    assert dict(mpl.rcParams) == settings
    assert pyplot.get_fignums() == []
    modules = [Path(figure_page.__file__), *Path(figures.__file__).parent.glob("*.py")]
    assert len(modules) > 10
    assert not [path.name for path in modules if "import pyplot" in path.read_text() or ".pyplot" in path.read_text()]


def test_nothing_is_drawn_if_nothing_completed(make_results: MakeResults) -> None:
    results = make_results({"optimizer": ["adam", "sgd"]}, seeds=[0], spoiled={0: "failed", 1: "running"})
    assert figures.draw(results) == {}


def test_nothing_is_compared_with_an_arm_without_results(make_results: MakeResults) -> None:
    spoiled = {2: "failed", 3: "interrupted"}
    drawn = draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=range(2), spoiled=spoiled))
    assert list(drawn) == ALWAYS
    assert "sgd" not in text_of(drawn["curves.png"])
    assert "sgd (0 of 2; 1 diverged)" in text_of(drawn["leaderboard.png"])


def test_nothing_is_compared_if_every_arm_has_failed_runs(make_results: MakeResults) -> None:
    spoiled = {0: "failed", 3: "failed"}
    assert list(draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=range(2), spoiled=spoiled))) == ALWAYS


@pytest.mark.parametrize(("seeds", "bars"), [(2, 1), (3, 2)])  # of two seeds, one interval is as wide as the axis
def test_no_interval_leaves_0_to_100_percent(make_results: MakeResults, seeds: int, bars: int) -> None:
    drawn = draw(make_results({"optimizer": ["adam", "nadam"]}, seeds=range(seeds), spread=0.015))
    for name, along in (("leaderboard.png", 0), ("effects.png", 1)):
        ends = [end[along] for interval in intervals(drawn[name].axes[1]) for end in interval]
        assert len(ends) == 2 * bars, name
        assert all(0 <= end <= 100 for end in ends), name


def test_one_seed_has_no_interval_and_no_band(three_keys: Results) -> None:
    drawn = draw(three_keys)
    assert not [name for name, figure in drawn.items() for axes in figure.axes if intervals(axes)]
    assert not [name for name in ALWAYS if bands(drawn[name])]
    assert "no bands" in text_of(drawn["curves.png"])
    assert "No intervals: one run." in text_of(drawn["leaderboard.png"])


@pytest.mark.parametrize(
    "grid",
    [
        {"model.hidden_layers": ["[300,100]", "[512,512,512]"], "augmentation.rotation.degrees": [0, 5, 45]},
        ODD,
        {f"key_{i}.of.many": ["1_000", "no number"] for i in range(4)},
    ],
)
def test_nothing_is_cut_off(make_results: MakeResults, grid: Mapping[str, Sequence[Any]]) -> None:
    drawn = draw(make_results(grid, seeds=[0]))
    assert len(drawn) == 3 + (len(grid) > 1) + (len(grid) > 2)
    assert not [name for name, figure in drawn.items() if not is_on_its_page(figure)]


def test_a_dollar_in_a_value_starts_no_formula(make_results: MakeResults) -> None:
    drawn = draw(make_results(ODD, seeds=[0]))
    assert [name for name, figure in drawn.items() if "$y_2$" in text_of(figure)] == list(drawn)
    assert not [name for name, figure in drawn.items() if formulas(figure)]
