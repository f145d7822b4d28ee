import math
from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from mnist_exp import schedules

EPOCHS, STEPS = 4, 5


def rates(schedule: Callable[..., LRScheduler], **keys: float) -> list[float]:
    """The learning rate at each step of a run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = schedule(optimizer, epochs=EPOCHS, steps_per_epoch=STEPS, **keys)
    seen = []
    for _ in range(EPOCHS * STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_constant() -> None:
    assert rates(schedules.constant) == [0.1] * 20


def test_cosine_follows_its_formula() -> None:
    formula = [0.02 + 0.08 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)]
    assert rates(schedules.cosine, min_lr=0.02) == pytest.approx(formula)


def test_step_counts_epochs() -> None:
    assert rates(schedules.step, step_size=2, gamma=0.5) == pytest.approx([0.1] * 10 + [0.05] * 10)


def test_onecycle_peaks_at_the_optimizers_rate() -> None:
    seen = rates(schedules.onecycle, pct_start=0.3, div_factor=25.0)
    assert seen[0] == pytest.approx(0.1 / 25)
    assert max(seen) == pytest.approx(0.1)
    assert seen.index(max(seen)) == 5  # 0.3 of 20 steps, counted from 0
    assert seen[-1] < 1e-5


def test_onecycle_goes_with_an_optimizer_that_has_no_momentum() -> None:
    optimizer = torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedules.onecycle(optimizer, epochs=1, steps_per_epoch=1, pct_start=0.3, div_factor=25.0)
