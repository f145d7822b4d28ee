"""A t test that may be looked at after every seed: its claims hold whenever the runs stop.

The evidence is a Bayes factor for a difference against none, with a normal prior of variance PRIOR for the difference
in standard deviations. It is an e-value: where there is no difference, it ever exceeds 1 / alpha with a probability of
at most alpha (Ville's inequality). Gönen, Johnson, Lu & Westfall 2005 (The American Statistician 59, 252-257) give its
closed form; Hendriksen, de Heide & Grünwald 2021 (Bayesian Analysis 16, 961-989) show that it may be stopped at will.

All functions take single values, or arrays of one shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PRIOR = 1.0


def e_value(t: Any, n: Any) -> Any:
    """Return the evidence of n paired differences for a difference; infinity if it exceeds what a float can hold.

    Args:
        t: Student's t of the differences.
        n: Their number, 2 or more.
    """
    with np.errstate(over="ignore"):
        return np.exp(_log_e(t, n))


def p_value(t: Any, n: Any) -> Any:
    """Return a p-value that may be looked at after every seed: 1 / e_value, at most 1; nan if t is."""
    return np.exp(np.minimum(0, -_log_e(t, n)))


def critical(n: Any, alpha: Any) -> Any:
    """Return the t at which `p_value` is alpha; infinity if n differences can't reach it.

    It is the half width of an interval, in standard errors, that contains the true difference at all times with a
    probability of 1 - alpha.
    """
    shrunk = 1 + n * PRIOR
    ratio = np.minimum(np.exp(2 / n * (np.log(shrunk) / 2 - np.log(alpha))), shrunk)  # the most that t can reach
    with np.errstate(divide="ignore", invalid="ignore"):  # of one seed: nan
        return np.sqrt((n - 1) * (ratio - 1) / (1 - ratio / shrunk))


def _log_e(t: Any, n: Any) -> Any:
    """Return the natural logarithm of the e-value."""
    shrunk = 1 + n * PRIOR
    squared = t * t / (n - 1)
    return (n * (np.log1p(squared) - np.log1p(squared / shrunk)) - np.log(shrunk)) / 2
