"""The measures by which arms can be compared. Each is computed from what a run predicted for each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_exp.store.predictions import Predictions


class Measure(NamedTuple):
    """A figure of a run, computed from its predictions for a part of the data."""

    name: str  # as it is typed after --by
    title: str  # in a sentence
    is_fraction: bool  # shown in percent, its differences in percentage points, its intervals on the log odds
    sign: int  # 1: higher is better; -1: lower is better
    of: Callable[[Predictions], float]
    of_images: Callable[[Predictions], NDArray[Any]] | None  # the part of each image, (N,), whose mean is `of`

    def show(self, value: float) -> str:
        """Return a value as a table shows it: 0.97864 -> "97.86" for a fraction, with four decimals otherwise."""
        return f"{100 * value:z.2f}" if self.is_fraction else f"{value:z.4f}"

    @property
    def unit(self) -> str:
        """The unit of a value in a sentence, with the space before it."""
        return " %" if self.is_fraction else ""

    @property
    def difference_unit(self) -> str:
        """The unit of a difference in a sentence, with the space before it."""
        return " pp" if self.is_fraction else ""


ACCURACY = Measure(
    "accuracy", "accuracy", True, 1, lambda found: float(np.mean(found.right)), lambda found: found.right
)
