"""Runs without their folders: to be trained as one, and compared with the same trained alone."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from mnist_exp import build
from mnist_exp.data.sources import Images
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.training import loop


def training(cfg: DictConfig, source: Images) -> loop.Training:
    """The parts of a run."""
    data = build.split(cfg, source, build.device(cfg))
    model = build.model(cfg, data)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, steps_per_epoch=len(data.train))
    return loop.Training(model, build.loss(cfg), optimizer, schedule, data.train, data.val)


def numbers(parts: loop.Training) -> list[Any]:
    """All that a training has come to."""
    optimizer = parts.optimizer.state_dict()
    states = [value for state in optimizer["state"].values() for value in state.values() if value is not None]
    rates = [part["lr"] for part in optimizer["param_groups"]]
    return [*parts.model.state_dict().values(), *states, *rates, *parts.schedule.get_last_lr()]


def require_equal(configs: Sequence[DictConfig], source: Images, rel: float = 1e-9) -> None:
    """Two epochs as one come out as two alone: losses as `rel` says, weights and states to 1e-7."""
    fused, alone = ([training(cfg, source) for cfg in configs] for _ in range(2))
    together = FusedTrainer(fused)
    for epoch in (1, 2):
        rows = together.train_epoch(epoch)
        for row, parts in zip(rows, alone, strict=True):
            assert not isinstance(row, FloatingPointError)
            expected = loop.train_and_validate(parts, epoch)
            assert row[:-1] == pytest.approx(expected[:-1], rel=rel)
    for one, other in zip(fused, alone, strict=True):
        for ours, theirs in zip(numbers(one), numbers(other), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
        assert one.schedule.state_dict() == other.schedule.state_dict()
        assert torch.equal(one.train.order_rng.get_state(), other.train.order_rng.get_state())
        assert torch.equal(one.train.augment_rng.get_state(), other.train.augment_rng.get_state())
