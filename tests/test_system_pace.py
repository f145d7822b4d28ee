"""Looks take at most a tenth of a core."""

import time

import pytest

from mnist_exp.system import pace


@pytest.mark.parametrize(("took", "rest"), [(0.0, 1), (0.05, 1), (0.5, 5), (3.0, 30)])
def test_the_next_look_waits_ten_times_as_long_as_the_last_one_took(
    took: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100 + took)
    assert pace.until_next_look(100) == pytest.approx(rest)
