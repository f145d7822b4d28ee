"""Statistics over seeds: intervals of means, and tests of differences.

All of them generalize to other seeds on the same images, not to other images.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mnist_exp.store.ledger import Seeds

# SciPy takes half a second to import, so the functions that need it import it.

LEVEL = 0.95  # of every interval; a claim needs p < 1 - LEVEL
POWER = 0.8  # of `Comparison.needed`; the convention of Cohen 1988
# The range of `Comparison.needed`. Two seeds leave one degree of freedom, for which SciPy's nctdtr fails.
MIN_SEEDS, MAX_SEEDS = 3, 10_000
MAX_ODDS_RATIO = 10  # between the ends of an interval of two values; a wider one says almost nothing and is left out
ROUNDING = 1e-9  # relative; accuracies are multiples of 1/images, so a smaller spread is floating-point error


class Summary(NamedTuple):
    """The accuracies of one arm, and the interval of their mean.

    One value has no standard deviation, and equal values have no interval: these are nan. The interval of two values is
    nan too if it would say almost nothing.
    """

    n: int
    mean: float
    sd: float  # sample standard deviation
    low: float  # of the interval
    high: float
    best: float
    worst: float


NOTHING = Summary(0, *[math.nan] * 6)  # the summary of an arm without completed runs


class Sample(NamedTuple):
    """The runs of one arm, as statistics see them."""

    values: Mapping[Seeds, float]  # what each run reached; higher is better
    images: Mapping[Seeds, NDArray[Any]] = {}  # each validation image's part in it, (N,), of mean `value`; where known
    image_source: str = ""  # equal for arms whose runs of the same data.seed were validated on the same images
    val_per_train: float | None = None  # validation images per training image, if known


class Estimate(NamedTuple):
    """An interval of a difference, and the p-value of there being none; nan if the runs allow no claim."""

    low: float
    high: float
    p: float


class Share(NamedTuple):
    """An estimated probability and its interval."""

    value: float
    low: float
    high: float


class McNemar(NamedTuple):
    """The images that one of two runs got right and the other wrong, and McNemar's exact test of 1947."""

    first: int  # images that only the first run got right
    second: int
    p: float


class Comparison(NamedTuple):
    """The difference between the means of two arms, over their shared seeds if there are two or more, else over all.

    `claim` holds for new seeds and for new images of the same source, if it is known what the runs predicted for each
    image, and `on_these_images` for new seeds alone. Where it is unknown, both are the same, and `images` is None.

    If the runs allow no claim, the estimates are nan and `needed` is None. This is so if an arm has one seed, or if
    there is no spread, where a t test would be certain of any difference.
    """

    difference: float  # positive if the first arm is better
    claim: Estimate  # the interval is for this pair alone; p is corrected by `leader_against_others`
    on_these_images: Estimate  # the same, for other seeds on the same images
    superiority: Share  # the probability that the first arm is better with a new seed; ties count half
    n: int  # the shared seeds (data.seeds, if there are several) if paired, else those of the smaller arm
    splits: int  # the shared data.seeds; if several, both estimates are over data.seeds, and hold for new images
    paired: bool
    images: int | None  # validation images that `claim` rests on; None if it is not for new images
    needed: int | None  # seeds per arm for `claim` to detect this difference; None if unknown or no number suffices
    needed_images: int | None  # validation images that would do so, with the seeds there are; None as above
    mcnemar: McNemar | None  # of arms of one run each, on the same images; else None


class _Contrast(NamedTuple):
    """A difference of means and its t test; `error`, `df` and `p` are nan if the runs allow no claim."""

    difference: float
    variances: list[float]  # of the differences if paired, else of each arm
    n: int
    error: float  # standard error of the difference
    df: float  # degrees of freedom
    p: float


def summary(values: Sequence[float], is_fraction: bool = True) -> Summary:
    """Summarize what the runs of one arm reached.

    Args:
        values: One per seed.
        is_fraction: Whether they are fractions, as accuracies are; else their interval is Student's.

    Raises:
        ValueError: There is no value, or a value is not a fraction.
    """
    _check(values)
    if is_fraction and not all(0 <= value <= 1 for value in values):
        raise ValueError(f"accuracies must be fractions from 0 to 1: {list(values)}")
    n, mean, sd = len(values), fmean(values), math.sqrt(_variance(values))
    interval = _interval if is_fraction else _plain_interval
    low, high = interval(n, mean, sd) if sd > 0 else (math.nan, math.nan)
    return Summary(n, mean, sd, low, high, max(values), min(values))


def _plain_interval(n: int, mean: float, sd: float) -> tuple[float, float]:
    """Return Student's t interval of a mean."""
    from scipy.special import stdtrit

    margin = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)
    return mean - margin, mean + margin


def _interval(n: int, mean: float, sd: float) -> tuple[float, float]:
    """Return Student's t interval of a mean accuracy on the scale of its log odds, which never leaves 0 to 1.

    The method transforms the mean, and its standard error by the delta method, as svyciprop(method="xlogit") of R's
    package survey and Stata's `proportion` do. The interval therefore contains the mean, and an accuracy of exactly 0
    or 1 needs no special case. In simulated arms of 2 to 10 seeds at 90 to 99.5 % accuracy it covers the truth in at
    least 94 % of cases. The plain t interval, and intervals of the log odds or arcsines of the values, fall to 92 % and
    below, because accuracies near 1 are skewed and the mean of a transform is not the transform of the mean.
    """
    from scipy.special import expit, logit, stdtrit

    margin = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n) / (mean * (1 - mean))
    if n == 2 and 2 * margin > math.log(MAX_ODDS_RATIO):
        return math.nan, math.nan
    return float(expit(logit(mean) - margin)), float(expit(logit(mean) + margin))


