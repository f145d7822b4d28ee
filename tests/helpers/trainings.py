"""Trainings without run folders: some train as a fused group, and are compared with the same ones trained alone."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from mnist_exp import build
from mnist_exp.data.images import DataSet
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.training import loop

Composed = Callable[..., DictConfig]
SMALL = ["model.hidden_layers=[12,8]", "data.validation=23", "data.batch_size=30", "epochs=2", "device=cpu"]


def variants(cfg: DictConfig, seeds_and_factors: Sequence[tuple[int, float]]) -> list[DictConfig]:
    """Return configs that differ from `cfg` in their seeds, and by a factor in their learning rates."""
    configs = []
    for seed, factor in seeds_and_factors:
        other = copy.deepcopy(cfg)
        other.seed, other.optimizer.lr = seed, cfg.optimizer.lr * factor
        configs.append(other)
    return configs


def training(cfg: DictConfig, source: DataSet) -> loop.Training:
    """Build the parts of a run, and set the threads of this process as the run does."""
    build.setup_torch(cfg)
    data = build.split(cfg, source, build.device(cfg))
    model = build.model(cfg, data)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, steps_per_epoch=len(data.train))
    return loop.Training(model, build.loss(cfg), optimizer, schedule, data.train, data.val)


def trained_state(parts: loop.Training) -> list[Any]:
    """Return all weights, optimizer states and learning rates of a training."""
    optimizer = parts.optimizer.state_dict()
    states = [value for state in optimizer["state"].values() for value in state.values() if value is not None]
    lrs = [group["lr"] for group in optimizer["param_groups"]]
    return [*parts.model.state_dict().values(), *states, *lrs, *parts.schedule.get_last_lr()]


def require_equal(configs: Sequence[DictConfig], source: DataSet, rel: float = 1e-9) -> None:
    """Require that two epochs of a fused group equal two epochs alone: losses to `rel`, weights and states to 1e-7."""
    fused, alone = ([training(cfg, source) for cfg in configs] for _ in range(2))
    trainer = FusedTrainer(fused)
    for epoch in (1, 2):
        for row, parts in zip(trainer.train_epoch(epoch), alone, strict=True):
            assert not isinstance(row, FloatingPointError)
            expected = loop.train_and_validate(parts, epoch)
            assert row[:-1] == pytest.approx(expected[:-1], rel=rel)
    for one, other in zip(fused, alone, strict=True):
        for ours, theirs in zip(trained_state(one), trained_state(other), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
        assert one.schedule.state_dict() == other.schedule.state_dict()
        assert torch.equal(one.train.order_rng.get_state(), other.train.order_rng.get_state())
        assert torch.equal(one.train.augment_rng.get_state(), other.train.augment_rng.get_state())
