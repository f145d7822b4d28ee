"""Runs that are trained as one come out as if each were alone."""

import signal
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.run_folders import learned, summary
from helpers.trainings import require_equal, training
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from mnist_exp import build
from mnist_exp.data.sources import Images
from mnist_exp.fused import memory
from mnist_exp.fused.stack import Stack, is_layered, structure
from mnist_exp.fused.trainer import FusedTrainer, Trainer, batches
from mnist_exp.store.ledger import Ledger
from mnist_exp.system import resources as memory_that_is_free

Composed = Callable[..., DictConfig]
Run = Callable[..., Outcome]
SMALL = ["model.hidden_layers=[12,8]", "data.validation=23", "data.batch_size=30", "epochs=2", "device=cpu"]
OTHER_SEEDS_AND_RATES = [("seed=0", 1.0), ("seed=0", 0.3), ("seed=1", 1.0), ("seed=2", 0.3), ("seed=1", 0.3)]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many crews, wherever the tests run."""
    monkeypatch.setattr("mnist_exp.training.run.cores", lambda: 2)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def group(composed: Composed, *words: str) -> list[DictConfig]:
    """Configs that differ in seeds and learning rates."""
    words = tuple(word for word in (*SMALL, *words) if "hidden_layers" not in word or "model=mlp" in words)
    rate = composed(*words).optimizer.lr
    return [composed(*words, seed, f"optimizer.lr={rate * times}") for seed, times in OTHER_SEEDS_AND_RATES]


CHOICES = {name: options(name) for name in ("model", "activation", "loss", "optimizer", "schedule")}
USUAL = {"model": "mlp", "activation": "tanh", "loss": "cross_entropy", "optimizer": "adam", "schedule": "constant"}
ONE_BY_ONE = [USUAL | {name: option} for name, found in CHOICES.items() for option in found]


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("choice", ONE_BY_ONE, ids=lambda choice: "-".join(choice.values()))
def test_fused_equals_alone(choice: dict[str, str], composed: Composed, source: Images) -> None:
    require_equal(group(composed, *(f"{name}={option}" for name, option in choice.items())), source)


@pytest.mark.usefixtures("in_double")
def test_models_that_keep_within_a_norm_or_begin_otherwise_are_fused(composed: Composed, source: Images) -> None:
    require_equal(group(composed, "model=mlp", "model.max_norm=0.5", "init=orthogonal", "augmentation=elastic"), source)


@pytest.mark.slow
@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
@pytest.mark.parametrize("model", CHOICES["model"])
def test_fused_equals_alone_whatever_is_chosen(model: str, optimizer: str, composed: Composed, source: Images) -> None:
    others = list(product(CHOICES["activation"], CHOICES["loss"], CHOICES["schedule"]))
    assert len(others) == 72
    configs = group(composed, f"model={model}", f"optimizer={optimizer}")[:3]  # equal seeds, equal rates, and neither
    for options_of in others:
        for cfg, (name, option) in product(configs, zip(("activation", "loss", "schedule"), options_of, strict=True)):
            cfg[name] = OmegaConf.load(ROOT / "conf" / name / f"{option}.yaml")
        require_equal(configs, source)


FUSED = ["-m", *(word for word in TINY if not word.startswith("plots")), "hydra/launcher=fused", "hydra.sweep.dir=it"]


def statuses() -> dict[int, str]:
    return {number: job.status for number, job in Ledger(Path("it")).read()[1].items()}


def test_every_job_keeps_a_folder_as_if_it_were_alone(run: Run) -> None:
    outcome = run(*FUSED, "optimizer.lr=0.01,0.001", "activation=relu,tanh", "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert "4 as one: activation=relu" in outcome.out
    for number in range(8):
        fused = Path("it", str(number))
        overrides = [word for word in OmegaConf.load(fused / ".hydra" / "overrides.yaml") if "hydra" not in word]
        assert run(*overrides, "plots=false", f"hydra.run.dir=alone/{number}").code == 0
        alone = Path("alone", str(number))
        files = [{str(path.relative_to(it)) for path in it.rglob("*")} for it in (fused, alone)]
        assert files[0] == files[1]
        ours, theirs = summary(fused), summary(alone)
        same = ("status", "config_id", "seed", "parameters", "epochs", "best_epoch", "device", "threads", "data")
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
        assert ours["best_val_loss"] == pytest.approx(theirs["best_val_loss"], rel=1e-4)
        assert [path.stat().st_size for path in fused.glob("checkpoints/*")] == pytest.approx(
            [path.stat().st_size for path in alone.glob("checkpoints/*")], abs=300
        )


def test_the_same_crews_give_the_same_bits(run: Run) -> None:
    words = [*FUSED[:-1], "optimizer.lr=0.01,0.001", "seed=0,1", "model.dropout=0.2", "hydra.launcher.max_models=2"]
    for folder in ("one", "two"):
        assert run(*words, f"hydra.sweep.dir={folder}").code == 0
    for number in range(4):
        assert learned(Path("one", str(number))) == learned(Path("two", str(number)))


def test_a_model_that_runs_away_takes_no_other_with_it(run: Run) -> None:
    words = [*FUSED, "activation=relu", "seed=0,1"]
    outcome = run(*words, "optimizer.lr=0.01,1e30")
    assert outcome.code == 1
    assert statuses() == {0: "completed", 1: "failed", 2: "completed", 3: "failed"}
    assert "the loss became nan at epoch 1, step 2: a smaller optimizer.lr usually helps" in outcome.out
    assert "Traceback" in Path("it", "3", "train.log").read_text()


def test_a_job_like_no_other_runs_by_itself(run: Run) -> None:
    outcome = run(*FUSED, "data.batch_size=20,30")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("1 alone") == 2
    assert statuses() == {0: "completed", 1: "completed"}


def test_a_dry_run_shows_the_plan(run: Run) -> None:
    outcome = run(*FUSED, "seed=0,1,2", "hydra.sweeper.dry_run=true")
    assert "3 as one" in outcome.out
    assert not Path("it").exists()


def test_a_crew_goes_on_where_it_was_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*FUSED[:-1], "epochs=4", "optimizer.lr=0.01,0.001", "seed=0,1", "model.dropout=0.2"]
    assert run(*words, "hydra.sweep.dir=undisturbed").code == 0
    train = FusedTrainer.epoch

    def interrupted(self: FusedTrainer, number: int) -> Any:
        if number == 3:
            signal.raise_signal(signal.SIGTERM)
        return train(self, number)

    with monkeypatch.context() as patched:
        patched.setattr(FusedTrainer, "epoch", interrupted)
        assert run(*words, "hydra.sweep.dir=it").code == 143
    assert set(statuses().values()) == {"interrupted"}
    assert run("-m", "resume=it", "hydra/launcher=fused").code == 0
    for number in range(4):
        assert learned(Path("it", str(number))) == learned(Path("undisturbed", str(number)))
        assert summary(Path("it", str(number)))["resumed"] == [{"after_epoch": 2, "changed": {}}]


def test_a_model_that_diverges_does_so_by_its_own_doing(run: Run) -> None:
    outcome = run(*FUSED, "optimizer=sgd", "optimizer.lr=0.1,1e15", "seed=0,1")
    assert outcome.code == 1
    jobs = Ledger(Path("it")).read()[1]
    assert [(job.status, job.failure) for job in jobs.values()] == (
        [("completed", None)] * 2 + [("failed", "diverged")] * 2
    )  # fmt: skip
    assert summary(Path("it/2"))["failure"] == "diverged"
    assert "lr=1000000000000000.0 (0 of 2 seeds; 2 diverged)" in outcome.out


def test_what_goes_wrong_with_a_crew_is_no_single_runs_doing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr("mnist_exp.sweep.launchers.fused_group.FusedTrainer", fail)
    assert run(*FUSED, "seed=range(0,4)").code == 1
    jobs = Ledger(Path("it")).read()[1].values()
    assert [(job.status, job.failure) for job in jobs] == [("failed", None)] * 4
    assert all("out of memory: too large" in job.error for job in jobs)


def test_any_other_model_is_stacked_by_vmap(images: Tensor) -> None:
    models = [nn.Sequential(nn.Flatten(), nn.LayerNorm(784), nn.Linear(784, 10)).eval() for _ in range(3)]
    floats = images.float() / 255
    alone = torch.stack([model(floats) for model in models])
    assert not is_layered(models[0])
    assert structure(models[0]) == structure(models[1])
    torch.testing.assert_close(Stack(models, [0, 0, 0])(floats.unsqueeze(0)), alone)


def test_what_comes_before_the_first_layer_with_weights_is_each_models_own(images: Tensor) -> None:
    """Also in validation, whose images are the same for models of several streams."""
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 10)).eval() for _ in range(2)]
    stack, floats = Stack(models, [0, 1]), images.float() / 255
    stack.training = False
    torch.testing.assert_close(stack(floats.unsqueeze(0)), torch.stack([model(floats) for model in models]))


@pytest.mark.parametrize("most", [0, -5])
def test_a_crew_of_nobody_is_refused(most: int, run: Run) -> None:
    outcome = run(*FUSED, "seed=0,1", f"hydra.launcher.max_models={most}")
    assert (outcome.code, outcome.err) == (
        1, f"error: hydra.launcher.max_models={most}: must be 1 or more, or null for no limit"
    )  # fmt: skip
    assert not Path("it").exists()


class Normed(nn.Sequential):
    """A user's model, with buffers that training changes."""

    def __init__(self, in_shape: tuple[int, ...], num_classes: int, **_: Any) -> None:
        super().__init__(nn.Conv2d(1, 4, 5, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes))
        self(torch.zeros(2, *in_shape))


