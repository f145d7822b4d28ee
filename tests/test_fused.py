"""Runs that are trained as one come out as if each were alone."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from conftest import ROOT
from omegaconf import DictConfig
from torch import Tensor

from mnist_exp import build, loop
from mnist_exp.data.batches import Normalize
from mnist_exp.data.sources import Images
from mnist_exp.fused.together import Together

Composed = Callable[..., DictConfig]
SMALL = ["model.hidden_layers=[12,8]", "data.validation=23", "data.batch_size=30", "epochs=2", "device=cpu"]
OTHER_SEEDS_AND_RATES = [("seed=0", 1.0), ("seed=0", 0.3), ("seed=1", 1.0), ("seed=2", 0.3), ("seed=1", 0.3)]


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and images in float64."""
    to_floats, model = Normalize.__call__, build.model
    monkeypatch.setattr(Normalize, "__call__", lambda *it: to_floats(*it).double())
    monkeypatch.setattr(build, "model", lambda *it, **sizes: model(*it, **sizes).double())


@pytest.fixture
def source(images: Tensor, labels: Tensor) -> Images:
    return Images("made", tuple("0123456789"), images, labels, images, labels, "")


def training(cfg: DictConfig, source: Images) -> loop.Training:
    data = build.split(cfg, source, build.device(cfg))
    model = build.model(cfg, data, num_classes=10)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, steps_per_epoch=len(data.train))
    return loop.Training(model, build.loss(cfg), optimizer, schedule, data.train, data.val)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def group(composed: Composed, *words: str) -> list[DictConfig]:
    """Configs that differ in seeds and learning rates."""
    words = tuple(word for word in (*SMALL, *words) if "hidden_layers" not in word or "model=mlp" in words)
    rate = composed(*words).optimizer.lr
    return [composed(*words, seed, f"optimizer.lr={rate * times}") for seed, times in OTHER_SEEDS_AND_RATES]


def numbers(parts: loop.Training) -> list[Any]:
    """All that a training has come to."""
    optimizer = parts.optimizer.state_dict()
    states = [value for state in optimizer["state"].values() for value in state.values() if value is not None]
    rates = [part["lr"] for part in optimizer["param_groups"]]
    return [*parts.model.state_dict().values(), *states, *rates, *parts.schedule.get_last_lr()]


def require_equal(configs: Sequence[DictConfig], source: Images) -> None:
    fused, alone = ([training(cfg, source) for cfg in configs] for _ in range(2))
    together = Together(fused)
    for epoch in (1, 2):
        rows = together.epoch(epoch)
        for row, parts in zip(rows, alone, strict=True):
            assert not isinstance(row, FloatingPointError)
            expected = loop.train_and_validate(parts, epoch)
            assert row[:-1] == pytest.approx(expected[:-1], rel=1e-9)
    for one, other in zip(fused, alone, strict=True):
        for ours, theirs in zip(numbers(one), numbers(other), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
        assert one.schedule.state_dict() == other.schedule.state_dict()
        assert torch.equal(one.train.order.get_state(), other.train.order.get_state())
        assert torch.equal(one.train.chance.get_state(), other.train.chance.get_state())


CHOICES = {name: options(name) for name in ("model", "activation", "loss", "optimizer", "schedule")}
USUAL = {"model": "mlp", "activation": "tanh", "loss": "cross_entropy", "optimizer": "adam", "schedule": "constant"}
ONE_BY_ONE = [USUAL | {name: option} for name, found in CHOICES.items() for option in found]


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("choice", ONE_BY_ONE, ids=lambda choice: "-".join(choice.values()))
def test_fused_equals_alone(choice: dict[str, str], composed: Composed, source: Images) -> None:
    require_equal(group(composed, *(f"{name}={option}" for name, option in choice.items())), source)


@pytest.mark.slow
@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
@pytest.mark.parametrize("model", CHOICES["model"])
def test_fused_equals_alone_whatever_is_chosen(model: str, optimizer: str, composed: Composed, source: Images) -> None:
    others = list(product(CHOICES["activation"], CHOICES["loss"], CHOICES["schedule"]))
    assert len(others) == 72
    for activation, loss, schedule in others:
        words = f"model={model} optimizer={optimizer} activation={activation} loss={loss} schedule={schedule}"
        require_equal(group(composed, *words.split()), source)
