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
