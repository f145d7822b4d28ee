"""Components of variance agree with lme4's, intervals with their formula and SciPy, plans with simulations."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import nct, ttest_rel
from scipy.stats import t as student

from mnist_exp.report import anytime, crossed
from mnist_exp.report.crossed import Contrasts, Floats

# Davies & Goldsmith 1972, table 6.6, as in lme4's data set Penicillin: the millimetres that each of six samples of
# penicillin cleared on each of 24 plates.
PENICILLIN = """
    27 23 26 23 23 21  27 23 26 23 23 21  25 21 25 24 24 20  26 23 25 23 23 20  25 22 26 22 23 20  24 22 25 23 22 19
    24 20 23 21 22 19  26 22 26 24 24 21  24 21 24 22 22 20  24 21 24 23 22 19  26 23 26 24 24 21  25 22 26 24 24 20
    26 24 26 24 25 22  26 23 26 23 23 20  26 23 25 24 24 22  25 22 25 23 23 20  25 21 24 23 23 20  25 22 24 23 23 19
    24 21 23 21 21 19  26 23 26 24 24 21  25 21 24 22 22 18  25 22 25 22 22 20  24 21 24 22 24 19  24 21 24 22 21 18
"""


def contrasts(**facts: Any) -> Contrasts:
    """One contrast of 5 paired seeds on fixed images, but for these facts."""
    usual = {
        "difference": 0.01,
        "n": 5,
        "splits": 1,
        "paired": 1,
        "spread": 1e-4,
        "overlap": 0,
        "freedom": 1,
        "seeds_error": 0.004,
        "seeds_df": 4,
        "images": 0,
        "images_error": 0,
        "interaction": 0,
    }
    return Contrasts(*np.broadcast_arrays(*(np.atleast_1d(np.asarray(v, float)) for v in (usual | facts).values())))


def planned(difference: float, seeds: float, images: float, rest: float, n: int, size: int) -> Contrasts:
    """The contrast of n paired seeds and `size` images whose estimates are the true standard deviations."""
    spread, interaction = seeds**2 + rest**2 / size, rest**2 / size / n
    return contrasts(
        difference=difference,
        n=n,
        spread=spread,
        seeds_error=math.sqrt(spread / n),
        seeds_df=n - 1,
        images=size,
        images_error=images / math.sqrt(size),
        interaction=interaction,
    )


def tables(*shape: int) -> NDArray[np.float64]:
    """Tables of seeds and images, of which both have effects."""
    rng = np.random.default_rng(0)
    k, n, images = shape
    return rng.normal(size=(k, n, 1)) + rng.normal(size=(k, 1, images)) + rng.normal(size=shape)


def sums_of_squares(d: Floats) -> tuple[float, float, float]:
    """Mean squares of rows, columns and the rest of a table, as a textbook computes them."""
    n, images = d.shape
    rows, columns = d.mean(1, keepdims=True), d.mean(0, keepdims=True)
    rest = np.sum((d - rows - columns + d.mean()) ** 2) / ((n - 1) * (images - 1))
    return images * float(np.var(rows, ddof=1)), n * float(np.var(columns, ddof=1)), float(rest)


def test_components_agree_with_lme4() -> None:
    """Bates 2010, lme4: Mixed-effects modeling with R, section 2.1: standard deviations 0.8467, 1.9316 and 0.5499."""
    table = np.array(PENICILLIN.split(), dtype=float).reshape(24, 6)
    found = crossed.components(np.stack([table, np.zeros_like(table)]))
    assert [math.sqrt(part[0, 1]) for part in found] == pytest.approx([0.8467, 1.9316, 0.5499], abs=5e-5)


@pytest.mark.parametrize("kind", ["float64", "float16", "bool"])
def test_components_are_those_of_each_difference(kind: str) -> None:
    values = (tables(4, 3, 50) if kind != "bool" else tables(4, 3, 50) > 0).astype(kind)
    found = crossed.components(values)
    for a in range(4):
        for b in range(4):
            seeds, images, rest = sums_of_squares(values[a].astype(float) - values[b].astype(float))
            expected = ((seeds - rest) / 50, (images - rest) / 3, rest)
            assert [part[a, b] for part in found] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    of_first = crossed.components(values, of_first=True)
    assert [part.shape for part in of_first] == [(1, 4)] * 3
    for part, whole in zip(of_first, found, strict=True):
        assert part[0] == pytest.approx(whole[0], rel=1e-9, abs=1e-12)


def test_small_differences_of_large_values_keep_their_digits() -> None:
    """Two arms whose differences are a millionth of what they share."""
    small, shared = tables(2, 4, 30), 1e6 * tables(1, 4, 30)
    seeds, images, rest = sums_of_squares(small[0] - small[1])
    found = crossed.components(small + shared)
    assert [part[0, 1] for part in found] == pytest.approx(((seeds - rest) / 30, (images - rest) / 4, rest), rel=1e-6)


def test_on_fixed_images_the_margin_and_p_are_student_s() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    theirs = ttest_rel(a, b)
    error = float(np.std(a - b, ddof=1)) / math.sqrt(5)
    ours = contrasts(difference=np.mean(a - b), seeds_error=error)
    width = theirs.confidence_interval().high - np.mean(a - b)
    assert crossed.margin(ours, 0.05, False) == pytest.approx(width)
    assert crossed.p_values(ours, False) == pytest.approx(theirs.pvalue)


def test_margin_agrees_with_a_textbook() -> None:
    """Daniel, Biostatistics, example 6.4.4: 15 patients at 19.16 (sd 5.29), 30 others at 9.53 (2.69); t' = 2.133."""
    errors = 5.29 / math.sqrt(15), 2.69 / math.sqrt(30)
    ours = contrasts(difference=9.63, seeds_error=errors[0], seeds_df=14, images=30, images_error=errors[1])
    (found,) = crossed.margin(ours, 0.05, False)
    assert found / math.hypot(*errors) == pytest.approx(2.133, abs=5e-4)
    assert (9.63 - found, 9.63 + found) == pytest.approx((6.5, 12.7), abs=0.05)


