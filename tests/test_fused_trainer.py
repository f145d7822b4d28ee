"""Trainings of a fused group come out as if each were trained alone."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
from conftest import ROOT
from helpers.trainings import SMALL, Composed, require_equal, trained_state, training, variants
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from mnist_exp.data.images import DataSet
from mnist_exp.fused.trainer import FusedTrainer, StackTrainer, batches
from mnist_exp.system.program import ALLOW_MORE

SEEDS_AND_FACTORS = [(0, 1.0), (0, 0.3), (1, 1.0), (2, 0.3), (1, 0.3)]  # equal seeds, equal rates, and neither


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def overrides(choice: dict[str, str]) -> list[str]:
    small = [override for override in SMALL if "hidden_layers" not in override or choice["model"] == "mlp"]
    return [*small, *(f"{group}={option}" for group, option in choice.items())]


OPTIONS = {group: options(group) for group in ("model", "activation", "loss", "optimizer", "schedule")}
DEFAULT = {"model": "mlp", "activation": "tanh", "loss": "cross_entropy", "optimizer": "adam", "schedule": "constant"}
CHOICES = [DEFAULT, DEFAULT | {"activation": "prelu"}] + [  # the other activations are in the slow test of all
    DEFAULT | {group: option}
    for group, found in OPTIONS.items()
    for option in found
    if group != "activation" and option != DEFAULT[group]
]


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(choice.values()))
def test_fused_equals_alone(choice: dict[str, str], composed: Composed, source: DataSet) -> None:
    require_equal(variants(composed(*overrides(choice)), SEEDS_AND_FACTORS), source)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize(("model", "augmentation"), [("lenet", "affine"), ("mlp", "rotate_crop"), ("linear", "none")])
def test_fused_equals_alone_in_colour(
    model: str, augmentation: str, composed: Composed, coloured_source: DataSet
) -> None:
    cfg = composed(*overrides({"model": model}), f"augmentation={augmentation}")
    require_equal(variants(cfg, SEEDS_AND_FACTORS[:4]), coloured_source)


@pytest.mark.usefixtures("in_double")
def test_max_norm_initialization_and_augmentation(composed: Composed, source: DataSet) -> None:
    cfg = composed(*SMALL, "model=mlp", "model.max_norm=0.5", "init=orthogonal", "augmentation=elastic")
    require_equal(variants(cfg, SEEDS_AND_FACTORS), source)


@pytest.mark.usefixtures("in_double")
def test_other_augmentations_losses_and_schedules_train_together(composed: Composed, source: DataSet) -> None:
    cfg = composed(*SMALL, "augmentation=rotate_crop", "schedule=cosine")
    others = [copy.deepcopy(cfg) for _ in range(3)]
    others[0].augmentation.rotation.degrees = 30
    others[1].loss.label_smoothing = 0.1
    others[2].schedule = OmegaConf.load(ROOT / "conf" / "schedule" / "step.yaml")
    require_equal([cfg, *others, *variants(others[0], [(1, 1.0)])], source)


@pytest.mark.slow
@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("optimizer", OPTIONS["optimizer"])
@pytest.mark.parametrize("model", OPTIONS["model"])
def test_fused_equals_alone_for_all_combinations(
    model: str, optimizer: str, composed: Composed, source: DataSet
) -> None:
    others = list(product(OPTIONS["activation"], OPTIONS["loss"], OPTIONS["schedule"]))
    assert len(others) == 72
    cfg = composed(*overrides(DEFAULT | {"model": model, "optimizer": optimizer}))
    for chosen in others:
        for group, option in zip(("activation", "loss", "schedule"), chosen, strict=True):
            cfg[group] = OmegaConf.load(ROOT / "conf" / group / f"{option}.yaml")
        require_equal(variants(cfg, SEEDS_AND_FACTORS[:3]), source)


class Normed(nn.Sequential):
    """A user's model, with buffers that training changes."""

    def __init__(self, in_shape: tuple[int, ...], num_classes: int, **_: Any) -> None:
        super().__init__(nn.Conv2d(1, 4, 5, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))
        self(torch.zeros(2, *in_shape))


@pytest.mark.usefixtures("in_double")
def test_each_model_has_its_own_batch_normalization(
    composed: Composed, source: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOW_MORE, __name__)
    cfg = composed(f"model._target_={__name__}.Normed", *SMALL[1:])
    require_equal(variants(cfg, [(0, 1.0), (1, 1.0), (0, 10.0)]), source)


