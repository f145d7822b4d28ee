"""Which GPU a job gets on a machine with several; their number is made up."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Outcome
from omegaconf import DictConfig, OmegaConf

from mnist_exp import build
from mnist_exp.sweep import gpus
from mnist_exp.sweep.launchers import fused_group, grouping
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The locks of GPUs in a folder of this test."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    with ExitStack() as held:
        monkeypatch.setattr(gpus, "_held", held)
        yield


@pytest.mark.parametrize(
    ("count", "visible", "names"),
    [
        (0, None, []),
        (0, "", []),
        (3, None, ["0", "1", "2"]),
        (2, "3, 7", ["3", "7"]),
        (1, "GPU-8a, nonsense", ["GPU-8a"]),  # CUDA ignores what follows a name that it doesn't know
    ],
)
def test_the_visible_ones(count: int, visible: str | None, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv(gpus.VISIBLE)
    if visible is not None:
        monkeypatch.setenv(gpus.VISIBLE, visible)
    assert gpus.visible() == names


class _Job:
    """A process that takes a GPU and holds it until it is ended."""

    def __init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        self.process = fork.Process(target=self._hold, args=(sender,))
        self.process.start()
        self.gpu = receiver.recv()

    def _hold(self, sender: Connection) -> None:
        sender.send(gpus.take(["3", "7"]))
        with suppress(KeyboardInterrupt):
            multiprocessing.Event().wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def test_a_job_takes_the_gpu_with_the_fewest_jobs() -> None:
    """Whichever ends first makes room, also if it is killed."""
    first, second, third = _Job(), _Job(), _Job()
    assert [first.gpu, second.gpu, third.gpu] == ["3", "7", "3"]
    second.kill()
    fourth = _Job()
    assert fourth.gpu == "7"
    first.kill()
    third.kill()
    assert gpus.take(["3", "7"]) == "3"
    fourth.kill()


def _cfg(device: str) -> DictConfig:
    return OmegaConf.create({"device": device})


@pytest.mark.parametrize(
    ("device", "count", "given"),
    [("auto", 2, "0"), ("cuda", 2, "0"), ("auto", 1, None), ("cpu", 2, None), ("cuda:1", 2, None)],
)
def test_a_job_that_names_no_gpu_sees_one_of_several(
    device: str, count: int, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(gpus.VISIBLE)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert gpus.on_its_own(_cfg(device), lambda: os.environ.get(gpus.VISIBLE))() == given


def test_fused_groups_train_on_a_gpu_each(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "visible", lambda: ["3", "7"])
    monkeypatch.setattr(grouping, "_capacity", lambda cfg, max_models: (2, 1))
    train = fused_group.train

    def train_and_say(main: Any, configs: Any) -> None:
        (Path(configs[0].hydra.runtime.output_dir) / "gpu").write_text(os.environ[gpus.VISIBLE])
        train(main, configs)

    monkeypatch.setattr(fused_group, "train", train_and_say)
    ended = run("-m", *TINY, "seed=0,1", "hydra/launcher=fused")
    assert ended.code == 0
    assert {(folder / "gpu").read_text() for folder in ended.folders} == {"3", "7"}
    assert not os.environ[gpus.VISIBLE]


def check(cfg: DictConfig, times: int) -> None:
    """Build the parts of a run as a sweep does before it starts."""
    trial = build.Trial(cfg, times)
    trial.check(trial.optimization(cfg))


def test_the_memory_of_each_gpu_is_for_its_own_jobs(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four jobs at once on two GPUs are two on each."""
    cfg = composed(*TINY)
    asked: list[int] = []
    monkeypatch.setattr(resources, "require_memory", lambda device, needs, times, advice: asked.append(times))
    monkeypatch.setattr(build, "check_step", lambda *parts: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for device in ("auto", "cuda", "cuda:1", "cpu"):
        cfg.device = device
        check(cfg, 4)
    check(cfg, 5)
    cfg.device = "auto"
    check(cfg, 5)
    assert asked == [2, 2, 4, 4, 5, 3]


def test_too_little_memory_for_the_jobs_of_a_gpu_is_refused(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed(*TINY)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(resources, "free_memory", lambda device: 30_000)
    check(cfg, 2)
    with pytest.raises(ConfigError, match=r"for each of 2 jobs at once\), and 0.0 MB are free on the cuda"):
        check(cfg, 4)
