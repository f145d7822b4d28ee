"""Statistics of arms: intervals of means, and tests of differences.

What each estimate holds for:

`Summary`                     new seeds on the same images
`Comparison.on_these_images`  new seeds on the same validation images
`Comparison.claim`            new seeds and new images of the same source, if it is known what the runs predicted for
                              each image; else the same as `on_these_images`

Where runs have several data.seeds, all of them hold for new splits of the same source: other training images, other
validation images and other seeds.

The source is what the images were drawn from: digits by other writers, or of another camera, are another source.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_exp.report import crossed, proportions
from mnist_exp.report.crossed import Contrasts, Floats
from mnist_exp.store.ledger import Seeds

# SciPy takes half a second to import, so the functions that need it import it.

LEVEL = 0.95  # of every interval; a claim needs p < 1 - LEVEL
MAX_ODDS_RATIO = 10  # between the ends of an interval of two values; a wider one is left out
EVERY_PAIR = 200  # arms: of more, only the pairs with the leader are computed
BLOCK = 64  # arms whose images are compared with the leader's at once
ROUNDING = 1e-9  # relative; accuracies are multiples of 1/images, so a smaller spread is floating-point error


class Summary(NamedTuple):
    """The accuracies of one arm, and the interval of their mean.

    One value has no standard deviation, and equal values have no interval: these are nan. The interval of two values is
    nan too if it is too wide.
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
    """An interval of a difference, and the p-value of there being none; nan if the runs allow no claim.

    Only the ends are nan if so few seeds could not tell any difference in a sweep that was looked at on the way.
    """

    low: float
    high: float
    p: float


class Share(NamedTuple):
    """An estimated probability and its interval; nan if unknown."""

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
    there is no spread, where a t test would be certain of any difference; and if arms that share fewer than two runs
    do not all have one data.seed.

    If `needed` is None and `needed_images` is not, more seeds can't help: the images are the limit.
    """

    difference: float  # positive if the first arm is better
    claim: Estimate  # the interval is for this pair alone; p is corrected by `leader_against_others`
    on_these_images: Estimate  # the same, for other seeds on the same images
    superiority: Share  # the probability that the first arm is better with a new seed; ties count half
    n: int  # the shared seeds (data.seeds, if there are several) if paired, else those of the smaller arm
    splits: int  # the shared data.seeds; if several, both estimates are over data.seeds, and hold for new images
    paired: bool
    images: int | None  # validation images that `claim` rests on; None if it is not for new images
    needed: int | None  # `n` for `claim` to detect this difference with POWER; None if unknown or no number suffices
    needed_images: int | None  # validation images that would do so, with the seeds there are; None as above
    mcnemar: McNemar | None  # of arms of one run each, on the same images; else None


class _Design(NamedTuple):
    """How two arms can be compared: equal for pairs whose sums of squares can be computed together."""

    shared: frozenset[Seeds]  # empty if the arms are not paired
    splits: int  # the data.seeds of the shared runs; of both arms, if these are not paired
    is_valid: bool  # whether it is known how to compare them
    images: tuple[str, int] | None  # the source and number of the images; None if they are not known to be the same


def summary(
    values: Sequence[float],
    splits: Sequence[int] | None = None,
    val_per_train: float | None = None,
    is_fraction: bool = True,
) -> Summary:
    """Summarize what the runs of one arm reached.

    The runs of one data.seed share their images, so an arm over several data.seeds has an interval over the means of
    these, with the correction of `compare`. Each data.seed then has the same weight in the mean.

    Args:
        values: One per run.
        splits: The data.seed of each run; None if they have the same.
        val_per_train: Validation images per training image; None if unknown.
        is_fraction: Whether the values are fractions, as accuracies are; else the interval is Student's.

    Raises:
        ValueError: There is no value, or a value is not a fraction.
    """
    _check(values)
    if is_fraction and not all(0 <= value <= 1 for value in values):
        raise ValueError(f"accuracies must be fractions from 0 to 1: {list(values)}")
    of_split: dict[int, list[float]] = {}
    for split, value in zip(splits or [0] * len(values), values, strict=True):
        of_split.setdefault(split, []).append(value)
    is_split = len(of_split) > 1
    units = [fmean(each) for each in of_split.values()] if is_split else values
    overlap = _overlap(val_per_train) if is_split else 0.0
    mean, spread = fmean(units), math.sqrt(_variance(units))
    interval = _interval if is_fraction else _plain_interval
    low, high = interval(len(units), mean, spread, overlap) if spread > 0 else (math.nan, math.nan)
    sd = math.sqrt(_variance(values))
    return Summary(len(values), mean, sd, low, high, max(values), min(values))


def _plain_interval(n: int, mean: float, sd: float, overlap: float = 0.0) -> tuple[float, float]:
    """Return Student's t interval of a mean."""
    from scipy.special import stdtrit

    margin = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd * math.sqrt(1 / n + overlap)
    return mean - margin, mean + margin