def compare(a: Sample, b: Sample, pairs: int = 1, anytime: bool = False) -> Comparison:
    """Compare two arms by a two-sided t test: Student 1908 for pairs, else Welch 1947.

    Runs are paired by seed, because equal seeds mean the same order of images and the same augmentation.

    Args:
        a: The first arm, a value per seed.
        b: The second arm.
        pairs: The number of comparisons of which this is one. `needed` allows for them, `p` does not.
        anytime: Whether the runs were looked at before it was decided how many there would be.

    Raises:
        ValueError: An arm has no value, or a value is not finite.
    """
    from scipy.special import stdtrit

    contrast = _contrast(a.values, b.values)
    difference = contrast.difference
    margin = float(stdtrit(contrast.df, (1 + LEVEL) / 2)) * contrast.error
    paired = len(contrast.variances) == 1
    needed = _needed(contrast, pairs)
    seeds = Estimate(difference - margin, difference + margin, contrast.p)
    nothing = Share(math.nan, math.nan, math.nan)
    return Comparison(difference, seeds, seeds, nothing, contrast.n, 1, paired, None, needed, None, None)


def leader_against_others(arms: Sequence[Sample], anytime: bool = False) -> list[Comparison]:
    """Compare the leader with each other arm, with p corrected by Holm's method.

    The data that chose the leader also test it, so any pair could have been among these comparisons. The correction is
    therefore for all k (k - 1) / 2 pairs, not for the k - 1 that are returned.

    Args:
        arms: The arms, the leader first.
        anytime: Whether the runs were looked at before it was decided how many there would be.
    """
    pairs = list(combinations(arms, 2))  # those of the leader come first
    corrected = holm([_contrast(a.values, b.values).p for a, b in pairs])
    found = []
    for (leader, other), p in zip(pairs[: len(arms) - 1], corrected, strict=False):
        pair = compare(leader, other, len(pairs), anytime)
        found.append(pair._replace(claim=pair.claim._replace(p=p), on_these_images=pair.on_these_images._replace(p=p)))
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests by the step-down method of Holm 1979. A nan is not a test and stays nan."""
    order = sorted((index for index, value in enumerate(p) if not math.isnan(value)), key=p.__getitem__)
    corrected, highest = list(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p[index] * (len(order) - rank)))
        corrected[index] = highest
    return corrected


def sampling_spread(accuracy: float, images: int) -> float:
    """Return the binomial standard error of an accuracy: the uncertainty from the choice of images, not of seeds.

    Raises:
        ValueError: The accuracy is not a fraction, or there are no images.
    """
    if not (0 <= accuracy <= 1 and images > 0):
        raise ValueError(f"must be an accuracy from 0 to 1 on at least one image: {accuracy} on {images}")
    return math.sqrt(accuracy * (1 - accuracy) / images)


def _contrast(a: Mapping[Seeds, float], b: Mapping[Seeds, float]) -> _Contrast:
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
    """Return the standard error of a difference and its degrees of freedom: Student for pairs, Welch 1947 for two arms.

    Arms of unequal size get the lower bound of Welch's degrees of freedom, n - 1 of the smaller arm. With Welch's own,
    10 % of the comparisons of 2 seeds with 10 find p < 0.05 although nothing differs.
    """
    parts = [variance / n for variance, n in zip(variances, counts, strict=True)]
    if len(set(counts)) > 1:
        return math.sqrt(sum(parts)), min(counts) - 1
    return math.sqrt(sum(parts)), sum(parts) ** 2 / sum(part**2 for part in parts) * (counts[0] - 1)


def _needed(contrast: _Contrast, pairs: int) -> int | None:
    """Return the seeds per arm that detect this difference with POWER in the first and strictest step of Holm.

    The method is that of Cohen 1988; the observed difference and spread stand for the true ones. The difference of a
    leader is too large on average, because the leader is also the best by chance, so the number is a plan and not a
    promise.
    """
    from scipy.special import nctdtr, stdtrit

    if math.isnan(contrast.p):
        return None
    difference, variances = abs(contrast.difference), contrast.variances

    def power(n: int) -> float:
        error, df = _error(variances, [n] * len(variances))
        critical = float(stdtrit(df, 1 - (1 - LEVEL) / pairs / 2))
        shift = min(difference / error, 3 * critical)  # there the power exceeds 0.99; far beyond it nctdtr returns nan
        return 1 - float(nctdtr(df, shift, critical))

    seeds = range(MIN_SEEDS, MAX_SEEDS + 1)
    index = bisect_left(seeds, POWER, key=power)
    return seeds[index] if index < len(seeds) else None


def _variance(values: Sequence[float]) -> float:
    """Return the sample variance; nan for one value, and 0 if the values differ only by rounding."""
    if len(values) == 1:
        return math.nan
    if max(values) - min(values) <= ROUNDING * max(map(abs, values)):
        return 0.0
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _check(values: Collection[float]) -> None:
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"must be one or more finite values: {list(values)}")