def test_critical_values_are_weighted_by_variances() -> None:
    """Cochran & Cox: t(0.975, 4) = 2.776 and t(0.975, 99) = 1.984, by 0.004^2 and 0.003^2."""
    ours = contrasts(images=100, images_error=0.003)
    expected = (16 * 2.7764451 + 9 * 1.9842170) / 25 * 0.005
    assert crossed.margin(ours, 0.05, False) == pytest.approx(expected, rel=1e-7)


def test_margins_of_runs_that_were_looked_at_are_in_quadrature() -> None:
    """Howe 1974."""
    ours = contrasts(images=100, images_error=0.003)
    expected = math.hypot(anytime.critical(5, 0.05) * 0.004, student.isf(0.0125, 99) * 0.003)
    assert crossed.margin(ours, 0.05, True) == pytest.approx(expected, rel=1e-7)


def test_the_images_never_make_a_margin_narrower() -> None:
    """With two seeds they would, as they lower the critical value more than they raise the error."""
    ours = contrasts(n=2, seeds_df=1, images=5_000, images_error=[0.0, 0.001, 0.003, 0.01, 0.1])
    margins = crossed.margin(ours, 0.05, False)
    assert margins[:4] == pytest.approx(12.7062047 * 0.004, rel=1e-7)
    assert margins[4] > 0.1 * student.isf(0.025, 4_999)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_margins_hold_the_truth_and_are_narrower_than_howe_s(n: int, alpha: float) -> None:
    """Of 20,000 estimates at each ratio of both variances; 4 standard errors are allowed."""
    count, rng = 20_000, np.random.default_rng(n)
    ratio = 10.0 ** np.arange(-2, 4)[:, None]
    difference = np.sqrt(ratio + 1) * rng.normal(size=(6, count))
    error = np.sqrt(ratio * rng.chisquare(n - 1, (6, count)) / (n - 1))
    found = contrasts(difference=difference.ravel(), seeds_error=error.ravel(), seeds_df=n - 1, images=5_000)
    margins = crossed.margin(found._replace(images_error=np.ones(found.n.shape)), alpha, False).reshape(6, count)
    missed = np.mean(np.abs(difference) > margins, axis=1)
    assert (missed < alpha + 4 * math.sqrt(alpha / count)).all()
    howe = np.hypot(student.isf(alpha / 2, n - 1) * error, student.isf(alpha / 2, 4_999))
    assert (margins <= howe * (1 + 1e-12)).all()