def _interval(n: int, mean: float, sd: float, overlap: float = 0.0) -> tuple[float, float]:
    """Return Student's t interval of a mean accuracy on the scale of its log odds, which never leaves 0 to 1.

    The method transforms the mean, and its standard error by the delta method, as svyciprop(method="xlogit") of R's
    package survey and Stata's `proportion` do. The interval therefore contains the mean, and an accuracy of exactly 0
    or 1 needs no special case. In simulated arms of 2 to 10 seeds at 90 to 99.5 % accuracy it covers the truth in at
    least 94 % of cases. The plain t interval, and intervals of the log odds or arcsines of the values, fall to 92 % and
    below, because accuracies near 1 are skewed and the mean of a transform is not the transform of the mean.
    """
    from scipy.special import expit, logit, stdtrit

    margin = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd * math.sqrt(1 / n + overlap) / (mean * (1 - mean))
    if n == 2 and 2 * margin > math.log(MAX_ODDS_RATIO):
        return math.nan, math.nan
    return float(expit(logit(mean) - margin)), float(expit(logit(mean) + margin))


def compare(a: Sample, b: Sample, pairs: int = 1, anytime: bool = False) -> Comparison:
    """Compare two arms by a two-sided t test: Student 1908 for pairs, else Welch 1947; and for new images, see crossed.

    Runs are paired by seed, because equal seeds mean the same order of images and the same augmentation.

    If the shared seeds have several data.seeds, the mean difference of each of these is one value, and the test is the
    corrected resampled t test of Nadeau & Bengio 2003 (Machine Learning 52, 239-281, section 3): training sets overlap,
    so the variance of the mean is (1 / n + validation images per training image) times that of a value.

    Args:
        a: The first arm, a value per run.
        b: The second arm.
        pairs: The number of comparisons of which this is one. The plans allow for them, `p` does not.
        anytime: Whether the runs were looked at before it was decided how many there would be. The estimates then hold
            whenever the runs stop; there are none for arms that are not paired, or that have several data.seeds, whose
            overlap no e-value known to us allows for.

    Raises:
        ValueError: An arm has no value, or a value is not finite.
    """
    return _comparisons([a, b], [(0, 1)], pairs, anytime)[0]


def leader_against_others(arms: Sequence[Sample], anytime: bool = False) -> list[Comparison]:
    """Compare the leader with each other arm, with both p-values corrected by Holm's method.

    The data that chose the leader also test it, so any pair could have been among these comparisons. The correction is
    therefore for all k (k - 1) / 2 pairs, not for the k - 1 that are returned. With more than EVERY_PAIR arms, the p of
    every pair without the leader is taken to be 1, which is never too small; the corrected p can only be larger for it.

    Args:
        arms: The arms, the leader first.
        anytime: As in `compare`.
    """
    k = len(arms)
    if k < 2:
        return []
    of_leader = [(0, other) for other in range(1, k)]
    pairs = list(combinations(range(k), 2)) if k <= EVERY_PAIR else of_leader  # those of the leader come first
    tests = k * (k - 1) // 2
    return _comparisons(arms, pairs, tests, anytime, untested=tests - len(pairs))


