from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from mnist_exp import build
from mnist_exp.errors import ConfigError

FOREIGN = [
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "torch.hub.load",
    "torch.load",
    "torchvision.datasets.MNIST",
    "mnist_exp_evil.run",
    "torch.nnn.Evil",
    "mnist_exp.build.os.system",  # begins with our name and leads elsewhere
    "mnist_exp.data.sources.subprocess.run",
    "torch.nn.modules.module.torch.load",
    "torch.optim.optimizer.functools.partial",
    5,
    None,
]


@pytest.mark.parametrize("target", FOREIGN)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda evil: evil,
        lambda evil: {"_target_": "torch.nn.ReLU", "inplace": evil},
        lambda evil: {"_target_": "torch.nn.ReLU", "deep": [{"deeper": [evil]}]},
    ],
)
def test_a_config_runs_no_strangers_code(target: object, wrap, tmp_path: Path) -> None:
    evil = {"_target_": target, "_args_": [f"touch {tmp_path / 'ran'}"]}
    cfg = OmegaConf.create({"loss": wrap(evil)})
    with pytest.raises(ConfigError, match="not run; a config may name torch"):
        build.loss(cfg)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("depth", [lambda evil: evil, lambda evil: [{"deep": [evil]}]])
def test_an_escaped_interpolation_builds_nothing(depth, tmp_path: Path) -> None:
    """instantiate resolves what it is given once more: it would make a _target_ that nobody has seen."""
    evil = "\\${oc.create:{_target_:pathlib.Path.touch,_args_:[" + str(tmp_path / "ran") + "]}}"
    cfg = OmegaConf.create({"loss": {"_target_": "torch.nn.ReLU", "inplace": depth(evil)}})
    with pytest.raises(ConfigError, match="an escaped interpolation is not a value"):
        build.loss(cfg)
    assert not (tmp_path / "ran").exists()


def test_a_user_may_allow_more_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = OmegaConf.create({"loss": {"_target_": "fractions.Fraction", "numerator": 3}})
    with pytest.raises(ConfigError):
        build.loss(cfg)
    monkeypatch.setenv("MNIST_EXP_ALLOW", "decimal, fractions")
    assert build.loss(cfg) == 3


def test_a_config_can_not_allow_itself_anything() -> None:
    cfg = OmegaConf.create({"loss": {"_target_": "fractions.Fraction", "MNIST_EXP_ALLOW": "fractions"}})
    with pytest.raises(ConfigError):
        build.loss(cfg)


def test_what_a_part_refuses_names_its_group(composed) -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=r"optimizer: .*unexpected keyword argument 'speed'"):
        build.optimizer(composed("+optimizer.speed=11"), model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(name: str, composed) -> None:
    with pytest.raises(ConfigError, match=f"device={name}: torch finds .*cpu on this machine"):
        build.device(composed(f"device='{name}'"))


def test_each_run_has_its_own_precision(composed) -> None:
    for asked in ("medium", "high", "highest"):  # the last is what the other tests need
        build.device(composed(f"matmul_precision={asked}"))
        assert torch.get_float32_matmul_precision() == asked


def test_streams_have_nothing_to_do_with_each_other() -> None:
    names = ["weights", "dropout", "order", "augmentation", "split", "pictures"]
    seeds = {build.stream(seed, name) for seed in range(100) for name in names}
    assert len(seeds) == 600
    assert build.stream(0, "order") == build.stream(0, "order")


def test_weights_follow_the_seed_alone(composed, images, labels) -> None:
    from mnist_exp.data.sources import Images

    def weights(*overrides: str) -> torch.Tensor:
        cfg = composed("data.validation=20", *overrides)
        source = Images("made", tuple("0123456789"), images, labels, images, labels, "")
        return next(build.model(cfg, build.split(cfg, source, torch.device("cpu")), 10).parameters())

    plain = weights()
    assert torch.equal(plain, weights("augmentation=none", "data.seed=5", "optimizer=sgd", "data.batch_size=10"))
    assert not torch.equal(plain, weights("seed=1"))


def test_an_optimizer_that_can_not_take_a_step_is_told(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        raise RuntimeError("`fused=True` requires all the params to be on supported devices")

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(ConfigError, match=r"^optimizer: `fused=True` requires"):
        build.optimizer(composed("optimizer=sgd"), torch.nn.Linear(1, 1))