@pytest.mark.parametrize("is_anytime", [False, True])
def test_p_is_the_alpha_at_which_the_margin_is_the_difference(is_anytime: bool) -> None:
    difference, error, of_images = np.meshgrid([1e-6, 0.003, 0.02, -0.4], [0.0002, 0.004], [0, 1e-5, 0.003, 0.1])
    ours = contrasts(
        difference=difference.ravel(), seeds_error=error.ravel(), images=300, images_error=of_images.ravel()
    )
    p, alone = crossed.p_values(ours, is_anytime), crossed.p_values(ours.on_these_images(), is_anytime)
    reached = (p > crossed.SMALLEST_P) & (p < 1 - 1e-9)
    assert reached.sum() > 10
    size = np.abs(ours.difference)
    assert crossed.margin(ours, p, is_anytime)[reached] == pytest.approx(size[reached], rel=1e-6)
    assert (p >= alone * (1 - 1e-9)).all()
    assert (crossed.margin(ours, 1.0, is_anytime)[p >= 1 - 1e-9] >= size[p >= 1 - 1e-9] * (1 - 1e-9)).all()


def test_no_difference_has_p_1_and_no_error_no_p() -> None:
    ours = contrasts(difference=[0, 0.01], seeds_error=[0.004, math.nan], images=100, images_error=[0.003, 0])
    p = crossed.p_values(ours, False)
    assert p[0] == 1
    assert math.isnan(p[1])
    assert math.isnan(crossed.margin(ours, 0.05, False)[1])


@pytest.mark.parametrize("df", [2, 4, 30, 500])
@pytest.mark.parametrize("alpha", [0.05, 1e-5])
def test_power_on_fixed_images_is_that_of_the_t_test(df: int, alpha: float) -> None:
    """By SciPy's noncentral t distribution. Where 3 seeds need a t of 447, power is almost a step, and less exact."""
    critical = float(student.isf(alpha / 2, df))
    for shift in critical * np.linspace(0.8, 2, 9):
        theirs = float(nct.sf(critical, df, shift))
        ours = contrasts(difference=shift, seeds_df=df)
        limits = np.array([critical]), ours.seeds_df, np.array([1.0]), ours.images, ours.images_error
        got = crossed._power(ours.difference, *limits, is_anytime=False)
        assert got == pytest.approx(theirs, abs=0.015 if critical > 100 else 1e-4)


def power(contrast: Contrasts, n: int, size: int, alpha: float, sds: tuple[float, float, float]) -> float:
    """The share of 4,000 simulated sweeps of n seeds and `size` images that find the difference.

    Means and mean squares are drawn from their distributions: normal, and multiples of chi-squared.
    """
    seeds, images, rest = (sd**2 for sd in sds)
    rng, count = np.random.default_rng(1), 4_000

    def mean_square(expected: float, df: int) -> Floats:
        return expected * rng.chisquare(df, count) / df

    ms_seeds, ms_images = mean_square(rest + size * seeds, n - 1), mean_square(rest + n * images, size - 1)
    excess = np.maximum(ms_images - mean_square(rest, (n - 1) * (size - 1)), 0)
    found = contrasts(
        difference=contrast.difference
        + rng.normal(size=count) * math.sqrt(seeds / n + images / size + rest / n / size),
        n=n,
        seeds_df=n - 1,
        seeds_error=np.sqrt(ms_seeds / n / size),
        images=size,
        images_error=np.sqrt(excess / n / size),
    )
    return float(np.mean(np.abs(found.difference) > crossed.margin(found, alpha, False)))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 66])