def holm(p: Sequence[float] | Floats, untested: int = 0) -> list[float]:
    """Correct p-values for multiple tests by the step-down method of Holm 1979. A nan is not a test and stays nan.

    Args:
        p: The p-values.
        untested: The number of further tests, whose p is taken to be 1.
    """
    corrected = np.array(p, dtype=float)
    order = np.argsort(corrected, kind="stable")[: np.count_nonzero(~np.isnan(corrected))]  # nan comes last
    tests_left = len(order) + untested - np.arange(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(1, corrected[order] * tests_left))
    found: list[float] = corrected.tolist()
    return found


def sampling_spread(accuracy: float, images: int) -> float:
    """Return the binomial standard error of an accuracy: the uncertainty from the choice of images, not of seeds.

    Raises:
        ValueError: The accuracy is not a fraction, or there are no images.
    """
    if not (0 <= accuracy <= 1 and images > 0):
        raise ValueError(f"must be an accuracy from 0 to 1 on at least one image: {accuracy} on {images}")
    return math.sqrt(accuracy * (1 - accuracy) / images)


def _comparisons(
    arms: Sequence[Sample], pairs: Sequence[tuple[int, int]], tests: int, anytime: bool, untested: int = 0
) -> list[Comparison]:
    """Compare the first arm with each other one.

    Args:
        arms: The arms.
        pairs: The places of all pairs for which p is corrected; those of the first arm come first.
        tests: The number of comparisons for which plans allow.
        anytime: As in `compare`.
        untested: The number of further pairs for which p is corrected, and whose own p is taken to be 1.
    """
    every = _contrasts(arms, pairs, anytime)
    p, p_on_these = (holm(crossed.p_values(each, anytime), untested) for each in (every, every.on_these_images()))
    found = Contrasts(*(column[: len(arms) - 1] for column in every))
    margins, on_these = (crossed.margin(each, 1 - LEVEL, anytime) for each in (found, found.on_these_images()))
    needed = crossed.seeds_needed(found, (1 - LEVEL) / tests, anytime)
    needed_images = crossed.images_needed(found, (1 - LEVEL) / tests, anytime)
    return [
        Comparison(
            difference=float(found.difference[index]),
            claim=_estimate(found.difference[index], margins[index], p[index]),
            on_these_images=_estimate(found.difference[index], on_these[index], p_on_these[index]),
            superiority=_superiority(arms[0], other),
            n=int(found.n[index]),
            splits=int(found.splits[index]),
            paired=bool(found.paired[index]),
            images=int(found.images[index]) or None,
            needed=needed[index],
            needed_images=needed_images[index],
            mcnemar=_mcnemar(arms[0], other),
        )
        for index, other in enumerate(arms[1:])
    ]


def _estimate(difference: float, margin: float, p: float) -> Estimate:
    if math.isfinite(margin):
        return Estimate(float(difference - margin), float(difference + margin), p)
    return Estimate(math.nan, math.nan, p)


def _contrasts(arms: Sequence[Sample], pairs: Sequence[tuple[int, int]], anytime: bool) -> Contrasts:
    """Return the differences between pairs of arms, given by their places, and the errors of these.

    Pairs with the same seeds and images are computed together, which is fast.
    """
    for arm in arms:
        _check(arm.values.values())
    columns = np.empty((len(Contrasts._fields), len(pairs)))
    for design, places in _places_of_designs(arms, pairs).items():
        size = BLOCK if len(arms) > EVERY_PAIR else len(places)
        for block in (places[start : start + size] for start in range(0, len(places), size)):
            used, indices = np.unique([pairs[place] for place in block], return_inverse=True)
            contrast = _paired if design.shared else _unpaired
            a, b = indices.reshape(-1, 2).T
            columns[:, block] = np.broadcast_arrays(*contrast([arms[index] for index in used], a, b, design))
    found = Contrasts(*columns)
    is_known = np.isfinite(found.seeds_error)
    if anytime:
        is_known &= (found.paired > 0) & (found.splits == 1)
    return found._replace(
        spread=np.where(is_known, found.spread, math.nan),
        seeds_error=np.where(is_known, found.seeds_error, math.nan),
        seeds_df=np.where(is_known, found.seeds_df, math.nan),
        images=np.where(is_known, found.images, 0),
        images_error=np.where(is_known, found.images_error, 0),
    )


