"""Intervals of proportions and McNemar's test agree with SciPy, statsmodels' published figures, and simulations."""

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binomtest

from mnist_exp.report import proportions


@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_draws_is_wilson_s(n: int, level: float) -> None:
    for hits in range(n + 1):
        theirs = binomtest(hits, n).proportion_ci(level, method="wilson")
        assert proportions.of_draws(hits / n, n, level) == pytest.approx(tuple(theirs), abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 10), (20, 20)])
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95])
def test_the_interval_of_pairs_holds_the_truth(n: int, m: int, truth: float) -> None:
    """It does in 92 % and more of 2,000 simulated pairs of normal samples. The standard error of 95 % is 0.5 %."""
    shift, rng = math.sqrt(2) * float(ndtri(truth)), np.random.default_rng([n, m])
    shares = [float(np.mean(rng.normal(shift, 1, (n, 1)) > rng.normal(0, 1, m))) for _ in range(2_000)]
    limits = {share: proportions.of_pairs(share, n, m, 0.95) for share in set(shares)}
    assert np.mean([limits[share][0] <= truth <= limits[share][1] for share in shares]) > 0.92


def test_the_interval_of_pairs_stays_within_0_and_1_and_is_symmetric() -> None:
    low, high = proportions.of_pairs(1.0, 4, 6, 0.95)
    assert 0 < low < high == 1
    assert proportions.of_pairs(0.0, 6, 4, 0.95) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(121, 59, 0.000004), (70, 59, 0.378688), (80, 59, 0.089452), (30, 60, 0.00206), (10, 30, 0.002221), (10, 10, 1)],
)
def test_mcnemar_agrees_with_statsmodels(first: int, second: int, p: float) -> None:
    """test_mcnemar_exact of statsmodels, with the figures of Vassar College's calculator, to six decimals."""
    assert proportions.mcnemar(first, second) == pytest.approx(p, abs=6e-7)
    assert proportions.mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue)


def test_without_discordant_images_mcnemar_shows_nothing() -> None:
    assert proportions.mcnemar(0, 0) == 1
