"""Which jobs of a sweep are trained as one."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from mnist_exp import build
from mnist_exp.data.images import DataSet
from mnist_exp.fused import memory
from mnist_exp.sweep.launchers import grouping
from mnist_exp.sweep.launchers.grouping import Group
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError

FUSED = "hydra_plugins.mnist_exp.launcher.FusedLauncher"


@pytest.fixture(scope="module")
def job() -> Any:
    """Compose the config of a job, with Hydra's section."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):
        yield lambda *overrides: compose("config", list(overrides), return_hydra_config=True)


Job = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "override",
    [
        "seed=5", "optimizer.lr=0.5", "model.dropout=0.3", "model.input_dropout=0.3", "init=orthogonal", "patience=3",
        "schedule=cosine", "loss.label_smoothing=0.1", "augmentation.rotation.degrees=3", "plots=false", "tags=[a]",
    ],
)  # fmt: skip
def test_jobs_that_differ_so_are_trained_as_one(override: str, job: Job) -> None:
    assert grouping.group_key(job(override)) == grouping.group_key(job())


@pytest.mark.parametrize(
    "override",
    [
        "model=lenet", "model.hidden_layers=[3]", "activation=tanh", "optimizer=sgd", "loss=mse", "epochs=3",
        "data=digits", "data.batch_size=3", "data.seed=3", "data.validation=100", "data.root=elsewhere", "device=cpu",
        "threads=2", "deterministic=false", "augmentation=none", "augmentation.crop.size=20", "best_by=val_accuracy",
    ],
)  # fmt: skip
def test_jobs_that_differ_so_are_not(override: str, job: Job) -> None:
    assert grouping.group_key(job(override)) != grouping.group_key(job())


@pytest.mark.parametrize("override", ["optimizer._target_=torch.optim.LBFGS", "hydra.job.chdir=true"])
def test_jobs_that_are_trained_alone(override: str, job: Job) -> None:
    assert grouping.group_key(job(override)) is None


def test_groups_come_in_the_order_of_their_jobs_sorted_by_seed(job: Job) -> None:
    words = [("relu", 1, 3), ("tanh", 0, 3), ("relu", 0, 3), ("tanh", 1, 3), ("relu", 0, 4)]
    configs = [
        job(f"activation={activation}", f"seed={seed}", f"data.batch_size={size}", "plots=false")
        for activation, seed, size in words
    ]
    assert grouping.group_jobs(configs) == [
        Group([2, 0], "activation=relu data.batch_size=3"),
        Group([1, 3], "activation=tanh data.batch_size=3"),
        Group([4], "activation=relu data.batch_size=4 seed=0"),
    ]


def test_jobs_without_a_key_are_alone(job: Job) -> None:
    groups = grouping.group_jobs([job("hydra.job.chdir=true")] * 2)
    assert [group.jobs for group in groups] == [[0], [1]]


def test_the_description_of_groups() -> None:
    assert grouping.describe([Group([0, 2], "activation=relu"), Group([1], "lr=1"), Group([3], "")]) == (
        "  2 jobs are trained as one (activation=relu)\n"
        "  1 job runs on its own: no other shares its model, optimizer and data (lr=1)\n"
        "  1 job runs on its own: no other shares its model, optimizer and data"
    )


@pytest.mark.parametrize(
    ("at_once", "most", "sizes"),
    [
        (1, 100, [[7]]),
        (2, 100, [[3, 4]]),
        (2, 3, [[1, 2], [2, 2]]),
        (2, 2, [[1, 2], [2, 2]]),
        (1, 3, [[2], [2], [3]]),
        (8, 100, [[1] * 7]),
    ],
)
def test_a_group_is_divided_into_rounds(
    at_once: int, most: int, sizes: list[list[int]], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "_capacity", lambda cfg, max_models: (at_once, most))
    jobs = [10, 11, 12, 13, 14, 15, 16]
    rounds = grouping.rounds(job(), jobs, None)
    assert [[len(group) for group in groups] for groups in rounds] == sizes
    assert [index for groups in rounds for group in groups for index in group] == jobs
    assert all(len(group) <= most for groups in rounds for group in groups)


def test_the_capacity_follows_the_memory_and_the_cores(
    job: Job, source: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 3)
    monkeypatch.setattr(resources, "free_memory", lambda device: 600)
    monkeypatch.setattr(build, "cached_source", lambda cfg: source)
    monkeypatch.setattr(memory, "bytes_per_model", lambda *parts: 10)
    cfg = job("device=cpu", "data.validation=23", "data.batch_size=30")
    assert grouping._capacity(cfg, None) == (3, 10)  # a third of half of it
    assert grouping._capacity(cfg, 4) == (3, 4)
    monkeypatch.setattr(build, "device", lambda cfg: torch.device("cuda:0"))
    assert grouping._capacity(cfg, None) == (1, 30)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert grouping._capacity(cfg, None) == (1, 30)  # it names one
    cfg.device = "auto"
    assert grouping._capacity(cfg, None) == (4, 30)  # each has a GPU of its own
    assert grouping._capacity(cfg, 7) == (4, 7)


def test_the_capacity_is_found_without_the_compiler(job: Job, source: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch._dynamo takes a second, and each batch of a search asks for the capacity in a new process."""
    monkeypatch.setattr(build, "cached_source", lambda cfg: source)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    grouping._capacity(job("device=cpu", "data.validation=23", "data.batch_size=30"), None)
    assert not hasattr(sys.modules["torch._dynamo"], "__file__")


def test_is_fused() -> None:
    assert grouping.is_fused({"_target_": FUSED, "max_models": None})
    assert grouping.is_fused({"_target_": FUSED, "max_models": 1})
    assert not grouping.is_fused({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})


@pytest.mark.parametrize("most", [0, -5])
def test_less_than_one_model_is_refused(most: int) -> None:
    with pytest.raises(
        ConfigError, match=f"^hydra.launcher.max_models={most}: must be 1 or more, or null for no limit$"
    ):
        grouping.is_fused({"_target_": FUSED, "max_models": most})
