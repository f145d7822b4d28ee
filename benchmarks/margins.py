"""How margins for new seeds and new images compare: how often each contains the truth, computed without chance.

    python -m benchmarks.margins

A difference is normal. The seeds' part of its variance is estimated with n - 1 degrees of freedom, the images' part is
known, as it nearly is with some hundred images or more. The coverage is an integral over what the seeds may show, for
each ratio of both variances from 0.001 to 10,000. Prints a Markdown table of the lowest and the highest.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from mnist_exp.report.crossed import half_width

Array = NDArray[np.float64]
Margin = Callable[[Array, int, float], Array]
SEEDS = (2, 3, 5, 10, 20)
RATIOS = 10.0 ** np.arange(-3, 4.01, 0.25)  # of the seeds' variance to the images', which is 1
ALPHA, CORRECTED = 0.05, 0.05 / 66  # of one comparison, and of one of all pairs of 12 arms
ROUNDS = 40  # of bisection


def _nodes() -> tuple[Array, Array]:
    """Return nodes of Gauss-Legendre quadrature from 0 to 1, denser towards both ends, and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(100)
    even = (1 + nodes) / 2
    return even**2 * (3 - 2 * even), 3 * even * (1 - even) * weights


NODES, WEIGHTS = _nodes()


def t(df: Any, alpha: float) -> Any:
    """Return Student's two-sided critical value."""
    return -stdtrit(df, alpha / 2)


def z(alpha: float) -> float:
    """Return the normal two-sided critical value."""
    return float(-ndtri(alpha / 2))


def same_images(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margin of the t test over seeds."""
    return np.asarray(t(df, alpha) * np.sqrt(seeds))


def cochran_cox(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margin whose critical value is weighted by the variances."""
    return np.asarray((t(df, alpha) * seeds + z(alpha)) / np.sqrt(seeds + 1))


def ours(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margin of mnist_exp/report/crossed.py."""
    images = np.ones_like(seeds)
    return half_width(t(df, alpha), seeds, z(alpha) * images, images, is_anytime=False)


def howe(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margins of both sources in quadrature."""
    return np.hypot(same_images(seeds, df, alpha), z(alpha))


def fiducial(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margin by the generalized pivotal quantity, that of Behrens and Fisher, by bisection."""
    spread = np.sqrt(seeds[:, None] * df / 2 / gammaincinv(df / 2, NODES) + 1)
    low, high = np.zeros_like(seeds), 2 * howe(seeds, df, alpha)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        is_narrow = 2 * ndtr(-middle[:, None] / spread) @ WEIGHTS > alpha
        low, high = np.where(is_narrow, middle, low), np.where(is_narrow, high, middle)
    return np.asarray(high)


def satterthwaite(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margin by one t quantile with Satterthwaite's degrees of freedom."""
    return np.asarray(t(df * (seeds + 1) ** 2 / seeds**2, alpha) * np.sqrt(seeds + 1))


def corrected(seeds: Array, df: int, alpha: float) -> Array:
    """Return Satterthwaite's, with the square of the estimated variance corrected for its bias."""
    return np.asarray(t((df + 2) * (seeds + 1) ** 2 / seeds**2 - 2, alpha) * np.sqrt(seeds + 1))


def welch(seeds: Array, df: int, alpha: float) -> Array:
    """Return the margin whose critical value is Welch's to the first order in 1 / df, and Student's for seeds alone."""
    weight = (seeds / (seeds + 1)) ** 2
    weighted = (z(alpha) + (t(df, alpha) - z(alpha)) * weight) * np.sqrt(seeds + 1)
    return np.asarray(np.maximum(weighted, same_images(seeds, df, alpha)))


def larger(seeds: Array, df: int, alpha: float) -> Array:
    """Return the larger of the margins of both sources."""
    return np.maximum(same_images(seeds, df, alpha), z(alpha))


MARGINS: dict[str, Margin] = {
    "Cochran & Cox, at least that for the same images": ours,
    "Cochran & Cox 1957": cochran_cox,
    "Howe 1974 (in quadrature)": howe,
    "generalized pivotal quantity (Tsui & Weerahandi 1989)": fiducial,
    "Satterthwaite 1946": satterthwaite,
    "Satterthwaite, corrected for bias": corrected,
    "Welch 1947, first order, at least that for the same images": welch,
    "the larger of both margins": larger,
}


def error(margin: Margin, n: int, alpha: float) -> Array:
    """Return the probability that the interval of n seeds misses the truth, for each of RATIOS."""
    df = n - 1
    shown = gammaincinv(df / 2, NODES) / (df / 2)
    missed = [2 * ndtr(-margin(ratio * shown, df, alpha) / np.sqrt(ratio + 1)) @ WEIGHTS for ratio in RATIOS]
    return np.array(missed)


def main() -> None:
    """Print the table."""
    print(f"| Margin | {' | '.join(f'{n} seeds' for n in SEEDS)} | errors at p < {CORRECTED:.5f} |")
    print("|---|" + "--:|" * (len(SEEDS) + 1))
    for name, margin in MARGINS.items():
        cells = []
        for n in SEEDS:
            covered = 100 * (1 - error(margin, n, ALPHA))
            cells.append(f"{covered.min():.1f} to {covered.max():.1f} %")
        most = max(error(margin, n, CORRECTED).max() for n in SEEDS) / CORRECTED
        print(f"| {name} | {' | '.join(cells)} | {most:.2f} |", flush=True)


if __name__ == "__main__":
    main()
