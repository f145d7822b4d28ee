import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Outcome
from helpers.run_folders import state
from helpers.trainings import Composed
from omegaconf import DictConfig, OmegaConf

from mnist_exp import build
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError
from mnist_exp.training.facts import inference_facts
from mnist_exp.use.trained_run import Classifier

Run = Callable[..., Outcome]

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
    "mnist_exp.data.wheel.subprocess.run",
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
def test_a_config_runs_no_strangers_code(target: object, wrap: Callable[[object], object], tmp_path: Path) -> None:
    evil = {"_target_": target, "_args_": [f"touch {tmp_path / 'ran'}"]}
    cfg = OmegaConf.create({"loss": wrap(evil)})
    with pytest.raises(ConfigError, match="not run; a config may name torch"):
        build.loss(cfg)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("depth", [lambda evil: evil, lambda evil: [{"deep": [evil]}]])
def test_an_escaped_interpolation_builds_nothing(depth: Callable[[str], object], tmp_path: Path) -> None:
    """instantiate resolves its argument again, which would create a _target_ that no check has seen."""
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


def test_what_a_part_refuses_names_its_group(composed: Composed) -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match=r"optimizer: .*unexpected keyword argument 'speed'"):
        build.optimizer(composed("+optimizer.speed=11"), model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "tpu", ""])
def test_a_device_that_is_not_there_is_refused(name: str, composed: Composed) -> None:
    with pytest.raises(ConfigError, match=f"device={name}: torch finds .*cpu on this machine"):
        build.device(composed(f"device='{name}'"))


def test_each_run_has_its_own_precision(composed: Composed) -> None:
    for asked in ("medium", "high", "highest"):  # the last is what the other tests need
        build.setup_torch(composed(f"matmul_precision={asked}"))
        assert torch.get_float32_matmul_precision() == asked


def test_streams_have_nothing_to_do_with_each_other() -> None:
    names = ["weights", "dropout", "order", "augmentation", "split", "pictures"]
    seeds = {build.stream(seed, name) for seed in range(100) for name in names}
    assert len(seeds) == 600
    assert build.stream(0, "order") == build.stream(0, "order")


def test_weights_follow_the_seed_alone(composed: Composed, images: torch.Tensor, labels: torch.Tensor) -> None:
    from mnist_exp.data.images import DataSet, Part

    def weights(*overrides: str) -> torch.Tensor:
        cfg = composed("data.validation=20", *overrides)
        source = DataSet("made", tuple("0123456789"), Part(images, labels), Part(images, labels), "")
        return next(build.model(cfg, build.split(cfg, source, torch.device("cpu"))).parameters())

    plain = weights()
    assert torch.equal(plain, weights("augmentation=none", "data.seed=5", "optimizer=sgd", "data.batch_size=10"))
    assert not torch.equal(plain, weights("seed=1"))


@pytest.mark.parametrize(("name", "channels", "size"), [("source", 1, 28), ("coloured_source", 3, 32)])
@pytest.mark.parametrize("words", [[], ["augmentation.crop.size=20"]])
def test_a_classifier_sees_what_the_model_was_trained_on(
    name: str, channels: int, size: int, words: list[str], composed: Composed, request: pytest.FixtureRequest
) -> None:
    """To the bit: the facts of a run hold what Normalize computed."""
    cfg, source = composed("data.validation=20", "model=linear", *words), request.getfixturevalue(name)
    data = build.split(cfg, source, torch.device("cpu"))
    facts = inference_facts(cfg, data)
    assert (facts["image_shape"], len(facts["mean"]), len(facts["std"])) == ([channels, size, size], channels, channels)
    model, loss = build.from_inference_facts(facts)
    [(normalized, _)] = data.test
    assert torch.equal(Classifier(model, loss, facts)(source.test.images), loss.probabilities(model(normalized)))


