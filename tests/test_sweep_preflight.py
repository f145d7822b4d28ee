"""What is built before a sweep starts: each part once, and what is refused is what building each arm alone refuses."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from mnist_exp import build
from mnist_exp.sweep import preflight
from mnist_exp.sweep.compose import Composer, PlannedJob
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError

PICKY = """
import torch


class Picky(torch.optim.SGD):
    def __init__(self, params, lr):
        params = list(params)
        super().__init__(params, lr=lr)
        if lr == 0.5 and params[0].shape[0] == 9:
            raise ValueError("this rate is not for 9 neurons")
"""
Plan = Callable[..., list[PlannedJob]]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    """Plan the jobs of a grid of digits, which may use the optimizer `picky`."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("MNIST_EXP_ALLOW", "picky")
    monkeypatch.setattr(preflight, "run_in_subprocess", lambda work: work())
    for name, text in (("code/picky.py", PICKY), ("conf/optimizer/picky.yaml", "_target_: picky.Picky\nlr: 0.1\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3", job_name="train"), build.torch_settings_kept():
        search_path = f"hydra.searchpath=[file://{tmp_path}/conf]"
        master = compose("config", [search_path], return_hydra_config=True)
        composer = Composer(GlobalHydra.instance().config_loader(), master)

        def jobs(*grid: list[str]) -> list[PlannedJob]:
            return [composer.plan(["data=digits", *words]) for words in product(*grid)]

        yield jobs


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each part is built."""
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        function = getattr(build, name)

        def counted(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        monkeypatch.setattr(build, name, counted)

    for name in ("split", "model", "loss", "check_step", "_tried_schedule", "_require_memory"):
        count(name)
    return counts


def widths(*values: int) -> list[str]:
    return [f"model.hidden_layers=[{value}]" for value in values]


RATES = [f"optimizer.lr={rate}" for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]


def test_parts_that_arms_share_are_built_once(plan: Plan, built: Counter[str]) -> None:
    preflight.require_buildable(plan(RATES, ["seed=0", "seed=1"], widths(8, 9, 10), ["epochs=2", "epochs=3"]), 1)
    of_networks = dict.fromkeys(("split", "model", "loss", "check_step", "_require_memory"), 3)
    assert built == of_networks | {"_tried_schedule": 10}


def test_every_optimizer_meets_every_network(plan: Plan) -> None:
    """Each is fine with others."""
    arms = plan(["optimizer=picky"], RATES, widths(8, 9, 10))
    with pytest.raises(ConfigError) as refused:
        preflight.require_buildable(arms, 1)
    assert str(refused.value) == (
        "optimizer: this rate is not for 9 neurons "
        "(in the job data=digits optimizer=picky optimizer.lr=0.5 model.hidden_layers=[9])"
    )


def test_each_network_needs_the_memory_of_each_optimizer(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 * 1,000 + 1,000 + 1,000 * 10 + 10 weights of 4 bytes: 0.3 MB, twice, and momentum and a checkpoint of both."""
    arms = plan(["optimizer=sgd"], ["optimizer.momentum=0", "optimizer.momentum=0.9"], widths(8, 1000))
    monkeypatch.setattr(resources, "free_memory", lambda device: 1_000_000)
    preflight.require_buildable(arms[:3], 1)
    with pytest.raises(ConfigError, match=r"needs 1\.5 MB .*optimizer\.momentum=0\.9 model\.hidden_layers=\[1000\]"):
        preflight.require_buildable(arms, 1)


@pytest.mark.parametrize(
    "bad",
    [
        "data.batch_size=100000",
        "augmentation.crop.size=99",
        "+model.speed=3",
        "+loss.speed=3",
        "+optimizer.speed=3",
        "+schedule.speed=3",
        "device=cuda:99",
    ],
)
def test_what_is_refused_is_what_an_arm_alone_is_refused_for(plan: Plan, bad: str) -> None:
    arms = plan(RATES[:2], ["epochs=1", bad])
    with pytest.raises(ConfigError) as alone:
        preflight.require_buildable(arms[1:2], 1)
    with pytest.raises(ConfigError) as among_others:
        preflight.require_buildable(arms, 1)
    assert str(among_others.value) == str(alone.value)
    assert str(alone.value).endswith(f"(in the job data=digits optimizer.lr=0.1 {bad})")
