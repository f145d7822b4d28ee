"""What the tests share: train.py called in this process, and images of noise."""

import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import compositions
from helpers.sweeps import sweep
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

import mnist_exp.config  # noqa: F401  # it registers the schema that every config is composed with
from mnist_exp import build
from mnist_exp.data.batches import Normalize
from mnist_exp.data.images import DataSet, Part
from mnist_exp.report import results
from mnist_exp.report.results import Results
from mnist_exp.system import signals

pytest_plugins = ["helpers.browser", "helpers.data_files", "slurm.cluster"]

ROOT = Path(__file__).parents[1]
TINY = [
    "data=digits",
    "data.validation=200",
    "augmentation=none",
    "model.hidden_layers=[16]",
    "epochs=2",
    "plots=false",
]


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but those that need one, and handle Ctrl-C.

    Sweeps fork, which a process that has used CUDA can't do. A script's background processes ignore Ctrl-C.
    """
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)  # two busy cores: threads of OpenMP would wait for each other
    torch.ones(1, requires_grad=True).backward()  # the first one after an export starts threads, and no fork survives
    signal.signal(signal.SIGINT, signal.default_int_handler)
    compositions.share(pytest.MonkeyPatch())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, let neighbours share a process and what it has made, and idle processes take tests from busy ones."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.option.dist == "load" else None


class Outcome(NamedTuple):
    code: int
    out: str
    err: str
    folders: list[Path]  # of all runs so far, oldest first


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `python train.py ...` in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    get_mode = Hydra.get_mode

    def mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> object:
        """Hydra composes each config once more to look for hydra.mode, which takes as long as a small run."""
        return get_mode(hydra, config_name, overrides) if "hydra.mode" in str(overrides) else None

    monkeypatch.setattr(Hydra, "get_mode", mode)

    def type_in(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code: object = 0
        handlers = {number: signal.getsignal(number) for number in signals.STOP_SIGNALS}
        try:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        finally:  # a process that is stopped ignores what comes after, and this one lives on
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        if isinstance(code, str):  # Python prints a message given to sys.exit, and exits with 1
            code, err = 1, err + str(code)
        folders = sorted(path.parent for path in tmp_path.glob("*/*/**/metrics.csv"))
        return Outcome(int(str(code or 0)), out, err, folders)

    return type_in


@pytest.fixture(autouse=True)
def joblib_without_workers() -> Iterator[None]:
    """Stop joblib's workers: they would live on in the folder of this test, and work for the next one there."""
    yield
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky and loky._executor:
        loky._executor.shutdown(kill_workers=True)


@pytest.fixture
def composed() -> Iterator[Callable[..., DictConfig]]:
    """Compose a config from conf/ and the overrides, as a job gets it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"):

        def with_overrides(*overrides: str, folder: Path | None = None) -> DictConfig:
            cfg = compose("config", list(overrides), return_hydra_config=True)
            with open_dict(cfg):
                cfg.hydra.runtime.output_dir = str(folder)
                HydraConfig.instance().set_config(cfg)
                del cfg["hydra"]
            return cfg

        yield with_overrides
    HydraConfig.instance().cfg = None


@pytest.fixture
def images() -> torch.Tensor:
    """103 images of noise, (103, 1, 28, 28) uint8."""
    return torch.randint(0, 256, (103, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def coloured() -> torch.Tensor:
    """103 images of noise, (103, 3, 32, 32) uint8, whose channels differ in brightness and contrast."""
    noise = torch.rand(103, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return (noise * torch.tensor([250, 120, 60]).view(3, 1, 1)).to(torch.uint8)


@pytest.fixture
def labels() -> torch.Tensor:
    """Their labels, 0 to 9 in turn."""
    return torch.arange(103) % 10


@pytest.fixture
def source(images: torch.Tensor, labels: torch.Tensor) -> DataSet:
    """A data set that uses these images for training and for the test."""
    return DataSet("made", tuple("0123456789"), Part(images, labels), Part(images, labels), "")


@pytest.fixture
def coloured_source(coloured: torch.Tensor, labels: torch.Tensor) -> DataSet:
    """A data set that uses the coloured images for training and for the test."""
    return DataSet("made", tuple("0123456789"), Part(coloured, labels), Part(coloured, labels), "", preparation="crop")


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and images in float64."""
    to_floats, model = Normalize.__call__, build.model
    monkeypatch.setattr(Normalize, "__call__", lambda *arguments: to_floats(*arguments).double())
    monkeypatch.setattr(build, "model", lambda *arguments, **sizes: model(*arguments, **sizes).double())


MakeResults = Callable[..., Results]


@pytest.fixture(scope="session")
def make_results(tmp_path_factory: pytest.TempPathFactory) -> MakeResults:
    """Write the folder of a sweep without training, change the folder, and read it."""

    def make(
        grid: Mapping[str, Sequence[Any]],
        change: Callable[[Path], object] | None = None,
        by: str = "accuracy",
        **arguments: Any,
    ) -> Results:
        folder = sweep(tmp_path_factory.mktemp("sweep") / "sweep", grid, **arguments)
        if change:
            change(folder)
        return results.read([folder], by)

    return make
