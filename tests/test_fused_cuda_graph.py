"""Fused groups on a GPU, whose steps are captured as CUDA graphs: pytest -m gpu."""

import warnings

import pytest
import torch
from helpers.trainings import Composed, require_equal, trained_state, training
from omegaconf import DictConfig
from torch import Tensor

from mnist_exp.data.images import DataSet
from mnist_exp.fused import cuda_graph
from mnist_exp.fused.cuda_graph import CapturedStep, on_parallel_streams
from mnist_exp.fused.trainer import FusedTrainer, batches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")]

SMALL = ["device=cuda", "data.validation=23", "data.batch_size=10", "epochs=2"]  # 8 steps per epoch
# The device has the rates in float32: these are exact.
SEEDS_AND_RATES = [("seed=0", 2**-10), ("seed=0", 2**-12), ("seed=1", 2**-10), ("seed=2", 2**-12)]
CHOICES = [
    *(["model=mlp", f"optimizer={name}"] for name in ("adam", "adamw", "sgd", "nadam", "rmsprop")),
    ["model=mlp", "optimizer=adagrad", "optimizer.fused=false"],
    *([f"model={name}", "activation=prelu", "loss=mse"] for name in ("mlp", "lenet", "linear")),
    ["model=mlp", "model.max_norm=0.5", "schedule=step"],
    ["model=mlp", "augmentation=affine", "schedule=cosine"],
    ["model=mlp", "augmentation=elastic", "schedule=onecycle"],
]  # fmt: skip


def configs(composed: Composed, *overrides: str) -> list[DictConfig]:
    return [composed(*SMALL, *overrides, seed, f"optimizer.lr={lr}") for seed, lr in SEEDS_AND_RATES]


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("overrides", CHOICES, ids=" ".join)
def test_fused_equals_alone(overrides: list[str], composed: Composed, source: DataSet) -> None:
    rounded = "schedule=cosine" in overrides or "schedule=onecycle" in overrides
    require_equal(configs(composed, *overrides), source, rel=1e-6 if rounded else 1e-9)


@pytest.mark.parametrize("overrides", [["optimizer=adam", "model.dropout=0.3"], ["optimizer=sgd", "model=lenet"]])
def test_a_captured_step_gives_the_same_bits(
    overrides: list[str], composed: Composed, source: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for warmup in (2, 1000):
        monkeypatch.setattr(cuda_graph, "WARMUP_CALLS", warmup)
        trainings = [training(cfg, source) for cfg in configs(composed, *overrides)]
        group = FusedTrainer(trainings)
        rows = [row[:-1] for epoch in (1, 2) for row in group.train_epoch(epoch)]  # type: ignore[index]
        [trainer] = group.trainers
        assert isinstance(trainer.compute_step, CapturedStep)
        assert (trainer.compute_step.graph is None) == (warmup == 1000)
        found.append((rows, [trained_state(parts) for parts in trainings]))
    assert found[0][0] == found[1][0]
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert all(
            torch.equal(one, other) if isinstance(one, Tensor) else one == other
            for one, other in zip(ours, theirs, strict=True)
        )


def test_the_cpu_never_waits_for_the_gpu_within_an_epoch(composed: Composed, source: DataSet) -> None:
    group = FusedTrainer([training(cfg, source) for cfg in configs(composed, "model.dropout=0.1", "schedule=cosine")])
    group.train_epoch(1)
    [trainer] = group.trainers
    trainer.begin_epoch(len(group.streams[0]))
    try:
        with warnings.catch_warnings(action="ignore"):  # torch calls this mode a prototype
            torch.cuda.set_sync_debug_mode("error")
        for images, labels in batches(group.streams):
            trainer.step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode(0)
    assert len(trainer.batch_sizes) == 8


def test_a_function_that_can_not_be_captured_runs_eagerly() -> None:
    total = torch.zeros((), device="cuda")
    reads_back = CapturedStep(lambda x: total.add_(x.sum().item()).clone())
    assert [reads_back(torch.full((2,), number, device="cuda")).item() for number in (1.0, 2.0, 3.0, 4.0, 5.0)] == [
        2, 6, 12, 20, 30
    ]  # fmt: skip
    assert reads_back.graph is None
    assert torch.rand(3, device="cuda").max() < 1


def test_arguments_of_another_shape_run_eagerly() -> None:
    double = CapturedStep(lambda x: 2 * x)
    for number in range(4):
        assert double(torch.full((3,), float(number), device="cuda")).tolist() == [2.0 * number] * 3
    assert double.graph is not None
    assert double(torch.ones(2, device="cuda")).tolist() == [2.0, 2.0]


def test_a_step_that_can_not_be_captured_is_taken_eagerly(composed: Composed, source: DataSet) -> None:
    group = FusedTrainer([training(cfg, source) for cfg in configs(composed)])
    [trainer] = group.trainers
    compute_step = trainer._compute_step

    def reading_back(images: Tensor, labels: Tensor) -> Tensor:
        assert images.sum().isfinite().item()
        return compute_step(images, labels)

    trainer.compute_step = captured = CapturedStep(reading_back)
    rows = group.train_epoch(1)
    assert not any(isinstance(row, FloatingPointError) for row in rows)
    assert captured.graph is None


def test_work_on_parallel_streams_is_ordered_with_the_work_around() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    numbers = torch.zeros(100, device=device)
    numbers += 1
    used = set()
    for part in on_parallel_streams(list(numbers.split(1)), device):
        used.add(torch.cuda.current_stream(device).cuda_stream)
        part += 1
    assert (numbers * 2).tolist() == [4.0] * 100
    assert len(used) == cuda_graph.NUM_STREAMS
