"""The evidence is the Bayes factor that it is said to be, and may be looked at after every seed."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, nct, norm
from scipy.stats import t as student

from mnist_exp.report import anytime


@pytest.mark.parametrize("n", [2, 3, 10, 40])
@pytest.mark.parametrize("t", [0.0, 0.7, -2.1, 4.0])
def test_evidence_is_the_ratio_of_marginal_likelihoods(t: float, n: int) -> None:
    """That of t where the difference in standard deviations is normal, against that where it is 0."""

    def joint(difference: float) -> float:
        return float(
            nct.pdf(t, n - 1, difference * math.sqrt(n)) * norm.pdf(difference, scale=math.sqrt(anytime.PRIOR))
        )

    marginal, _ = quad(joint, -6, 6, points=[0, t / math.sqrt(n)], epsabs=1e-10)
    assert anytime.e_value(t, n) == pytest.approx(marginal / student.pdf(t, n - 1), rel=1e-4)


def test_p_is_the_inverse_of_the_evidence_and_at_most_1() -> None:
    assert anytime.p_value(4.0, 10) == pytest.approx(1 / anytime.e_value(4.0, 10))
    assert anytime.p_value(0.0, 10) == 1
    assert math.isnan(anytime.p_value(math.nan, 10))


@pytest.mark.parametrize(("n", "alpha"), [(5, 0.05), (10, 0.05), (10, 0.001), (40, 0.5), (40, 1e-9)])
def test_critical_t_is_that_of_alpha(n: int, alpha: float) -> None:
    assert anytime.p_value(anytime.critical(n, alpha), n) == pytest.approx(alpha)


def test_few_seeds_cannot_reach_a_small_p() -> None:
    """However large t is, 3 seeds leave p at 1/4."""
    assert anytime.critical(3, 0.05) == math.inf
    assert anytime.critical(3, 0.2499) == math.inf
    assert anytime.critical(3, 0.2501) < math.inf
    assert anytime.p_value(1e9, 3) == pytest.approx(0.25)


def test_huge_evidence_is_infinite() -> None:
    assert anytime.e_value(1e9, 1000) == math.inf
    assert anytime.p_value(1e9, 1000) == 0


def test_arrays_are_as_single_values() -> None:
    t, n = np.array([0.5, 3.0, 9.0]), np.array([4, 5, 20])
    for function, first in ((anytime.e_value, t), (anytime.p_value, t)):
        assert function(first, n).tolist() == [function(*each) for each in zip(first, n, strict=True)]
    alphas = np.array([0.05, 0.5, 0.01])
    assert anytime.critical(n, alphas).tolist() == [anytime.critical(*each) for each in zip(n, alphas, strict=True)]


def test_looking_after_every_seed_makes_no_false_claims() -> None:
    """Of 4,000 sweeps from 2 to 60 seeds without a difference, fewer than the allowed 5 % ever reach p < 0.05.

    Student's p does in a third of them. More claims than the bound have a probability under 0.001 at a rate of 5 %.
    """
    values = np.random.default_rng(0).normal(size=(4_000, 60))
    n = np.arange(1, 61)
    mean = values.cumsum(1) / n
    variance = (values**2).cumsum(1) / n - mean**2
    t = mean[:, 1:] / np.sqrt(variance[:, 1:] / (n[1:] - 1))
    assert (anytime.p_value(t, n[1:]).min(1) < 0.05).sum() < binom.ppf(0.001, 4_000, 0.05)
    assert (2 * student.sf(abs(t), n[1:] - 1).min(1) < 0.05).mean() > 0.3
