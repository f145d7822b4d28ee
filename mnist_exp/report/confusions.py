"""How two arms differ on single classes, and in what they confuse with what."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_exp.report import results, stats
from mnist_exp.report.measures import ACCURACY
from mnist_exp.report.results import Arm
from mnist_exp.store.ledger import Seeds
from mnist_exp.store.predictions import Predictions


class Row(NamedTuple):
    """What two arms reach on one class (in percent), or how often they confuse it with another (images per run)."""

    classes: tuple[str, ...]  # the class, and the one that it is read as
    first: float  # mean over the runs
    second: float
    better: float  # by how much the first arm is better
    low: float  # of the 95 % interval of `better`; nan if the runs allow none
    high: float
    for_new_images: bool  # whether the interval is for new images, not for new seeds alone

    @property
    def is_clear(self) -> bool:
        """Whether there is an interval, and it does not contain 0."""
        return self.low > 0 or self.high < 0


class Differences(NamedTuple):
    """How one arm differs from another on the validation images."""

    classes: list[Row]  # those that differ most, from the one that the first arm reads best in comparison
    confusions: list[Row]  # the same, of one class with another; those that have the same number are left out
    of: int  # the number of classes that there are


class _Side(NamedTuple):
    """One of the two arms."""

    sample: stats.Sample
    runs: dict[Seeds, Predictions]  # for the validation images

    def confusions(self, size: int) -> NDArray[np.float64]:
        """Return how many images of each class a run reads as each other, on average, (true classes, read classes)."""
        counts = [
            np.bincount(each.label.astype(np.int64) * size + each.predicted, minlength=size**2)
            for each in self.runs.values()
        ]
        means: NDArray[np.float64] = np.mean(counts, axis=0)
        return means.reshape(size, size)

    def share(self, true: int, read: int) -> stats.Sample:
        """Return the share of the images of a class that each run reads as another, negative; or as what they are."""
        sign = 1 if true == read else -1
        images = {seeds: sign * (each.predicted[each.label == true] == read) for seeds, each in self.runs.items()}
        return self.sample._replace(values={seeds: float(each.mean()) for seeds, each in images.items()}, images=images)


def differences(a: Arm, b: Arm, most: int) -> Differences | None:
    """Compare two arms over the seeds that they share, if these are two or more, else over all.

    Args:
        a: An arm with a completed run.
        b: Another one.
        most: The number of classes, and of confusions, that are returned at most.

    Returns:
        The differences; None if the predictions of an arm are unknown, or if the arms know different classes.
    """
    names, known = _names(a), [_runs(arm) for arm in (a, b)]
    if not all(known) or names != _names(b):
        return None
    shared = known[0].keys() & known[1].keys()
    sides = [
        _Side(
            results.sample(arm, ACCURACY), {seeds: runs[seeds] for seeds in runs if seeds in shared or len(shared) < 2}
        )
        for arm, runs in zip((a, b), known, strict=True)
    ]
    size = 1 + max(int(max(each.label.max(), each.predicted.max())) for side in sides for each in side.runs.values())
    names = [*names, *map(str, range(len(names), size))]
    counts = [side.confusions(size) for side in sides]
    images = [count.sum(axis=1) for count in counts]
    present = [
        each for each in range(size) if all((run.label == each).any() for side in sides for run in side.runs.values())
    ]

    def row(true: int, read: int, scale: float) -> Row:
        """Return how the arms differ in the images of a class that are read as another, or as what they are."""
        first, second = (side.share(true, read) for side in sides)
        test = stats.compare(first, second)
        return Row(
            classes=(names[true],) if true == read else (names[true], names[read]),
            first=scale * abs(fmean(first.values.values())),
            second=scale * abs(fmean(second.values.values())),
            better=scale * test.difference,
            low=scale * test.claim.low,
            high=scale * test.claim.high,
            for_new_images=test.images is not None,
        )

    apart = counts[0] / np.maximum(images[0], 1)[:, None] - counts[1] / np.maximum(images[1], 1)[:, None]
    classes = sorted(present, key=lambda true: -abs(apart[true, true]))[:most]
    apart = np.abs(apart) * images[0][:, None]
    np.fill_diagonal(apart, 0)
    confusions = [divmod(int(place), size) for place in np.argsort(-apart, axis=None, kind="stable")[:most]]
    of_classes = [row(true, true, 100) for true in classes]
    of_confusions = [
        row(true, read, images[0][true]) for true, read in confusions if apart[true, read] and true in present
    ]
    return Differences(
        classes=sorted(of_classes, key=lambda each: -each.better),
        confusions=sorted(of_confusions, key=lambda each: -each.better),
        of=len(present),
    )


def _runs(arm: Arm) -> dict[Seeds, Predictions]:
    return {run.job.seeds: run.predicted for run in arm.runs if run.predicted}


def _names(arm: Arm) -> Sequence[str]:
    facts = arm.runs[0].summary["inference"]
    return facts["classes"] if facts else ()
