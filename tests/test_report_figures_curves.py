import math
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import bands, text_of
from helpers.sweeps import change_metrics
from matplotlib.figure import Figure

from mnist_exp.report.figures import curves
from mnist_exp.report.figures.page import CROSS, LIGHT
from mnist_exp.report.results import Results


@pytest.fixture(scope="module")
def results(make_results: MakeResults) -> Results:
    return make_results({"optimizer": ["adam", "sgd"]}, seeds=range(3))


@pytest.fixture(scope="module")
def figure(results: Results) -> Figure:
    figure = curves.draw(results)
    assert figure
    return figure


@pytest.fixture(scope="module")
def many(make_results: MakeResults) -> Figure:
    figure = curves.draw(make_results({"optimizer.lr": range(1, 12)}, seeds=range(2)))
    assert figure
    return figure


def test_lines_are_means_over_seeds(results: Results, figure: Figure) -> None:
    assert len(results.arms) == 2
    for axes, column, scale in zip(figure.axes[1:], ("val_accuracy", "val_loss"), (100, 1), strict=True):
        for line, arm in zip(axes.lines, results.arms, strict=True):
            means = [scale * fmean(values) for values in zip(*(run.curves[column] for run in arm.runs), strict=True)]
            assert np.asarray(line.get_xdata()).tolist() == [1, 2, 3, 4, 5]
            assert line.get_ydata() == pytest.approx(means)


def test_bands_go_from_the_lowest_to_the_highest_seed(results: Results, figure: Figure) -> None:
    assert bands(figure) == 4
    first = results.arms[0]
    ends = figure.axes[1].collections[0].get_datalim(figure.axes[1].transData)
    assert ends.y1 == pytest.approx(100 * max(max(run.curves["val_accuracy"]) for run in first.runs))
    assert "Bands: lowest to highest seed." in text_of(figure)


def test_the_legend_has_rank_and_label(results: Results, figure: Figure) -> None:
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == [f"{rank}  {arm.label}" for rank, arm in enumerate(results.arms, 1)]


def test_eight_arms_have_colours_and_the_others_are_gray(many: Figure) -> None:
    colors = [line.get_color() for line in many.axes[1].lines]
    assert colors == [LIGHT.faint] * 3 + list(LIGHT.colors)
    assert bands(many) == 16
    assert "the 8 leading arms" in text_of(many)
    assert "the other 3 arms" in text_of(many)


def test_arms_with_failed_runs_are_marked(make_results: MakeResults) -> None:
    figure = curves.draw(make_results({"activation": ["relu", "tanh"]}, seeds=range(2), spoiled={0: "failed"}))
    assert figure
    assert f"{CROSS}  relu (1 of 2; 1 diverged)" in text_of(figure)
    assert f"{CROSS}: some runs failed" in text_of(figure)


def test_values_that_are_not_finite_do_not_reach_the_axes(make_results: MakeResults) -> None:
    def change(folder: Path) -> None:
        change_metrics(folder, 0, lambda rows: rows[:3])
        change_metrics(
            folder, 2, lambda rows: [rows[0] | {"val_loss": "nan"}, rows[1] | {"val_loss": "inf"}, *rows[2:]]
        )
        (folder / "4" / "metrics.csv").unlink()

    figure = curves.draw(make_results({"activation": ["relu", "tanh", "elu"]}, change, seeds=range(2)))
    assert figure
    _, accuracy, loss = figure.axes
    assert sorted(len(np.asarray(line.get_xdata())) for line in accuracy.lines) == [3, 5]
    assert sum(map(math.isnan, np.concatenate([np.asarray(line.get_ydata()) for line in loss.lines]))) == 2
    assert all(map(math.isfinite, loss.get_ylim()))


def test_one_epoch_is_a_dot(make_results: MakeResults) -> None:
    figure = curves.draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=[0], epochs=1))
    assert figure
    assert [line.get_marker() for axes in figure.axes[1:] for line in axes.lines] == ["o"] * 4


def test_losses_of_different_functions_are_not_comparable(make_results: MakeResults, figure: Figure) -> None:
    other = curves.draw(make_results({"loss": ["cross_entropy", "focal"]}, seeds=[0]))
    assert other
    assert "Losses of different loss functions" in text_of(other)
    assert "Losses of different loss functions" not in text_of(figure)


def test_there_is_no_figure_without_metrics(make_results: MakeResults) -> None:
    def remove(folder: Path) -> None:
        for path in list(folder.glob("*/metrics.csv")):
            path.unlink()

    results = make_results({"optimizer": ["adam", "sgd"]}, remove, seeds=[0])
    assert len(results.arms) == 2
    assert curves.draw(results) is None


def test_gray_lines_are_bounded(make_results: MakeResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "GRAY", 2)
    figure = curves.draw(make_results({"optimizer.lr": [place / 1000 for place in range(1, 13)]}, seeds=[0]))
    assert figure
    assert "Gray: the next 2 arms; the axes fit the leading arms. Not shown: 2 arms." in text_of(figure)
    assert len(figure.axes[1].lines) == 8 + 2
