"""Each measure is what scikit-learn or a paper's formula gives for the same predictions."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.calibration import calibration_curve

from mnist_exp.report import measures
from mnist_exp.report.measures import ACCURACY, BINS, MEASURES
from mnist_exp.store.predictions import Predictions
from mnist_exp.system.errors import ConfigError

CLASSES = 6
NAMES = ["cat", "dog", "5", "ankle boot", "a:b", "cow"]
BY_NAME = {measure.name: measure for measure in MEASURES}


@pytest.fixture(scope="module")
def probabilities() -> NDArray[np.float64]:
    """Of 800 images, (800, 6); too sure of themselves."""
    logits = 3 * torch.randn(800, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[:, 4] = -30.0  # it is predicted for none either
    return torch.softmax(logits + 4 * torch.nn.functional.one_hot(labels(), CLASSES), dim=1).numpy()


def labels() -> torch.Tensor:
    """Classes of different sizes; class 4 has no image."""
    return torch.tensor([0] * 400 + [1] * 200 + [2] * 150 + [3] * 40 + [5] * 10)


@pytest.fixture(scope="module")
def found(probabilities: NDArray[np.float64]) -> Predictions:
    true = labels().numpy()
    return Predictions(
        true.astype(np.uint8),
        probabilities.argmax(axis=1).astype(np.uint8),
        np.log(probabilities[np.arange(800), true]).astype(np.float16),
        probabilities.max(axis=1).astype(np.float16),
    )


def test_the_measures_are_those_of_scikit_learn(found: Predictions, probabilities: NDArray[np.float64]) -> None:
    label, predicted = found.label, found.predicted
    assert ACCURACY.of(found) == pytest.approx(metrics.accuracy_score(label, predicted), rel=1e-12)
    balanced = metrics.balanced_accuracy_score(label, predicted)
    assert BY_NAME["balanced_accuracy"].of(found) == pytest.approx(balanced, rel=1e-12)
    log_loss = metrics.log_loss(label, probabilities, labels=range(CLASSES))
    assert BY_NAME["log_loss"].of(found) == pytest.approx(log_loss, rel=2e-4)  # float16 holds three digits
    assert balanced != pytest.approx(ACCURACY.of(found), abs=0.01)


def test_the_accuracy_on_a_class_is_its_recall(found: Predictions) -> None:
    recalls = metrics.recall_score(found.label, found.predicted, labels=range(CLASSES), average=None, zero_division=0)
    for number in (0, 1, 2, 3, 5):
        measure = measures.find(f"accuracy:{number}")
        assert measure.of(found) == pytest.approx(recalls[number], rel=1e-12)
        assert measure.of_images
        assert len(measure.of_images(found)) == (found.label == number).sum()
    assert math.isnan(measures.find("accuracy:4").of(found))


def test_calibration_error_is_that_of_scikit_learn_s_curve(found: Predictions) -> None:
    confidence = found.confidence.astype(float)
    accuracy, mean_confidence = calibration_curve(found.right, confidence, n_bins=BINS)
    counts = np.histogram(confidence, np.linspace(0, 1, BINS + 1))[0]
    expected = float(counts[counts > 0] @ np.abs(accuracy - mean_confidence) / 800)
    assert BY_NAME["calibration_error"].of(found) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.02


def test_calibration_error_by_hand() -> None:
    """Four bins of 15: (0.53, 0.6] and (0.87, 0.93] with one image, (0.93, 1] with three, (0, 0.07] with two."""
    confidence = np.array([0.5625, 0.9, 0.9375, 1.0, 1.0, 0.0, 0.0625], dtype=np.float16)
    right = [1, 0, 1, 1, 0, 0, 0]
    label = np.zeros(7, dtype=np.uint8)
    predicted = (1 - np.array(right)).astype(np.uint8)
    gaps = [1 - 0.5625, float(confidence[1]), abs(0.9375 + 1 + 1 - 2), 0.0625]
    found = Predictions(label, predicted, np.zeros(7, dtype=np.float16), confidence)
    assert BY_NAME["calibration_error"].of(found) == pytest.approx(sum(gaps) / 7, rel=1e-12)


@pytest.mark.parametrize("name", [*BY_NAME, "accuracy:1"])
def test_a_measure_is_the_mean_of_the_parts_of_its_images(name: str, found: Predictions) -> None:
    measure = measures.find(name)
    if name == "calibration_error":
        assert measure.of_images is None
    else:
        assert measure.of_images
        assert float(np.mean(measure.of_images(found))) == pytest.approx(measure.of(found), rel=1e-12)


def test_lower_is_better_for_a_loss_and_an_error() -> None:
    assert {name: measure.sign for name, measure in BY_NAME.items()} == {
        "accuracy": 1,
        "balanced_accuracy": 1,
        "log_loss": -1,
        "calibration_error": -1,
    }


def test_values_are_shown_with_their_unit() -> None:
    accuracy, loss = ACCURACY, BY_NAME["log_loss"]
    assert (accuracy.show(0.97864), accuracy.unit, accuracy.difference_unit) == ("97.86", " %", " pp")
    assert (loss.show(0.06114), loss.unit, loss.difference_unit) == ("0.0611", "", "")
    assert (accuracy.scale, loss.scale) == (100, 1)


@pytest.mark.parametrize(
    ("typed", "number", "title"),
    [
        ("accuracy:dog", 1, "accuracy on class dog"),
        ("accuracy:ankle boot", 3, "accuracy on class ankle boot"),
        ("accuracy:a:b", 4, "accuracy on class a:b"),
        ("accuracy:0", 0, "accuracy on class cat"),
        ("accuracy:5", 2, "accuracy on class 5"),  # its name, not its number
    ],
)
def test_a_class_has_a_name_and_a_number(typed: str, number: int, title: str) -> None:
    measure = measures.find(typed, NAMES)
    assert (measure.name, measure.title) == (typed, title)
    each = np.arange(CLASSES, dtype=np.uint8)
    nothing = np.zeros(6, dtype=np.float16)
    only = Predictions(each, np.where(each == number, each, 99).astype(np.uint8), nothing, nothing)
    assert measure.of(only) == 1


def test_a_class_whose_name_is_unknown_has_a_number() -> None:
    assert measures.find("accuracy:7").title == "accuracy on class 7"


@pytest.mark.parametrize(
    ("typed", "classes", "message"),
    [
        ("loss", (), f"no such measure, did you mean log_loss? Choose from {', '.join(BY_NAME)}, accuracy:CLASS"),
        ("accuracy:dgo", NAMES, f"no such class, did you mean dog? Choose from {', '.join(NAMES)}, or 0 to 5"),
        ("accuracy:6", NAMES, f"no such class, choose from {', '.join(NAMES)}, or 0 to 5"),
        ("accuracy:", NAMES, f"no such class, choose from {', '.join(NAMES)}, or 0 to 5"),
        ("accuracy:x", [*"01"], "no such class, choose from 0, 1"),
        ("accuracy:dog", (), "the runs did not record the names of their classes; type a number, from 0"),
    ],
)
def test_what_is_no_measure_is_refused_in_one_line(typed: str, classes: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        measures.find(typed, classes)
    assert str(error.value) == f"--by {typed}: {message}"


def test_a_message_names_twenty_classes_at_most() -> None:
    with pytest.raises(ConfigError, match=r"class_19 and 80 more, or 0 to 99$"):
        measures.find("accuracy:x", [f"class_{number}" for number in range(100)])