@pytest.mark.parametrize(
    ("difference", "sds"),
    [
        (0.002, (0.0008, 0.03, 0.08)),
        (0.003, (0.0012, 0.05, 0.05)),
        (0.004, (0.0015, 0.06, 0.1)),
        (0.004, (0.0, 0.05, 0.3)),  # seeds matter through single images alone
    ],
)
def test_planned_seeds_and_images_have_the_power(
    difference: float, sds: tuple[float, float, float], alpha: float
) -> None:
    """0.025 is four standard errors of a share of 0.8 in 4,000 sweeps."""
    now = planned(difference, *sds, n=8, size=5_000)
    (n,), (size,) = crossed.seeds_needed(now, alpha, False), crossed.images_needed(now, alpha, False)
    assert n is not None
    assert size is not None
    assert power(now, n, 5_000, alpha, sds) > 0.8 - 0.025
    assert n == crossed.MIN_SEEDS or power(now, n - 1, 5_000, alpha, sds) < 0.8 + 0.025
    assert power(now, 8, size, alpha, sds) > 0.8 - 0.025
    assert power(now, 8, round(0.95 * size), alpha, sds) < 0.8 + 0.025


def test_where_images_are_the_limit_no_number_of_seeds_suffices() -> None:
    found = planned(0.001, 0.0005, 0.04, 0.05, n=10, size=5_000)
    assert crossed.seeds_needed(found, 0.05, False) == [None]
    (images,) = crossed.images_needed(found, 0.05, False)
    assert images is not None
    assert 5_000 < images < 50_000


def test_where_seeds_are_the_limit_no_number_of_images_suffices() -> None:
    found = planned(0.001, 0.003, 0.01, 0.01, n=4, size=5_000)
    assert crossed.images_needed(found, 0.05, False) == [None]
    assert crossed.seeds_needed(found, 0.05, False)[0] is not None


def test_images_are_not_planned_where_they_are_fixed() -> None:
    assert crossed.images_needed(contrasts(difference=1.0), 0.05, False) == [None]


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.4, 3.0])
def test_looking_after_every_seed_makes_no_false_claims(ratio: float) -> None:
    """Of 4,000 sweeps from 2 to 40 seeds without a difference, fewer than 5 % ever show one.

    The images' variance is `ratio` times that of a seed, so that it matters more the more seeds there are.
    """
    count, n = 4_000, np.arange(1, 41)
    rng = np.random.default_rng(0)
    seeds, images = rng.normal(size=(count, 40)), math.sqrt(ratio) * rng.normal(size=(count, 1))
    mean = seeds.cumsum(1) / n
    error = np.sqrt(((seeds**2).cumsum(1) / n - mean**2)[:, 1:] / (n[1:] - 1))
    looks = contrasts(
        difference=(mean + images)[:, 1:].ravel(),
        seeds_error=error.ravel(),
        images=5_000,
        n=np.tile(n[1:], count),
        seeds_df=np.tile(n[1:] - 1, count),
        images_error=math.sqrt(ratio),
    )
    is_found = np.abs(looks.difference) > crossed.margin(looks, 0.05, True)
    assert is_found.reshape(count, 39).any(1).mean() < 0.05


def test_a_sweep_that_is_looked_at_needs_more_seeds() -> None:
    found = planned(0.002, 0.0018, 0.02, 0.05, n=8, size=5_000)
    (fixed,), (looked_at,) = (crossed.seeds_needed(found, 0.05, is_anytime) for is_anytime in (False, True))
    assert fixed is not None
    assert looked_at is not None
    assert fixed < looked_at < 3 * fixed