@pytest.mark.usefixtures("in_double")
def test_models_of_several_structures_train_together(composed: Composed, source: DataSet) -> None:
    trainings = [
        training(composed(*SMALL, f"model.hidden_layers=[{units}]"), source) for units in (4, 5, 4)
    ]  # fmt: skip
    trainer = FusedTrainer(trainings)
    assert [len(each.stack) for each in trainer.trainers] == [2, 1]
    rows = trainer.train_epoch(1)
    assert rows[0][:-1] == pytest.approx(rows[2][:-1])  # type: ignore[index]
    assert rows[0] != rows[1]


def test_dropout_repeats_to_the_bit(composed: Composed, source: DataSet) -> None:
    states = []
    for _ in range(2):
        trainings = [training(cfg, source) for cfg in variants(composed(*SMALL, "model.dropout=0.2"), [(0, 1), (1, 1)])]
        FusedTrainer(trainings).train_epoch(1)
        states.append([trained_state(parts) for parts in trainings])
    for ours, theirs in zip(*states, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_loss_that_is_not_finite_is_the_error_of_its_training(composed: Composed, source: DataSet) -> None:
    trainings = [training(cfg, source) for cfg in variants(composed(*SMALL), [(0, 1.0), (0, 1e33), (1, 1.0)])]
    results = FusedTrainer(trainings).train_epoch(7)
    assert [isinstance(result, FloatingPointError) for result in results] == [False, True, False]
    assert str(results[1]) == "the loss became nan at epoch 7, step 2: a smaller optimizer.lr usually helps"


def test_a_validation_loss_that_is_not_finite_is_an_error(composed: Composed, source: DataSet) -> None:
    cfg = composed(*SMALL, "data.batch_size=80")  # one step, whose loss is still finite
    trainings = [training(each, source) for each in variants(cfg, [(0, 1.0), (0, 1e33)])]
    row, error = FusedTrainer(trainings).train_epoch(1)
    assert not isinstance(row, FloatingPointError)
    assert str(error) == "the validation loss became nan after epoch 1: a smaller optimizer.lr usually helps"


def test_the_next_batch_overwrites_the_one_before(
    composed: Composed, source: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_exp.data.batches.CPU_CHUNK", 1)  # one batch per chunk
    streams = [training(cfg, source).train for cfg in variants(composed(*SMALL), [(0, 1.0), (1, 1.0)])]
    addresses = [images.data_ptr() for images, _ in batches(streams) if images.shape[1] == 30]
    assert len(addresses) > 1
    assert len(set(addresses)) == 1


@pytest.mark.parametrize("chunk", [1, 60, 100_000])
def test_batches_are_those_of_each_stream(
    chunk: int, composed: Composed, source: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_exp.data.batches.CPU_CHUNK", chunk)
    configs = variants(composed(*SMALL, "augmentation=rotate_crop"), [(seed, 1.0) for seed in range(5)])
    configs[3].augmentation.rotation.degrees = configs[4].augmentation.rotation.degrees = 40
    streams, alone = ([training(cfg, source).train for cfg in configs] for _ in range(2))
    together: list[tuple[Tensor, Tensor]] = [(images.clone(), labels.clone()) for images, labels in batches(streams)]
    for index, stream in enumerate(alone):
        for (images, labels), (expected, expected_labels) in zip(together, stream, strict=True):
            assert torch.equal(images[index], expected)
            assert torch.equal(labels[index], expected_labels)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("words", [["optimizer=adam"], ["optimizer=adamw"], ["optimizer=sgd", "schedule=step"]])
def test_the_step_that_a_gpu_captures_is_the_same(
    words: list[str], composed: Composed, source: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken on the CPU without a capture: the learning rates are in a tensor, and each group takes its own step."""
    initialize = StackTrainer.__init__

    def initialize_captured(self: StackTrainer, *arguments: Any) -> None:
        initialize(self, *arguments)
        self.is_captured = all(group.is_capturable() for group in self.groups)
        assert self.is_captured

    monkeypatch.setattr(StackTrainer, "__init__", initialize_captured)
    monkeypatch.setattr("mnist_exp.fused.trainer.on_parallel_streams", lambda items, device: iter(items))
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    lrs = (2**-10, 2**-12)  # exact in the tensor's float32
    configs: list[DictConfig] = [
        composed(*SMALL, *words, f"optimizer.lr={lr}", f"seed={seed}") for lr in lrs for seed in (0, 1)
    ]
    require_equal(configs, source)
