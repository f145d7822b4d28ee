"""What several seeds show of an arm, and how surely. All of it speaks of other seeds, on the same images."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

# SciPy takes half a second to import, so the functions that need it do.

LEVEL = 0.95  # of every interval; a claim needs p < 1 - LEVEL
POWER = 0.8  # of `needed`; Cohen 1988's convention
FEWEST, MOST = 3, 10_000  # seeds an arm that `needed` may say; two leave one degree of freedom, where SciPy's nct fails
MOST_ODDS = 10  # between the ends of an interval of two values; one beyond says nearly nothing, and is left out
ROUNDING = 1e-9  # relative; accuracies are multiples of 1/images, so a spread below it is that of floating point


class Summary(NamedTuple):
    """The accuracies of one arm, with the interval of their mean.

    One value has no spread, and equal values have no interval: nan. Nor have two values where it says nearly nothing.
    """

    n: int
    mean: float
    sd: float  # sample standard deviation
    low: float
    high: float
    best: float
    worst: float


NOTHING = Summary(0, *[math.nan] * 6)  # of an arm without accuracies


class Comparison(NamedTuple):
    """Two arms' difference of means, over their shared seeds if there are two or more, else over all.

    Where the runs allow no claim, low, high and p are nan and needed is None: an arm of one seed, or no spread, where
    a t test would be certain of any difference.
    """

    difference: float  # positive where the first arm's values are higher
    low: float  # the interval is of this pair alone
    high: float
    p: float
    n: int  # shared seeds if paired, else those of the smaller arm
    paired: bool
    needed: int | None  # seeds an arm that would show this difference; None: can't be said, or more than MOST


class _Contrast(NamedTuple):
    """A difference of means and the t test of it; error, df and p are nan where there is no claim to make."""

    difference: float
    variances: list[float]  # of the differences if paired, else of each arm
    n: int
    error: float  # standard error of the difference
    df: float
    p: float


def summary(accuracies: Sequence[float]) -> Summary:
    """Mean, spread and range. Raises ValueError if there is no value, or one that is no fraction."""
    _check(accuracies)
    if not all(0 <= accuracy <= 1 for accuracy in accuracies):
        raise ValueError(f"accuracies must be fractions, 0 to 1: {list(accuracies)}")
    n, mean, sd = len(accuracies), fmean(accuracies), math.sqrt(_variance(accuracies))
    low, high = _interval(n, mean, sd) if sd > 0 else (math.nan, math.nan)
    return Summary(n, mean, sd, low, high, max(accuracies), min(accuracies))


def _interval(n: int, mean: float, sd: float) -> tuple[float, float]:
    """Student's t interval of a mean accuracy, on the scale of its log odds: never beyond 0 and 1.

    The mean is transformed, with its standard error by the delta method: svyciprop(method="xlogit") of R's package
    survey, and Stata's `proportion`. So the interval holds the mean that stands beside it, and an accuracy of exactly 0
    or 1 is no exception. In simulated arms of 2 to 10 seeds, at 90 to 99.5 %, it holds the truth in 94 % and more.
    There the plain t interval, or one of the values' own log odds or arcsines, falls to 92 % and below: accuracies near
    1 are skewed, and the mean of a transform is not the transform of the mean.
    """
    from scipy.special import expit, logit, stdtrit

    margin = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n) / (mean * (1 - mean))
    if n == 2 and 2 * margin > math.log(MOST_ODDS):
        return math.nan, math.nan
    return float(expit(logit(mean) - margin)), float(expit(logit(mean) + margin))


def compare(a: Mapping[int, float], b: Mapping[int, float], pairs: int = 1) -> Comparison:
    """Compare two arms, seed -> value, by a t test: Student 1908's for pairs, else Welch 1947's; p is two-sided.

    The same seed is the same order of images and the same augmentation, hence the pairs. `pairs` counts the
    comparisons of which this is one: `needed` allows for them, p does not. Raises ValueError where an arm has no value,
    or one that is not finite.
    """
    from scipy.special import stdtrit

    contrast = _contrast(a, b)
    difference = contrast.difference
    margin = float(stdtrit(contrast.df, (1 + LEVEL) / 2)) * contrast.error
    paired = len(contrast.variances) == 1
    needed = _needed(contrast, pairs)
    return Comparison(difference, difference - margin, difference + margin, contrast.p, contrast.n, paired, needed)


def leader_against_others(arms: Sequence[Mapping[int, float]]) -> list[Comparison]:
    """Compare the first of the ranked arms with each other one, p corrected by Holm's method.

    The data that chose the leader also test it, so any pair could have been among these comparisons: all k (k - 1) / 2
    pairs are corrected for, not the k - 1 that are returned.
    """
    pairs = list(combinations(arms, 2))  # the leader's come first
    corrected = holm([_contrast(a, b).p for a, b in pairs])
    return [
        compare(leader, other, len(pairs))._replace(p=p)
        for (leader, other), p in zip(pairs[: len(arms) - 1], corrected, strict=False)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Correct for several tests by Holm 1979's step-down method; nan is no test: it stays, and isn't counted."""
    order = sorted((index for index, value in enumerate(p) if not math.isnan(value)), key=p.__getitem__)
    corrected, highest = list(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p[index] * (len(order) - rank)))
        corrected[index] = highest
    return corrected


