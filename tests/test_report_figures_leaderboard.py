import itertools

import numpy as np
import pytest
from conftest import MakeResults
from helpers.figures import intervals, is_on_its_page, overlapping, points, text_of, texts
from helpers.sweeps import set_accuracy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from mnist_exp.report.figures import leaderboard
from mnist_exp.report.figures.page import CROSS
from mnist_exp.report.results import Results


def marks(axes: Axes, label: str) -> list[list[float]]:
    """The places of the marks with a label in the legend."""
    [line] = [line for line in axes.lines if line.get_label() == label]
    return points(line)


@pytest.fixture(scope="module")
def results(make_results: MakeResults) -> Results:
    return make_results({"optimizer": ["adam", "sgd", "nadam"]})


@pytest.fixture(scope="module")
def figure(results: Results) -> Figure:
    return leaderboard.draw(results)


def test_each_arm_has_a_row_with_its_rank_label_and_mean(results: Results, figure: Figure) -> None:
    shown = texts(figure)
    for rank, arm in enumerate(results.arms, 1):
        start = shown.index(arm.label)
        assert shown[start - 1 : start + 2] == [str(rank), arm.label, f"{100 * arm.val.mean:.2f}"]
    assert "3 arms by mean validation accuracy" in shown
    assert "Ranked by validation alone" in text_of(figure)


def test_the_marks_are_means_runs_and_intervals(results: Results, figure: Figure) -> None:
    axes = figure.axes[1]
    assert marks(axes, "validation, mean") == [[100 * arm.val.mean, row] for row, arm in enumerate(results.arms)]
    tests = [x for x, _ in marks(axes, "test, mean")]
    assert tests == [100 * arm.test.mean for arm in results.arms]
    runs = [x for x, _ in marks(axes, "validation, single runs")]
    assert runs == pytest.approx([100 * run.val_accuracy for a in results.arms for run in a.runs])
    ends = [[[100 * arm.val.low, row], [100 * arm.val.high, row]] for row, arm in enumerate(results.arms)]
    assert np.array(intervals(axes)) == pytest.approx(np.array(ends))
    assert axes.yaxis_inverted()


def test_the_legend_explains_each_mark(figure: Figure) -> None:
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "validation, mean",
        "validation, single runs",
        "test, mean",
    ]


def test_arms_that_lack_seeds_say_how_many_they_have(make_results: MakeResults) -> None:
    grid = {"optimizer": ["adam", "sgd"], "activation": ["relu", "tanh"]}
    spoiled = {1: "interrupted", 3: "failed", 4: "failed", 5: "failed"}
    figure = leaderboard.draw(make_results(grid, seeds=range(2), spoiled=spoiled))
    shown = texts(figure)
    labels = ["adam relu (1 of 2)", "sgd tanh", "adam tanh (1 of 2; 1 diverged)", "sgd relu (0 of 2; 2 diverged)"]
    ranks = [shown[shown.index(label) - 1] for label in labels]
    assert sorted(ranks[:2]) == ["1", "2"]
    assert ranks[2:] == [CROSS, CROSS]
    assert f"{CROSS}: some runs failed" in text_of(figure)
    assert len(intervals(figure.axes[1])) == 1
    assert "No bar: one run" in text_of(figure)


def test_there_are_thirty_arms_at_most(make_results: MakeResults) -> None:
    figure = leaderboard.draw(make_results({"optimizer.lr": range(1, 32)}, seeds=[0]))
    assert len(marks(figure.axes[1], "validation, mean")) == 30
    assert "The best 30 of 31 arms" in text_of(figure)


def test_an_arm_far_below_the_others_does_not_stretch_the_axis(make_results: MakeResults) -> None:
    grid = {"activation": ["relu", "tanh", "elu"]}
    axes = leaderboard.draw(make_results(grid, lambda folder: set_accuracy(folder, 2, 0.1135), seeds=[0])).axes[1]
    assert axes.get_xlim()[0] > 90
    assert [text.get_text().strip() for text in axes.texts] == ["◂ 11.35"]


def test_texts_do_not_touch(figure: Figure) -> None:
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_window_extent().width > 1]
    assert len(shown) > 9
    assert overlapping(shown) == []


def test_a_long_label_has_two_lines(make_results: MakeResults) -> None:
    values = {"model.hidden_layers": ["[512,512,512]", "[1024,1024]"], "optimizer.weight_decay": [0.01, 0.0001]}
    more = {"augmentation.rotation.degrees": [0, 45], "schedule.warmup_fraction_of_all_steps": [0.1, 0.2]}
    results = make_results(values | more, seeds=[0])
    figure = leaderboard.draw(results)
    lines = [text for text in figure.axes[0].texts if "=" in text.get_text()]
    pairs = {"".join(text.get_text() for text in pair) for pair in itertools.pairwise(lines)}
    whole = {text.get_text() for text in lines}
    assert {arm.label for arm in results.arms} <= pairs | whole
    assert len(lines) > len(results.arms)
    figure.draw_without_rendering()
    assert overlapping(lines) == []
    assert is_on_its_page(figure)
    assert "…" not in text_of(figure)


def test_a_label_that_is_cut_is_said_to_be(make_results: MakeResults) -> None:
    figure = leaderboard.draw(make_results({"model.name": ["x" * 200, "mlp"]}, seeds=range(2), spoiled={0: "killed"}))
    [label] = [text.get_text() for text in figure.axes[0].texts if "xxx" in text.get_text()]
    assert label.endswith("…")
    assert " (1 of 2)" in texts(figure)
    assert "…: the report's table has the full label." in text_of(figure)
