"""The differences between two arms are those of their confusion matrices."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.arms import arm
from numpy.typing import NDArray
from scipy.stats import ttest_rel
from sklearn.metrics import confusion_matrix

from mnist_exp.report.confusions import differences
from mnist_exp.report.results import Arm
from mnist_exp.store.predictions import Predictions
from mnist_exp.store.run_folder import empty_summary

CLASSES = 4
LABELS = np.arange(400) % CLASSES


def predicted(seed: int, skill: float, labels: NDArray[np.int64] = LABELS) -> Predictions:
    """What a model predicts that knows an image with the probability `skill`, and a 1 never."""
    rng = np.random.default_rng(seed)
    known = (rng.random(len(labels)) < skill) & (labels != 1)
    read = np.where(known, labels, rng.integers(0, CLASSES, len(labels)))
    nothing = np.zeros(len(labels), dtype=np.float16)
    return Predictions(labels.astype(np.uint8), read.astype(np.uint8), nothing, nothing)


def with_predictions(label: str, found: Sequence[Predictions | None], classes: Sequence[str] = "abcd") -> Arm:
    """An arm whose runs predicted this, one run per seed."""
    made = arm(label, n=len(found))
    summary: Any = empty_summary() | {"inference": {"classes": list(classes)}}
    runs = (replace(run, predicted=each, summary=summary) for run, each in zip(made.runs, found, strict=True))
    return made._replace(runs=tuple(runs))


def matrices(found: Sequence[Predictions]) -> NDArray[np.float64]:
    return np.array([confusion_matrix(each.label, each.predicted, labels=range(CLASSES)) for each in found], float)


@pytest.fixture(scope="module")
def ours() -> list[Predictions]:
    return [predicted(seed, 0.9) for seed in range(5)]


@pytest.fixture(scope="module")
def theirs() -> list[Predictions]:
    return [predicted(seed, 0.7) for seed in range(10, 15)]


def test_each_class_has_its_accuracy_and_difference(ours: list[Predictions], theirs: list[Predictions]) -> None:
    found = differences(with_predictions("x", ours), with_predictions("y", theirs), 10)
    assert found
    assert (found.of, {name for row in found.classes for name in row.classes}) == (4, {*"abcd"})
    assert [row.better for row in found.classes] == sorted((row.better for row in found.classes), reverse=True)
    first, second = matrices(ours), matrices(theirs)
    for row in found.classes:
        number = "abcd".index(row.classes[0])
        reached = [100 * each[:, number, number] / each[:, number].sum(axis=1) for each in (first, second)]
        assert (row.first, row.second) == pytest.approx((reached[0].mean(), reached[1].mean()))
        assert row.better == pytest.approx(reached[0].mean() - reached[1].mean())
        over_seeds = ttest_rel(*reached).confidence_interval(0.95)
        assert row.for_new_images
        assert row.low <= over_seeds.low + 1e-9
        assert row.high >= over_seeds.high - 1e-9
        assert row.low < row.better < row.high
        assert row.is_clear is (row.low > 0 or row.high < 0)
    assert [row for row in found.classes if row.is_clear and row.classes != ("b",)]


def test_confusions_are_counted_per_run_and_fewer_are_better(
    ours: list[Predictions], theirs: list[Predictions]
) -> None:
    found = differences(with_predictions("x", ours), with_predictions("y", theirs), 10)
    assert found
    first, second = matrices(ours).mean(axis=0), matrices(theirs).mean(axis=0)
    assert 8 < len(found.confusions) <= 10
    for row in found.confusions:
        true, read = ("abcd".index(name) for name in row.classes)
        assert true != read
        assert (row.first, row.second) == pytest.approx((first[true, read], second[true, read]))
        assert row.better == pytest.approx(second[true, read] - first[true, read])
    assert any(row.is_clear and row.better > 0 for row in found.confusions)


def test_the_largest_differences_are_shown(ours: list[Predictions], theirs: list[Predictions]) -> None:
    arms = with_predictions("x", ours), with_predictions("y", theirs)
    few, all_ = differences(*arms, most=2), differences(*arms, most=99)
    assert few
    assert all_
    for some, every in ((few.classes, all_.classes), (few.confusions, all_.confusions)):
        largest = sorted((abs(row.better) for row in every), reverse=True)[:2]
        assert sorted((abs(row.better) for row in some), reverse=True) == pytest.approx(largest)
    assert few.of == 4


def test_arms_are_compared_over_shared_seeds(ours: list[Predictions], theirs: list[Predictions]) -> None:
    """Of the second arm, the predictions of two runs are unknown."""
    fewer = with_predictions("y", [None, theirs[1], theirs[2], None, theirs[4]])
    found = differences(with_predictions("x", ours), fewer, 10)
    assert found
    first = matrices([ours[1], ours[2], ours[4]]).mean(axis=0)
    [row] = [row for row in found.classes if row.classes == ("a",)]
    assert row.first == pytest.approx(first[0, 0])


def test_one_run_per_arm_has_no_interval(ours: list[Predictions], theirs: list[Predictions]) -> None:
    found = differences(with_predictions("x", ours[:1]), with_predictions("y", theirs[:1]), 10)
    assert found
    assert all(math.isnan(row.low) and not row.is_clear for row in (*found.classes, *found.confusions))


def test_a_class_that_a_run_has_no_image_of_is_left_out(ours: list[Predictions]) -> None:
    other = [ours[0], predicted(7, 0.8, LABELS[LABELS != 2])]
    found = differences(with_predictions("x", ours[:2]), with_predictions("y", other), 10)
    assert found
    assert {name for row in found.classes for name in row.classes} == {*"abd"}
    assert not [row for row in found.confusions if row.classes[0] == "c"]
    assert found.of == 3


def test_classes_without_names_have_numbers(ours: list[Predictions], theirs: list[Predictions]) -> None:
    found = differences(with_predictions("x", ours, ""), with_predictions("y", theirs, ""), 10)
    assert found
    assert {name for row in found.classes for name in row.classes} == {*"0123"}


def test_equal_arms_have_no_confusions_that_differ(ours: list[Predictions]) -> None:
    found = differences(with_predictions("x", ours), with_predictions("y", ours), 10)
    assert found
    assert found.confusions == []
    assert {row.better for row in found.classes} == {0}


def test_arms_of_other_classes_or_without_predictions_are_not_compared(ours: list[Predictions]) -> None:
    known = with_predictions("x", ours)
    assert differences(known, with_predictions("y", ours, "abce"), 10) is None
    assert differences(known, with_predictions("y", [None] * 5), 10) is None