def _places_of_designs(arms: Sequence[Sample], pairs: Sequence[tuple[int, int]]) -> dict[_Design, list[int]]:
    """Return the places of the pairs with each design. Arms of equal seeds and images have the same designs."""
    kinds: dict[Hashable, int] = {}
    kind_of_arm = [kinds.setdefault(_kind(arm), len(kinds)) for arm in arms]
    design_of_kinds: dict[tuple[int, int], _Design] = {}
    places: dict[_Design, list[int]] = {}
    for place, (first, second) in enumerate(pairs):
        both = kind_of_arm[first], kind_of_arm[second]
        if both not in design_of_kinds:
            design_of_kinds[both] = _design(arms[first], arms[second])
        places.setdefault(design_of_kinds[both], []).append(place)
    return places


def _kind(arm: Sample) -> Hashable:
    """Return all of an arm that its designs depend on."""
    sizes = frozenset((run, len(images)) for run, images in arm.images.items())
    return frozenset(arm.values), sizes, arm.image_source


def _design(a: Sample, b: Sample) -> _Design:
    shared = a.values.keys() & b.values.keys()
    if len(shared) > 1:
        splits = len({run.split for run in shared})
        return _Design(frozenset(shared), splits, True, _common_images(a, b, shared, shared) if splits == 1 else None)
    of_a, of_b = {run.split for run in a.values}, {run.split for run in b.values}
    is_valid = len(of_a | of_b) == 1
    images = _common_images(a, b, a.values, b.values) if is_valid else None
    return _Design(frozenset(), len(of_a & of_b), is_valid, images)


def _common_images(a: Sample, b: Sample, of_a: Collection[Seeds], of_b: Collection[Seeds]) -> tuple[str, int] | None:
    """Return the source and number of the images on which these runs of one data.seed were validated, if they are."""
    sizes = {len(arm.images[run]) if run in arm.images else 0 for arm, runs in ((a, of_a), (b, of_b)) for run in runs}
    if a.image_source != b.image_source or len(sizes) > 1 or max(sizes) < 2:
        return None
    return a.image_source, sizes.pop()


def _paired(samples: Sequence[Sample], a: NDArray[Any], b: NDArray[Any], design: _Design) -> Contrasts:
    """Return the contrasts of samples a and b, over the seeds that all of them share."""
    units = _units(samples, design.shared)
    differences = units[a] - units[b]
    n = differences.shape[1]
    largest = np.abs(differences).max(1)
    spread = np.where(np.ptp(differences, axis=1) > ROUNDING * largest, differences.var(1, ddof=1), 0.0)
    ratio = np.array([_overlap(sample.val_per_train) if design.splits > 1 else 0.0 for sample in samples])
    overlap = np.maximum(ratio[a], ratio[b])
    images, of_images, rest = 0, np.zeros(len(a)), np.zeros(len(a))
    if design.images:
        images = design.images[1]
        order = sorted(design.shared)
        parts = crossed.components(np.array([_table(sample, order) for sample in samples]), of_first=not a.any())
        of_images, rest = parts.images[a, b], parts.rest[a, b]
    return Contrasts(
        difference=differences.mean(1),
        n=np.array(n),
        splits=np.array(design.splits),
        paired=np.array(1),
        spread=spread,
        overlap=overlap,
        freedom=np.array(1),
        seeds_error=np.sqrt(_positive(spread) * (1 / n + overlap)),
        seeds_df=np.array(n - 1),
        images=np.array(images),
        images_error=np.sqrt(np.maximum(of_images, 0) / max(images, 1)),
        interaction=rest / n / max(images, 1),
    )


