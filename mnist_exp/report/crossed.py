"""The difference of two arms when both seeds and images are samples: components of variance, intervals and power.

Each seed of an arm classifies the same images, so seeds and images are crossed factors. The mean difference d of n
seeds and N images has the variance

    var(seeds) / n + var(images) / N + var(rest) / (n N)

where the rest is the interaction of seeds and images. The t test over seeds knows the first and the last term, and
holds for new seeds on the same images. The mean squares of the analysis of variance estimate the variance from the
seeds, S = MS_seeds / (n N), and that from the images, I = max(MS_images - MS_rest, 0) / (n N). An interval for new
seeds and new images has the margin

    (critical(n - 1) S + critical(N - 1) I) / sqrt(S + I)

or that for the same images, critical(n - 1) sqrt(S), if it is larger. So the critical value is the mean of those of
both sources, weighted by their variances: Cochran & Cox 1957, Experimental Designs, 2nd edition; Cochran 1964
(Biometrics 20, 191-195); PROC TTEST of SAS has it as COCHRAN. Its errors are at most alpha for normal means, or 5 % of
alpha more where alpha is corrected for many pairs. One t quantile with Satterthwaite's degrees of freedom is too
narrow with few seeds. benchmarks/intervals.py shows how often it contains the truth, and
docs/explanation/new-images.md what else was tried.

If the runs are looked at before it is decided how many there will be, the seeds' critical value is that of anytime, and
the margins of both sources are in quadrature (Howe 1974, Journal of the American Statistical Association 69, 789-794).
The images' error is the same at each look, but a look may add the seeds' error to it, so its critical value is that of
half of alpha. In simulations without a difference, at any ratio of both errors, at most 3.5 % of sweeps of up to 40
seeds and 5.0 % of sweeps of up to 200 then ever have p < 0.05; with all of alpha they are 6.4 and 7.9 %.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_exp.report import anytime

# SciPy takes half a second to import, so the functions that need it import it.

Floats = NDArray[np.float64]

POWER = 0.8  # of what `seeds_needed` and `images_needed` plan; the convention of Cohen 1988
MIN_SEEDS, MAX_SEEDS = 3, 10_000  # of a plan; two seeds leave one degree of freedom, and no power to speak of
MIN_IMAGES, MAX_IMAGES = 2, 1_000_000
SMALLEST_P = 1e-100
HALVINGS = 50  # of an interval of logarithms of p, which are from -230 to 0
NODES = 48  # of the quadrature over the spread that n seeds show


class Components(NamedTuple):
    """Components of variance of the differences between k tables, each (k, k); an estimate can be negative."""

    seeds: Floats
    images: Floats
    rest: Floats


class Contrasts(NamedTuple):
    """Mean differences of pairs of arms, and their errors: arrays with an element for each pair.

    What allows no claim has a `seeds_error` of nan.
    """

    difference: Floats
    n: Floats  # seeds, or splits if there are several; of the smaller arm if unpaired
    splits: Floats
    paired: Floats  # 1 or 0
    spread: Floats  # variance of one difference; the sum of both arms' variances if unpaired
    overlap: Floats  # the variance of the mean is spread * (1 / n + overlap)
    freedom: Floats  # degrees of freedom divided by n - 1, for arms of equal size
    seeds_error: Floats  # standard error of `difference` for new seeds on the same images
    seeds_df: Floats
    images: Floats  # validation images; 0 if they are taken as fixed
    images_error: Floats  # standard error from the choice of images; 0 if they are fixed
    interaction: Floats  # the part of seeds_error squared that more images would shrink

    def on_these_images(self) -> Contrasts:
        """Return the contrasts for new seeds on the same images."""
        return self._replace(images=0 * self.images, images_error=0 * self.images_error)


def components(tables: NDArray[Any], of_first: bool = False) -> Components:
    """Return the components of variance of the difference between each two tables, by analysis of variance.

    The two-way random-effects model without replicates; for balanced tables whose estimates are positive they equal
    REML's (Searle, Casella & McCulloch 1992, Variance Components, section 4.8).

    Args:
        tables: What each seed of each arm reached with each image, (k, seeds, images); two or more of each.
        of_first: Whether the differences from the first table are enough: (1, k) instead of (k, k), and quick.
    """
    _, n, images = tables.shape
    squares_of = squares_from_first if of_first else squares
    mean = n * images * squares_of(tables.mean((1, 2), dtype=float)[:, None])
    by_seed = images * squares_of(tables.mean(2, dtype=float)) - mean
    by_image = n * squares_of(tables.mean(1, dtype=float)) - mean
    total: Floats = sum((squares_of(tables[:, seed]) for seed in range(n)), start=-mean)
    rest = (total - by_seed - by_image) / ((n - 1) * (images - 1))
    return Components((by_seed / (n - 1) - rest) / images, (by_image / (images - 1) - rest) / n, rest)


def squares(rows: NDArray[Any]) -> Floats:
    """Return the sum of squares of the difference between each two rows: (k, N) -> (k, k)."""
    centered = rows - rows.mean(0, dtype=float)  # for precision, where rows differ little
    products = centered @ centered.T
    lengths = np.diag(products)
    return np.asarray(np.maximum(lengths[:, None] + lengths - 2 * products, 0))


def squares_from_first(rows: NDArray[Any]) -> Floats:
    """Return the sum of squares of the difference between the first row and each: (k, N) -> (1, k)."""
    differences = rows - rows[0].astype(float)
    return np.asarray(np.einsum("ij,ij->i", differences, differences)[None])


def margin(contrasts: Contrasts, alpha: Any, is_anytime: bool) -> Floats:
    """Return the half widths of the intervals for a probability of error alpha; nan where no claim is possible."""
    of_seeds = _critical(contrasts.n, contrasts.seeds_df, alpha, is_anytime)
    of_images = _images_critical(contrasts.images, alpha, is_anytime)
    return half_width(of_seeds, contrasts.seeds_error**2, of_images, contrasts.images_error**2, is_anytime)


def p_values(contrasts: Contrasts, is_anytime: bool) -> Floats:
    """Return the alpha at which the margin of each contrast equals its difference; nan where no claim is possible."""
    from scipy.special import stdtr

    size = np.abs(contrasts.difference)
    t = size / contrasts.seeds_error
    seeds = anytime.p_value(t, contrasts.n) if is_anytime else 2 * stdtr(contrasts.seeds_df, -t)
    if not contrasts.images_error.any():
        return np.asarray(seeds)
    low, high = np.log(np.maximum(seeds, SMALLEST_P)), np.zeros_like(size)  # images can only add to p
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_wide = margin(contrasts, np.exp(middle), is_anytime) > size
        low, high = np.where(is_wide, middle, low), np.where(is_wide, high, middle)
    return np.where(contrasts.images_error > 0, np.exp(high), seeds)


def seeds_needed(contrasts: Contrasts, alpha: float, is_anytime: bool) -> list[int | None]:
    """Return the seeds per arm with which each difference would be found with POWER; None if no number suffices.

    The images stay as they are, so their part of the error does too. The observed difference and components stand for
    the true ones.
    """
    of_images = _images_critical(contrasts.images, alpha, is_anytime)

    def power(n: Floats) -> Floats:
        """Return the power of n seeds for each contrast."""
        df = contrasts.freedom * (n - 1)
        variance = contrasts.spread * (1 / n + contrasts.overlap)
        critical = _critical(n, df, alpha, is_anytime)
        return _power(contrasts.difference, critical, df, variance, of_images, contrasts.images_error**2, is_anytime)

    return _least(power, MIN_SEEDS, MAX_SEEDS, len(contrasts.n))


def images_needed(contrasts: Contrasts, alpha: float, is_anytime: bool) -> list[int | None]:
    """Return the images with which each difference would be found with POWER by the seeds there are; None as above.

    Images shrink their own part of the error and that of the interaction; what seeds do to all images stays.
    """
    df, fixed = contrasts.seeds_df, np.maximum(contrasts.seeds_error**2 - contrasts.interaction, 0)
    critical = _critical(contrasts.n, df, alpha, is_anytime)

    def power(images: Floats) -> Floats:
        """Return the power of so many images for each contrast."""
        fewer = contrasts.images / images
        variance = fixed + contrasts.interaction * fewer
        of_images = _images_critical(images, alpha, is_anytime)
        images_variance = contrasts.images_error**2 * fewer
        return _power(contrasts.difference, critical, df, variance, of_images, images_variance, is_anytime)

    found = _least(power, MIN_IMAGES, MAX_IMAGES, len(contrasts.n))
    return [images if known else None for images, known in zip(found, contrasts.images > 0, strict=True)]


def half_width(
    of_seeds: Floats, seeds_variance: Floats, of_images: Floats, images_variance: Floats, is_anytime: bool
) -> Floats:
    """Return the half width of an interval, given the critical value and the variance of each source."""
    seeds = of_seeds * np.sqrt(seeds_variance)
    if is_anytime:
        return np.asarray(np.hypot(seeds, of_images * np.sqrt(images_variance)))
    weighted = (of_seeds * seeds_variance + of_images * images_variance) / np.sqrt(seeds_variance + images_variance)
    return np.asarray(np.maximum(seeds, weighted))


def _critical(n: Floats, df: Floats, alpha: Any, is_anytime: bool) -> Floats:
    """Return the t that a difference must exceed, two-sided."""
    from scipy.special import stdtrit

    return np.asarray(anytime.critical(n, alpha) if is_anytime else -stdtrit(df, np.asarray(alpha) / 2))


def _images_critical(images: Floats, alpha: Any, is_anytime: bool) -> Floats:
    """Return the t of the images' part of a margin; half of alpha goes to it if the runs were looked at."""
    from scipy.special import stdtrit

    tail = np.asarray(alpha) / (4 if is_anytime else 2)
    return np.asarray(-stdtrit(np.maximum(images - 1, 1), tail))


