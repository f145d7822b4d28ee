import math

import pytest

from mnist_exp.report.figures import axis


@pytest.mark.parametrize(
    ("points", "ends"),
    [
        ([98.0], (98, 98)),
        ([97.0, 98.0], (97, 98)),
        ([11.0, 97.9, 98.0], (97.9, 98)),  # far below the others
        ([96.0, 97.9, 98.0], (96, 98)),  # below the others, but not far
        ([math.nan, 97.0, 98.0], (97, 98)),
        ([], (0, 0)),
    ],
)
def test_limits_contain_all_points_but_those_far_below(points: list[float], ends: tuple[float, float]) -> None:
    low, high = axis.limits(points)
    assert low < ends[0] <= ends[1] < high
    assert high - low == pytest.approx(1.1 * (ends[1] - ends[0]) or 0.2)


def test_intervals_widen_the_limits_by_the_range_of_the_points_at_most() -> None:
    low, high = axis.limits([97.0, 98.0], [96.5, 300.0])
    assert 96 < low < 96.5
    assert 98 < high <= 100.5


@pytest.mark.parametrize(
    ("low", "high"), [(97.81, 98.23), (11, 99), (99.91, 100.3), (0.071, 0.113), (99.9991, 99.9999)]
)
def test_ticks_have_distinct_labels_that_are_exact(low: float, high: float) -> None:
    ticks, labels = axis.round_ticks(low, high, 6)
    assert len(ticks) == len(set(labels)) >= 2
    assert [float(label) for label in labels] == pytest.approx(ticks, abs=1e-9)
    assert all(low <= tick <= min(high, 100) for tick in ticks)


def test_labels_that_would_touch_the_one_before_are_not_shown() -> None:
    assert axis.without_overlap([0, 1, 2, 3, 9], [1, 1, 1, 1, 1]) == [0, 1, 2, 3, 4]
    assert axis.without_overlap([0, 1, 2, 3, 9], [2, 1, 2, 1, 1]) == [0, 2, 4]
    assert axis.without_overlap([0], [5]) == [0]


def test_limits_of_a_loss_leave_out_what_is_far_above_and_end_at_0() -> None:
    low, high = axis.limits([0.05, 0.051, 2.3], sign=-1, least=0.001)
    assert low < 0.05 < 0.051 < high < 0.06
    low, high = axis.limits([0.0, 0.01], [-0.5, 0.012], sign=-1, least=0.001)
    assert -0.001 < low <= 0
    assert high > 0.012
    assert axis.limits([0.2], sign=-1, least=0.001) == pytest.approx((0.199, 0.201))


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1e-4, 1e-2, "0.0001 0.001 0.01"),
        (0.009, 0.11, "0.01 0.02 0.05 0.1"),
        (0.0095, 0.032, "0.01 0.015 0.02 0.03"),
        (0.0101, 0.0119, "0.0102 0.0104 0.0106 0.0108 0.011 0.0112 0.0114 0.0116 0.0118"),
        (1e-8, 1e8, "1e-08 1e-06 0.0001 0.01 1 100 1e+04 1e+06 1e+08"),
    ],
)
def test_there_are_three_to_ten_ticks_on_a_logarithmic_axis(low: float, high: float, labels: str) -> None:
    assert " ".join(axis.log_ticks(low, high)[1]) == labels


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [(1.9, 4.2, "98 97.5 97 96"), (0.5, 60, "99.5 99 98 95 90 80 50"), (0.01, 90, "99.99 99.9 99 90")],
)
def test_ticks_of_misses_are_labelled_with_accuracies(low: float, high: float, labels: str) -> None:
    assert " ".join(axis.accuracy_ticks(low, high)[1]) == labels
