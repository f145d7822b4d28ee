"""Proportions: their intervals of the score kind, and McNemar's test.

A score interval holds each proportion p whose own standard error makes the observed one likely. It stays within 0 and
1, and is not empty where the observed proportion is 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable

# SciPy takes half a second to import, so the functions that need it import it.

HALVINGS = 50  # of the interval from 0 to 1


def of_draws(observed: float, n: int, level: float) -> tuple[float, float]:
    """Return the interval of a proportion among n independent draws: Wilson 1927 (JASA 22, 209-212)."""
    return _score_interval(observed, lambda p: p * (1 - p) / n, level)


def of_pairs(observed: float, n: int, m: int, level: float) -> tuple[float, float]:
    """Return the interval of the probability that a draw from one sample exceeds a draw from another.

    The fifth method of Newcombe 2006 (Statistics in Medicine 25, 559-573).

    Args:
        observed: The share of the n m pairs, ties counted half: Mann and Whitney's U / (n m).
        n: The size of the first sample.
        m: The size of the second sample.
        level: The probability that the interval holds the truth.
    """

    def variance(p: float) -> float:
        """Return the variance of the estimate where the probability is p."""
        in_common = ((n + m) / 2 - 1) * ((1 - p) / (2 - p) + p / (1 + p))  # pairs of pairs that share a draw
        return p * (1 - p) * (1 + in_common) / (n * m)

    return _score_interval(observed, variance, level)


def mcnemar(first: int, second: int) -> float:
    """Return the p-value of McNemar's exact two-sided test of 1947: the sign test of the discordant images.

    Args:
        first: Images that only the first run got right.
        second: Images that only the second run got right.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def _score_interval(observed: float, variance: Callable[[float], float], level: float) -> tuple[float, float]:
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))

    def limit(outside: float) -> float:
        """Return the end of the interval between the estimate and `outside`."""
        inside = observed
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            is_inside = (observed - middle) ** 2 <= z**2 * variance(middle)
            inside, outside = (middle, outside) if is_inside else (inside, middle)
        return inside

    return limit(0.0), limit(1.0)
