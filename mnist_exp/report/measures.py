"""The measures by which arms can be compared. Each is computed from what a run predicted for each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_exp.store.predictions import Predictions
from mnist_exp.system import errors
from mnist_exp.system.errors import ConfigError

OF_A_CLASS = "accuracy:"  # what the name of the accuracy on one class begins with
BINS = 15  # of the calibration error
MAX_NAMES = 20  # of classes in a message


class Measure(NamedTuple):
    """A figure of a run, computed from its predictions for a part of the data."""

    name: str  # as it is typed after --by
    title: str  # in a sentence
    is_fraction: bool  # shown in percent, its differences in percentage points, its intervals on the log odds
    sign: int  # 1: higher is better; -1: lower is better
    of: Callable[[Predictions], float]
    of_images: Callable[[Predictions], NDArray[Any]] | None  # the part of each image that counts, whose mean is `of`

    def show(self, value: float) -> str:
        """Return a value as a table shows it: 0.97864 -> "97.86" for a fraction, with four decimals otherwise."""
        return f"{self.scale * value:z.{self.decimals}f}"

    @property
    def decimals(self) -> int:
        """The decimals of a value where it is shown."""
        return 2 if self.is_fraction else 4

    @property
    def scale(self) -> int:
        """What a value is multiplied by where it is shown."""
        return 100 if self.is_fraction else 1

    @property
    def unit(self) -> str:
        """The unit of a value in a sentence, with the space before it."""
        return " %" if self.is_fraction else ""

    @property
    def difference_unit(self) -> str:
        """The unit of a difference in a sentence, with the space before it."""
        return " pp" if self.is_fraction else ""


def balanced_parts(found: Predictions) -> NDArray[np.float64]:
    """Return each image's part in balanced accuracy, (N,).

    Balanced accuracy is the mean, over the K classes that there are, of the accuracy on their images. As a mean over
    images, those of a class of n images have the weight N / (K n).
    """
    images = np.bincount(found.label)
    weight_of_class = len(found.label) / (np.count_nonzero(images) * np.maximum(images, 1))
    return np.where(found.right, weight_of_class[found.label], 0.0)


def log_loss_parts(found: Predictions) -> NDArray[np.float64]:
    """Return each image's part in the log loss, (N,): minus the logarithm of the true class's probability."""
    return -found.log_probability.astype(np.float64)


def calibration_error(found: Predictions) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart, on average over the images.

    Guo et al. 2017 (On Calibration of Modern Neural Networks, section 2): the images are put into BINS equal bins by
    their confidence, and each bin's gap between mean confidence and accuracy counts by its images.
    """
    confidence = found.confidence.astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)  # no float16 but 0 and 1 is an end of a bin
    gaps = np.bincount(bins, confidence - found.right, BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _mean(parts: Callable[[Predictions], NDArray[Any]], found: Predictions) -> float:
    values = parts(found)
    return float(np.mean(values)) if len(values) else float("nan")


def _of_images(
    name: str, title: str, is_fraction: bool, sign: int, parts: Callable[[Predictions], NDArray[Any]]
) -> Measure:
    """Return a measure that is a mean over images."""
    return Measure(name, title, is_fraction, sign, partial(_mean, parts), parts)


ACCURACY = _of_images("accuracy", "accuracy", True, 1, lambda found: found.right)
MEASURES = (
    ACCURACY,
    _of_images("balanced_accuracy", "balanced accuracy", True, 1, balanced_parts),
    _of_images("log_loss", "log loss", False, -1, log_loss_parts),
    Measure("calibration_error", "calibration error", True, -1, calibration_error, None),
)


def find(name: str, classes: Sequence[str] = ()) -> Measure:
    """Return the measure of a name.

    Args:
        name: As the user typed it: the name of one of MEASURES; or `accuracy:CLASS` for the accuracy on the images of
            one class, which is named, or numbered from 0.
        classes: The names of the classes; empty if they are unknown, and only a number will do.

    Raises:
        ConfigError: There is no such measure, or no such class.
    """
    if name.startswith(OF_A_CLASS):
        number = _number_of(name, classes)
        title = f"accuracy on class {classes[number] if classes else number}"
        return _of_images(name, title, True, 1, lambda found: found.right[found.label == number])
    measures = {measure.name: measure for measure in MEASURES}
    if name not in measures:
        raise ConfigError(f"--by {name}: no such measure, {errors.offer(name, [*measures, f'{OF_A_CLASS}CLASS'])}")
    return measures[name]


def _number_of(name: str, classes: Sequence[str]) -> int:
    """Return the number of the class that `accuracy:CLASS` names. A class may have the number of another as its name.

    Raises:
        ConfigError: There is no such class.
    """
    wanted = name.removeprefix(OF_A_CLASS)
    if wanted in classes:
        return classes.index(wanted)
    if wanted.isdecimal() and (not classes or int(wanted) < len(classes)):
        return int(wanted)
    if not classes:
        raise ConfigError(f"--by {name}: the runs did not record the names of their classes; type a number, from 0")
    more = f" and {len(classes) - MAX_NAMES:,} more" if len(classes) > MAX_NAMES else ""
    offer = errors.offer(wanted, classes[:MAX_NAMES])
    numbers = "" if list(classes) == [*map(str, range(len(classes)))] else f", or 0 to {len(classes) - 1}"
    raise ConfigError(f"--by {name}: no such class, {offer}{more}{numbers}")