def _power(
    difference: Floats,
    critical: Floats,
    df: Floats,
    variance: Floats,
    images_critical: Floats,
    images_variance: Floats,
    is_anytime: bool,
) -> Floats:
    """Return the probability that a difference exceeds its margin, given its size and its variance from each source.

    The margin depends on the spread that the seeds happen to show, which is a multiple of chi-squared: the result is
    the mean over its distribution. Without images this is the power of the t test. The images' part of the margin is
    taken as known, because there are many images.
    """
    from scipy.special import gammaincinv, ndtr

    nodes, weights = _nodes()
    freedoms, which = np.unique(df, return_inverse=True)
    shape = freedoms[:, None] / 2
    shown = (gammaincinv(shape, nodes) / shape)[which]  # (pairs, nodes): quantiles of the variance, whose mean is 1
    of_seeds, of_images = critical[:, None], images_critical[:, None]
    limit = half_width(of_seeds, variance[:, None] * shown, of_images, images_variance[:, None], is_anytime)
    distance = (np.abs(difference)[:, None] - limit) / np.sqrt(variance + images_variance)[:, None]
    return np.asarray(ndtr(distance) @ weights)


@cache
def _nodes() -> tuple[Floats, Floats]:
    """Return the nodes of Gauss-Legendre quadrature from 0 to 1, made denser towards both ends, and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    even = (1 + nodes) / 2
    return even**2 * (3 - 2 * even), 3 * even * (1 - even) * weights


def _least(power: Callable[[Floats], Floats], low: int, high: int, pairs: int) -> list[int | None]:
    """Return for each pair the smallest number from low to high that has POWER, by bisection; None if none has."""
    least, most = np.full(pairs, low), np.full(pairs, high + 1)
    while (least < most).any():
        middle = (least + most) // 2
        enough = power(middle.astype(float)) >= POWER
        least, most = np.where(enough | (least == most), least, middle + 1), np.where(enough, middle, most)
    return [int(number) if number <= high else None for number in least]