@pytest.mark.usefixtures("in_double")
def test_batch_normalization_is_each_models_own(
    composed: Composed, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.ALLOW_MORE, __name__)
    words = [f"model._target_={__name__}.Normed", *SMALL[1:]]
    require_equal([composed(*words, *others) for others in (["seed=0"], ["seed=1"], ["optimizer.lr=0.01"])], source)


def test_the_memory_that_a_model_takes(composed: Composed, source: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "keep", lambda _: source)
    weights, outputs = 4 * 337_674, 4 * 30 * (256 + 256 + 512 + 512 + 10)  # bytes; outputs of each layer, batches of 30
    for words, copies in (["optimizer=adam"], 4), (["optimizer=sgd", "optimizer.momentum=0"], 2):
        taken = memory.of_a_model(composed(*words, *SMALL[1:])) - memory.OBJECTS
        batch = 30 * 784 * 4
        assert copies * weights + outputs <= taken <= copies * weights + 4 * (outputs + batch)


def test_a_crew_has_as_many_models_as_there_is_memory_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "of_a_model", lambda _: 1_000_000)
    monkeypatch.setattr(memory_that_is_free, "free", lambda _: 9_000_000)  # two in each of two crews, in half of it
    outcome = run(*FUSED, "seed=range(0,7)")
    assert outcome.code == 0, outcome.err
    assert "7 models in 2 rounds, of crews of up to 2" in outcome.out
    assert set(statuses().values()) == {"completed"}


