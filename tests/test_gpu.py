"""Augmentation, runs and sweeps on a GPU: pytest -m gpu. (Fused groups: test_fused_cuda_graph.py.)"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned, summary
from torch import Tensor

from mnist_exp.data.augment import Compose, RandomAffine, RandomCrop, RandomElastic, RandomRotation, Transform

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")]

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    "transform",
    [
        RandomRotation(30, "nearest"), RandomCrop(24, 3), RandomElastic(4, 34, 8),
        RandomAffine(20, 0.1, (0.8, 1.2), 10, "bilinear"),
        Compose(rotate=RandomRotation(10, "bilinear"), crop=RandomCrop(None, 2)),
    ],
    ids=lambda value: type(value).__name__,
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