def _unpaired(samples: Sequence[Sample], a: NDArray[Any], b: NDArray[Any], design: _Design) -> Contrasts:
    """Return the contrasts of samples a and b by Welch's method.

    Arms of unequal size get the lower bound of Welch's degrees of freedom, n - 1 of the smaller arm. With Welch's own,
    10 % of the comparisons of 2 seeds with 10 find p < 0.05 although nothing differs.
    """
    values = [list(sample.values.values()) for sample in samples]
    sizes, variances = np.array(list(map(len, values)), dtype=float), np.array(list(map(_variance, values)))
    means = np.array(list(map(fmean, values)))
    n, spread = np.minimum(sizes[a], sizes[b]), variances[a] + variances[b]
    with np.errstate(invalid="ignore"):
        freedom = spread**2 / (variances[a] ** 2 + variances[b] ** 2)
    images, of_images, rest = 0, np.zeros(len(a)), np.zeros(len(a))
    if design.images:
        images = design.images[1]
        noise = np.array([_interaction(sample) for sample in samples]) / sizes
        rest = noise[a] + noise[b]
        of_image = np.array([_table(sample, sample.values).mean(0, dtype=float) for sample in samples])
        of_images = crossed.squares(of_image - of_image.mean(1, keepdims=True))[a, b] / (images - 1) - rest
    error = np.sqrt(variances[a] / sizes[a] + variances[b] / sizes[b])
    return Contrasts(
        difference=means[a] - means[b],
        n=n,
        splits=np.array(design.splits),
        paired=np.array(0),
        spread=spread,
        overlap=np.array(0),
        freedom=freedom,
        seeds_error=_positive(error) if design.is_valid else np.array(math.nan),
        seeds_df=np.where(sizes[a] == sizes[b], freedom, 1) * (n - 1),
        images=np.array(images),
        images_error=np.sqrt(np.maximum(of_images, 0) / max(images, 1)),
        interaction=rest / max(images, 1),
    )


def _units(samples: Sequence[Sample], shared: Collection[Seeds]) -> Floats:
    """Return the values that are compared, (samples, n): of each shared run, or means of each data.seed if several."""
    order = sorted(shared)
    values = np.array([[sample.values[run] for run in order] for sample in samples])
    splits = np.array([run.split for run in order])
    if splits[0] == splits[-1]:
        return values
    return np.stack([values[:, splits == split].mean(1) for split in np.unique(splits)], axis=1)


def _table(sample: Sample, runs: Iterable[Seeds]) -> NDArray[Any]:
    """Return the parts of runs and images, (runs, images)."""
    return np.array([sample.images[run] for run in runs])


def _interaction(sample: Sample) -> float:
    """Return the variance of an arm's parts that is due neither to the seed nor to the image; nan for one run."""
    table = _table(sample, sample.values)
    return float(crossed.components(np.stack([table, 0 * table])).rest[0, 1]) if len(table) > 1 else math.nan


def _overlap(val_per_train: float | None) -> float:
    """Return what the overlap of training sets adds to the variance of a mean over data.seeds; nan if unknown."""
    return math.nan if val_per_train is None else val_per_train


def _positive(values: Floats) -> Floats:
    """Return values with nan for those that are 0: without a spread there is no test."""
    return np.where(values > 0, values, math.nan)


def _superiority(a: Sample, b: Sample) -> Share:
    """Return how often the first arm is better: among shared seeds, or else among all pairs of their runs.

    Over data.seeds, the interval does not allow for the overlap of training sets.
    """
    design = _design(a, b)
    if not design.is_valid or min(len(a.values), len(b.values)) < 2:
        return Share(math.nan, math.nan, math.nan)
    if design.shared:
        first, second = _units([a, b], design.shared)
        share = float(np.sign(first - second).mean() + 1) / 2
        return Share(share, *proportions.of_draws(share, len(first), LEVEL))
    first, second = (np.array(list(arm.values.values())) for arm in (a, b))
    share = float(np.sign(first[:, None] - second).mean() + 1) / 2
    return Share(share, *proportions.of_pairs(share, len(first), len(second), LEVEL))


def _mcnemar(a: Sample, b: Sample) -> McNemar | None:
    """Return McNemar's test of arms of one run each; None of others, or if an image has more than right and wrong."""
    if len(a.values) > 1 or len(b.values) > 1 or not _design(a, b).images:
        return None
    x, y = _table(a, a.values)[0], _table(b, b.values)[0]
    if not np.isin([x, y], (0, 1)).all():
        return None
    first, second = int(np.sum(x > y)), int(np.sum(y > x))
    return McNemar(first, second, proportions.mcnemar(first, second))


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