def test_a_batch_takes_the_place_of_the_one_before(
    composed: Composed, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_exp.data.batches.CHUNK", 1)  # a batch at a time
    streams = [training(composed(*SMALL, f"seed={seed}"), source).train for seed in (0, 1)]
    places = [images.data_ptr() for images, _ in batches(streams) if images.shape[1] == 30]
    assert len(places) > 1
    assert len(set(places)) == 1


def test_each_model_has_its_own_share_of_dropout() -> None:
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(share)) for share in (0.0, 0.25, 0.75)]
    ones = Stack(models, [0, 0, 0])(torch.ones(1, 200, 1, 10, 10))
    assert (ones == 0).double().mean(dim=(1, 2)).tolist() == pytest.approx([0, 0.25, 0.75], abs=0.02)
    assert ones.mean(dim=(1, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.05)


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("words", [["optimizer=adam"], ["optimizer=adamw"], ["optimizer=sgd", "schedule=step"]])
def test_what_a_gpu_records_is_the_same_step(
    words: list[str], composed: Composed, source: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done here without a recording: rates in a tensor, each arm's optimizer by itself."""
    build_trainer = Trainer.__init__

    def for_a_recording(self: Trainer, *parts: Any) -> None:
        build_trainer(self, *parts)
        self.recorded = all(arm.is_recordable() for arm in self.arms)
        assert self.recorded

    monkeypatch.setattr(Trainer, "__init__", for_a_recording)
    monkeypatch.setattr("mnist_exp.fused.trainer.side_by_side", lambda items, device: iter(items))
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
    rates = (2**-10, 2**-12)  # as exact in the tensor's float32
    configs = [composed(*SMALL, *words, f"optimizer.lr={lr}", f"seed={seed}") for lr in rates for seed in (0, 1)]
    require_equal(configs, source)
