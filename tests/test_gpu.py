"""On a GPU: pytest -m gpu."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned, summary
from helpers.trainings import numbers, require_equal, training
from omegaconf import DictConfig
from torch import Tensor

from mnist_exp.data.augment import Compose, RandomAffine, RandomCrop, RandomElastic, RandomRotation, Transform
from mnist_exp.data.sources import Images
from mnist_exp.fused import cuda_graph
from mnist_exp.fused.cuda_graph import Recorded
from mnist_exp.fused.trainer import FusedTrainer, batches

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")]

Composed = Callable[..., DictConfig]
Run = Callable[..., Outcome]
SMALL = ["device=cuda", "data.validation=23", "data.batch_size=10", "epochs=2"]  # 8 steps an epoch
# A rate is on the device in float32: these are so without rounding.
OTHERS = [("seed=0", 2**-10), ("seed=0", 2**-12), ("seed=1", 2**-10), ("seed=2", 2**-12)]
CHOICES = [
    *(["model=mlp", f"optimizer={name}"] for name in ("adam", "adamw", "sgd", "nadam", "rmsprop")),
    ["model=mlp", "optimizer=adagrad", "optimizer.fused=false"],
    *([f"model={name}", "activation=prelu", "loss=mse"] for name in ("mlp", "lenet", "linear")),
    ["model=mlp", "model.max_norm=0.5", "schedule=step"],
    ["model=mlp", "augmentation=affine", "schedule=cosine"],
    ["model=mlp", "augmentation=elastic", "schedule=onecycle"],
]  # fmt: skip


def configs(composed: Composed, *words: str) -> list[DictConfig]:
    return [composed(*SMALL, *words, seed, f"optimizer.lr={lr}") for seed, lr in OTHERS]


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("words", CHOICES, ids=" ".join)
def test_fused_equals_alone(words: list[str], composed: Composed, source: Images) -> None:
    rounded = "schedule=cosine" in words or "schedule=onecycle" in words
    require_equal(configs(composed, *words), source, rel=1e-6 if rounded else 1e-9)


@pytest.mark.parametrize("words", [["optimizer=adam", "model.dropout=0.3"], ["optimizer=sgd", "model=lenet"]])
def test_a_recording_gives_the_same_bits(
    words: list[str], composed: Composed, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for warm in (2, 1000):
        monkeypatch.setattr(cuda_graph, "WARM", warm)
        trainings = [training(cfg, source) for cfg in configs(composed, *words)]
        together = FusedTrainer(trainings)
        rows = [row[:-1] for epoch in (1, 2) for row in together.train_epoch(epoch)]  # type: ignore[index]
        [trainer] = together.trainers
        assert (trainer.learn.graph is None) == (warm == 1000)  # type: ignore[attr-defined]
        found.append((rows, [numbers(parts) for parts in trainings]))
    assert found[0][0] == found[1][0]
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert all(
            torch.equal(one, other) if isinstance(one, Tensor) else one == other
            for one, other in zip(ours, theirs, strict=True)
        )


def test_nothing_is_waited_for_within_an_epoch(composed: Composed, source: Images) -> None:
    together = FusedTrainer(
        [training(cfg, source) for cfg in configs(composed, "model.dropout=0.1", "schedule=cosine")]
    )
    together.train_epoch(1)
    [trainer] = together.trainers
    trainer.begin(len(together.streams[0]))
    try:
        with warnings.catch_warnings(action="ignore"):  # torch calls it a prototype
            torch.cuda.set_sync_debug_mode("error")
        for images, labels in batches(together.streams):
            trainer.step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode(0)
    assert len(trainer.sizes) == 8


def test_work_that_can_not_be_recorded_is_done_as_ever() -> None:
    total = torch.zeros((), device="cuda")
    looks = Recorded(lambda x: total.add_(x.sum().item()).clone())
    assert [looks(torch.full((2,), number, device="cuda")).item() for number in (1.0, 2.0, 3.0, 4.0, 5.0)] == [
        2, 6, 12, 20, 30
    ]  # fmt: skip
    assert looks.graph is None
    assert torch.rand(3, device="cuda").max() < 1


def test_a_step_that_can_not_be_recorded_is_taken_as_ever(composed: Composed, source: Images) -> None:
    trainings = [training(cfg, source) for cfg in configs(composed)]
    together = FusedTrainer(trainings)
    [trainer] = together.trainers
    learn = trainer._learn

    def looking(images: Tensor, labels: Tensor) -> Tensor:
        assert images.sum().isfinite().item()
        return learn(images, labels)

    trainer.learn = Recorded(looking)
    rows = together.train_epoch(1)
    assert not any(isinstance(row, FloatingPointError) for row in rows)
    assert trainer.learn.graph is None


@pytest.mark.parametrize(
    "transform",
    [
        RandomRotation(30, "nearest"), RandomCrop(24, 3), RandomElastic(4, 34, 8),
        RandomAffine(20, 0.1, (0.8, 1.2), 10, "bilinear"),
        Compose(rotate=RandomRotation(10, "bilinear"), crop=RandomCrop(None, 2)),
    ],
    ids=lambda it: type(it).__name__,
)  # fmt: skip
def test_augmentation_is_that_of_a_cpu(transform: Transform, images: Tensor) -> None:
    """But where a pixel's place, or its grey, lies between two."""
    u = torch.rand(len(images), transform.num_random, generator=torch.Generator().manual_seed(0))
    ours, theirs = transform(images.cuda(), u).cpu().int(), transform(images, u).int()
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs() > 1).double().mean() < 1e-3


def test_a_run_gives_the_same_bits_again_and_where_it_goes_on(run: Run) -> None:
    words = [*TINY, "augmentation=rotate_crop", "data.batch_size=50", "model.dropout=0.1", "device=cuda"]
    for folder, epochs in ("one", 3), ("two", 3), ("three", 2):
        outcome = run(*words, f"epochs={epochs}", f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.err
    assert run("resume=three", "epochs=3").code == 0
    assert learned(Path("one")) == learned(Path("two")) == learned(Path("three"))
    assert summary(Path("one"))["device"] == "cuda:0"


def test_a_fused_sweep(tmp_path: Path) -> None:
    words = ["-m", *TINY, "data.batch_size=50", "augmentation=rotate_crop", "hydra/launcher=fused", "seed=0,1,2"]
    words += ["optimizer.lr=0.001,0.002", "plots=false", "epochs=3", "model.dropout=0.1"]
    for folder in ("one", "two"):
        command = [sys.executable, "-W", "error", str(ROOT / "train.py"), *words, f"hydra.sweep.dir={folder}"]
        subprocess.run(command, cwd=tmp_path, check=True)
    for number in range(6):
        ours = tmp_path / "one" / str(number)
        facts = summary(ours)
        assert (facts["status"], facts["device"]) == ("completed", "cuda:0")
        assert learned(ours) == learned(tmp_path / "two" / str(number))