def sampling_spread(accuracy: float, images: int) -> float:
    """The binomial standard error of an accuracy measured on so many images: the part that no seed shows."""
    if not (0 <= accuracy <= 1 and images > 0):
        raise ValueError(f"no accuracy on a number of images: {accuracy} on {images}")
    return math.sqrt(accuracy * (1 - accuracy) / images)


def _contrast(a: Mapping[int, float], b: Mapping[int, float]) -> _Contrast:
    from scipy.special import stdtr

    _check(a.values())
    _check(b.values())
    shared = a.keys() & b.keys()
    paired = len(shared) > 1
    samples = [[a[seed] - b[seed] for seed in shared]] if paired else [list(a.values()), list(b.values())]
    difference = fmean(samples[0]) - (0.0 if paired else fmean(samples[1]))
    variances, counts = [_variance(sample) for sample in samples], [len(sample) for sample in samples]
    error, df = _error(variances, counts) if sum(variances) > 0 else (math.nan, math.nan)
    p = 2 * float(stdtr(df, -abs(difference) / error))
    return _Contrast(difference, variances, min(counts), error, df, p)


def _error(variances: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """The standard error of a difference, and its degrees of freedom: Student's for pairs, Welch 1947's for two arms.

    Arms of unequal size get the lower bound of Welch's, the smaller arm's n - 1. With his own, 10 % of comparisons of
    2 seeds with 10 find p < 0.05 where nothing differs.
    """
    parts = [variance / n for variance, n in zip(variances, counts, strict=True)]
    if len(set(counts)) > 1:
        return math.sqrt(sum(parts)), min(counts) - 1
    return math.sqrt(sum(parts)), sum(parts) ** 2 / sum(part**2 for part in parts) * (counts[0] - 1)


def _needed(contrast: _Contrast, pairs: int) -> int | None:
    """Seeds an arm that show this difference with POWER in the first, strictest of Holm's steps (Cohen 1988).

    It takes the difference and the spread seen for the true ones. The difference of a leader, the best by chance too,
    is on average too large, so this is a plan and not a promise.
    """
    from scipy.special import nctdtr, stdtrit

    if math.isnan(contrast.p):
        return None
    difference, variances = abs(contrast.difference), contrast.variances

    def power(n: int) -> float:
        error, df = _error(variances, [n] * len(variances))
        critical = float(stdtrit(df, 1 - (1 - LEVEL) / pairs / 2))
        shift = min(difference / error, 3 * critical)  # there the power is over 0.99; far beyond, nctdtr is nan
        return 1 - float(nctdtr(df, shift, critical))

    seeds = range(FEWEST, MOST + 1)
    index = bisect_left(seeds, POWER, key=power)
    return seeds[index] if index < len(seeds) else None


def _variance(values: Sequence[float]) -> float:
    """The sample variance; nan for one value, and 0 where only rounding tells the values apart."""
    if len(values) == 1:
        return math.nan
    if max(values) - min(values) <= ROUNDING * max(map(abs, values)):
        return 0.0
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _check(values: Collection[float]) -> None:
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"values must be finite, and one or more: {list(values)}")
