from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import MakeResults
from helpers.arms import arm, comparison
from helpers.arms import results as results_of
from helpers.figures import formulas, is_on_its_page, overlapping, text_of, texts
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mnist_exp.report.confusions import differences
from mnist_exp.report.figures import confusion_pairs
from mnist_exp.report.figures.page import LIGHT
from mnist_exp.report.results import Arm, Results
from mnist_exp.store.predictions import Predictions
from mnist_exp.store.run_folder import empty_summary

CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def with_predictions(label: str, skill: float, seeds: int, classes: Sequence[str]) -> Arm:
    """An arm that knows an image with the probability `skill`, and reads others as the next class or as any."""
    made, runs = arm(label, mean=skill, n=seeds), []
    labels = np.arange(400 * len(classes)) % len(classes)
    for run in made.runs:
        rng = np.random.default_rng([run.job.seed, round(100 * skill)])
        read = np.where(rng.random(len(labels)) < 0.7, labels + 1, rng.integers(0, len(classes), len(labels)))
        read = np.where(rng.random(len(labels)) < skill + 0.02 * np.sin(labels), labels, read % len(classes))
        nothing = np.zeros(len(labels), dtype=np.float16)
        predicted = Predictions(labels.astype(np.uint8), read.astype(np.uint8), nothing, nothing)
        summary: Any = empty_summary() | {"inference": {"classes": list(classes)}}
        runs.append(replace(run, predicted=predicted, summary=summary))
    return made._replace(runs=tuple(runs))


def made(*skills: float, seeds: int = 5, classes: Sequence[str] = CLOTHES) -> Results:
    arms = [with_predictions(f"arm_{i}", skill, seeds, classes) for i, skill in enumerate(skills)]
    return results_of(arms, [comparison()] * (len(arms) - 1))


@pytest.fixture(scope="module")
def results() -> Results:
    return made(0.97, 0.96, 0.9)


@pytest.fixture(scope="module")
def figure(results: Results) -> Figure:
    figure = confusion_pairs.draw(results)
    assert figure
    return figure


def bars(figure: Figure, panel: int) -> list[Rectangle]:
    """The bars of a panel; the page itself comes first."""
    return [patch for patch in figure.axes[1 + panel].patches if isinstance(patch, Rectangle)]


def test_the_leader_is_compared_with_each_of_the_next_arms(results: Results, figure: Figure) -> None:
    assert len(figure.axes) == 1 + 2 * 2
    assert [text for text in texts(figure) if "arm_" in text] == ["1  arm_0", "2  arm_1", "1  arm_0", "3  arm_2"]
    more = confusion_pairs.draw(made(0.97, 0.96, 0.95, 0.94, 0.93, 0.92))
    assert more
    assert len(more.axes) == 1 + 2 * confusion_pairs.OTHERS


@pytest.mark.parametrize("other", [1, 2])
def test_bars_are_the_differences_and_have_the_colour_of_the_better_arm(
    results: Results, figure: Figure, other: int
) -> None:
    found = differences(results.arms[0], results.arms[other], confusion_pairs.ROWS)
    assert found
    shown = texts(figure)
    for panel, rows in enumerate((found.classes, found.confusions)):
        drawn = bars(figure, 2 * (other - 1) + panel)
        assert [bar.get_width() for bar in drawn] == pytest.approx([row.better for row in rows])
        colors = [LIGHT.colors[0 if row.better > 0 else other] for row in rows]
        opacities = [1 if row.is_clear else confusion_pairs.PALE for row in rows]
        assert [bar.get_facecolor() for bar in drawn] == [
            (*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), opacity)
            for color, opacity in zip(colors, opacities, strict=True)
        ]
        for row in rows:
            numbers = [f"{value:.{1 if panel else 2}f}" for value in (row.first, row.second)]
            start = [
                i for i, text in enumerate(shown) if text == " → ".join(row.classes) and shown[i + 1 : i + 3] == numbers
            ]
            assert start, row.classes
    assert {row.is_clear for row in (*found.classes, *found.confusions)} == {True, other == 2}


def test_the_note_explains_a_confusion(results: Results, figure: Figure) -> None:
    found = differences(results.arms[0], results.arms[1], confusion_pairs.ROWS)
    assert found
    true, read = found.confusions[0].classes
    assert f"{true} → {read}: images of {true} that are read as {read}." in text_of(figure)
    assert "Shown" not in text_of(figure)


def test_nothing_touches_and_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_window_extent().width > 1]
    assert len(shown) > 100
    assert overlapping(shown) == []
    assert is_on_its_page(figure)


def test_of_many_classes_those_that_differ_most_are_shown() -> None:
    names = [f"a very long name of class {i}, $x_{i}$" for i in range(47)]
    figure = confusion_pairs.draw(made(0.9, 0.8, classes=names))
    assert figure
    assert "Shown: the 10 of 47 classes that differ most." in text_of(figure)
    assert len(bars(figure, 0)) == len(bars(figure, 1)) == 10
    assert formulas(figure) == []
    assert is_on_its_page(figure)
    figure.draw_without_rendering()
    assert overlapping(figure.axes[0].texts) == []


def test_one_run_per_arm_has_pale_bars_without_lines() -> None:
    figure = confusion_pairs.draw(made(0.97, 0.9, seeds=1))
    assert figure
    assert "One run per arm: no intervals." in text_of(figure)
    assert {bar.get_alpha() for bar in bars(figure, 0)} == {confusion_pairs.PALE}
    assert not figure.axes[1].collections


def test_arms_that_confuse_the_same_have_no_panel_of_confusions() -> None:
    figure = confusion_pairs.draw(made(0.97, 0.97))
    assert figure
    assert len(figure.axes) == 2
    assert is_on_its_page(figure)


def test_there_is_no_figure_without_predictions_or_without_a_second_arm(make_results: MakeResults) -> None:
    assert confusion_pairs.draw(make_results({"optimizer": ["adam", "sgd"]}, seeds=range(2))) is None
    assert confusion_pairs.draw(made(0.97)) is None
    other = with_predictions("other", 0.9, 5, CLOTHES[:9])
    assert confusion_pairs.draw(results_of([*made(0.97).arms, other], [comparison()])) is None