def test_an_optimizer_that_can_not_take_a_step_is_told(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        raise RuntimeError("`fused=True` requires all the params to be on supported devices")

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(ConfigError, match=r"^optimizer: `fused=True` requires"):
        build.optimizer(composed("optimizer=sgd"), torch.nn.Linear(1, 1))


OWN = """
import torch
from torch import nn


class Strange(nn.Module):
    def __init__(self, in_shape, num_classes, activation, fault):
        super().__init__()
        if fault == "building":
            raise {}["a key"]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_shape[1] * in_shape[2], num_classes))
        self.fault = fault
        if fault == "batch_norm":
            self.layers.append(nn.BatchNorm1d(num_classes))

    def forward(self, images):
        logits = self.layers(images)
        if self.fault == "stepping":
            1 / 0
        return logits.sum() if self.fault == "shape" else logits.detach() if self.fault == "backward" else logits
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that choose a user's own model, which has a fault to be named."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("MNIST_EXP_ALLOW", "own_model")
    for name, text in (
        ("code/own_model.py", OWN),
        ("conf/model/own.yaml", "_target_: own_model.Strange\nfault: none\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return ["--config-dir", str(tmp_path / "conf"), "model=own", "experiment=digits", "epochs=1", "plots=false"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model.fault=building", "model: "),
        ("model.fault=stepping", "model: division by zero"),
        ("model.fault=shape", "loss: "),
        ("model.fault=backward", "model: element 0 of tensors does not require grad"),
        (
            "model.fault=batch_norm data.batch_size=1199",
            "model, at the epoch's last batch of 1 (data.batch_size=1199, 1,200 images): Expected more than 1 value",
        ),
    ],
)
@pytest.mark.parametrize("sweep", [False, True])
def test_what_can_not_be_trained_is_told_before_a_run_begins(
    run: Run, own: list[str], words: str, message: str, sweep: bool, tmp_path: Path
) -> None:
    outcome = run(*own, *words.split(), *(["-m", "seed=0,1", "hydra.sweep.dir=it"] if sweep else []))
    assert (outcome.code, outcome.err.count("\n")) == (1, 0), outcome.err
    assert f"error: {message}" in outcome.err
    assert not (tmp_path / "it").exists()


def test_a_trial_step_leaves_everything_as_it_was(run: Run, own: list[str], tmp_path: Path) -> None:
    """Weights that a step shortens, running means and random numbers: two steps in the place of one change no bit."""
    plain = build.check_step
    for name, words in ("norm", ["model=own", "model.fault=batch_norm"]), ("drop", ["model=mlp"]):
        more = ["model.dropout=0.5", "model.max_norm=0.5"] if name == "drop" else []
        states = []
        for times in (1, 3):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(build, "check_step", lambda *parts, times=times: [plain(*parts) for _ in range(times)])
                folder = tmp_path / f"{name}{times}"
                outcome = run(*own, *words, *more, f"hydra.run.dir={folder}")
                assert outcome.code == 0, outcome.err
                states.append(state(folder / "checkpoints/last.pt"))
        assert states[0] == states[1]


@pytest.mark.parametrize("where", ["run", "sweep"])
def test_memory_that_is_not_there_is_told_before_it_is_asked_for(
    run: Run, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data=digits", "model.hidden_layers=[100000,100000]", *(["-m", "seed=0,1"] if where == "sweep" else [])]
    outcome = run(*words)
    assert (outcome.code, outcome.err.count("\n")) == (1, 0)
    assert "model: needs 280.2 GB of memory (weights 40.0 GB, gradients 40.0 GB, optimizer state 80.1 GB" in outcome.err
    assert "smaller layers need less" in outcome.err
    monkeypatch.setattr(resources, "free_memory", lambda _: 100_000)
    outcome = run("data=digits", "optimizer=sgd", "optimizer.momentum=0")
    assert "model: needs 1.8 MB of memory (weights 0.6 MB, gradients 0.6 MB, checkpoint 0.6 MB)" in outcome.err


def test_a_rise_of_one_step(composed: Callable[..., DictConfig]) -> None:
    """A little longer or shorter, it has the same rates."""

    def rates(pct_start: float, epochs: int) -> list[float]:
        cfg = composed("schedule=onecycle", f"schedule.pct_start={pct_start}")
        return build.lr_curve(cfg, epochs, epochs - 1)[1]

    assert rates(0.1, 10) == pytest.approx(rates(0.1 + 1e-7, 10), rel=1e-4)
    assert rates(1.0, 1) == []


@pytest.mark.parametrize(
    ("overrides", "digest"),
    [
        ([], "ceb63c82d76fc713"),
        (["data.validation=77", "data.seed=3"], "d8c0297b25d73f9e"),
    ],
)
def test_a_published_data_set_is_split_as_ever(overrides: list[str], digest: str, composed: Composed) -> None:
    """The digests are of a version that could cut no test images."""
    cfg = composed("data=digits", *overrides)
    data = build.split(cfg, build.source(cfg), torch.device("cpu"))
    found = hashlib.sha256()
    for part in (data.train, data.val, data.test):
        found.update(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
    assert found.hexdigest()[:16] == digest
    assert data.cut == ("val",)
