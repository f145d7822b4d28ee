"""A t test that may be looked at after every seed: its claims hold whenever the runs stop.

The evidence is a Bayes factor for a difference against none, with a normal prior of variance PRIOR for the difference
in standard deviations. It is an e-value: where there is no difference, it ever exceeds 1 / alpha with a probability of
at most alpha (Ville's inequality). Gönen, Johnson, Lu & Westfall 2005 (The American Statistician 59, 252-257) give its
closed form; Hendriksen, de Heide & Grünwald 2021 (Bayesian Analysis 16, 961-989) show that it may be stopped at will.
"""

from __future__ import annotations

import math

PRIOR = 1.0


def e_value(t: float, n: int) -> float:
    """Return the evidence of n paired differences for a difference.

    Args:
        t: Student's t of the differences.
        n: Their number, 2 or more.
    """
    return math.exp(_log_e(t * t / (n - 1), n))


def p_value(t: float, n: int) -> float:
    """Return a p-value that may be looked at after every seed: 1 / e_value, at most 1; nan if t is."""
    return math.exp(min(0.0, -_log_e(t * t / (n - 1), n))) if not math.isnan(t) else math.nan


def critical(n: int, alpha: float) -> float:
    """Return the t at which `p_value` is alpha; infinity if n differences can't reach it.

    It is the half width of an interval, in standard errors, that contains the true difference at all times with a
    probability of 1 - alpha.
    """
    shrunk = 1 + n * PRIOR
    log_ratio = 2 / n * (math.log(shrunk) / 2 - math.log(alpha))
    if log_ratio >= math.log(shrunk):
        return math.inf
    ratio = math.exp(log_ratio)
    return math.sqrt((n - 1) * (ratio - 1) / (1 - ratio / shrunk))


def _log_e(x: float, n: int) -> float:
    """Return the logarithm of the e-value; x is t squared per degree of freedom."""
    shrunk = 1 + n * PRIOR
    return (n * (math.log1p(x) - math.log1p(x / shrunk)) - math.log(shrunk)) / 2
