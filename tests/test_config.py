from pathlib import Path

import pytest
import torch
from conftest import ROOT
from helpers.trainings import Composed, training
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mnist_exp import build, config
from mnist_exp.data.images import DataSet, Part
from mnist_exp.limits import LIMITS
from mnist_exp.system.errors import ConfigError
from mnist_exp.training import loop

OPTIONS = sorted(path.relative_to(ROOT / "conf") for path in (ROOT / "conf").glob("*/*.yaml"))
EXPECTED = {
    "data": "cifar10 cifar100 csv digits emnist fashion_mnist folder kmnist mnist npz parquet qmnist svhn usps",
    "augmentation": "affine affine_elastic elastic none rotate_crop",
    "model": "lenet linear mlp",
    "activation": "elu gelu leaky_relu prelu relu selu sigmoid silu tanh",
    "init": "kaiming_normal normal orthogonal torch xavier_uniform",
    "optimizer": "adagrad adam adamw nadam rmsprop sgd",
    "schedule": "constant cosine onecycle step",
    "loss": "cross_entropy mse",
    "experiment": "activations best_mlp digits hinton2005_500_300 keras_mnist_mlp lecun1998_300_100 lecun1998_500_150 "
    "lenet lenet_98 lenet_99 mlp_98 mlp_99 optimizers search_mlp simard2003_800 small_mlp srivastava2014_dropout "
    "srivastava2014_max_norm",
}
OWN_DATA = ("csv", "folder", "npz", "parquet")


def test_every_group_has_its_options() -> None:
    for group, names in EXPECTED.items():
        assert [path.stem for path in OPTIONS if path.parent.name == group] == names.split()
    assert set(EXPECTED) == {*config.GROUPS, "experiment"}


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_composes_builds_and_takes_a_step(
    option: Path, composed: Composed, images: torch.Tensor, labels: torch.Tensor
) -> None:
    path = ["data.path=mine"] if option.stem in OWN_DATA else []
    cfg = composed(f"{option.parent.name}={option.stem}", "data.validation=20", "data.batch_size=40", *path)
    config.check(cfg, HydraConfig.get())
    source = DataSet("made", tuple("0123456789"), Part(images, labels), Part(images, labels), "")
    data = build.split(cfg, source, build.device(cfg))
    model = build.model(cfg, data)
    optimizer = build.optimizer(cfg, model)
    schedule = build.schedule(cfg, optimizer, len(data.train))
    before = [weights.clone() for weights in model.parameters()]
    row = loop.train_and_validate(
        loop.Training(model, build.loss(cfg), optimizer, schedule, data.train, data.val), epoch=1
    )
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert row.lr > 0


@pytest.mark.parametrize("model", ["mlp", "lenet"])
@pytest.mark.parametrize(
    "option", [path for path in OPTIONS if path.parent.name in ("augmentation", "activation", "loss")], ids=str
)
def test_every_option_trains_on_coloured_images(
    option: Path, model: str, composed: Composed, coloured_source: DataSet
) -> None:
    cfg = composed(f"{option.parent.name}={option.stem}", f"model={model}", "data.validation=20", "data.batch_size=40")
    data = build.split(cfg, coloured_source, build.device(cfg))
    parts = training(cfg, coloured_source)
    build.check_step(cfg, parts.model, parts.loss, data)
    assert loop.train_and_validate(parts, epoch=1).train_loss > 0


@pytest.mark.parametrize("option", [path for path in OPTIONS if path.parent.name == "optimizer"], ids=str)
def test_optimizers_share_the_words_that_a_sweep_may_cross(option: Path) -> None:
    keys = OmegaConf.load(ROOT / "conf" / option).keys()
    assert {"lr", "lr_range", "weight_decay"} <= keys
    assert ("fused" in keys) == (option.stem not in ("rmsprop", "nadam"))  # torch has no fused kernel for these two


def test_the_default_run_is_the_one_promised(composed: Composed) -> None:
    cfg = composed()
    assert (cfg.epochs, cfg.data.batch_size, cfg.data.validation, cfg.seed, cfg.data.seed) == (5, 64, 5000, 0, 0)
    assert (cfg.model.hidden_layers, cfg.optimizer.lr) == ([256, 512], 0.001)
    assert (cfg.augmentation.rotation.degrees, cfg.augmentation.crop.padding) == (10, 2)
    targets = [cfg[group]._target_.rpartition(".")[2] for group in config.GROUPS]
    assert targets == ["mnist", "Compose", "mlp", "ReLU", "leave_as_built", "Adam", "constant", "CrossEntropy"]


def test_equal_choices_have_equal_ids_however_they_are_made(composed: Composed) -> None:
    plain = config.config_id(composed())
    elsewhere = ["device=cpu", "threads=2", "plots=false", "data.root=/elsewhere", "deterministic=false"]
    elsewhere.append("optimizer.lr_range=[1,2]")
    assert config.config_id(composed(*elsewhere)) == plain
    assert (
        config.config_id(composed("optimizer.lr=1e-3", "optimizer=adam", "epochs=5", "optimizer.weight_decay=0"))
        == plain
    )
    assert len(plain) == 12


@pytest.mark.parametrize(
    "other",
    ["seed=1", "epochs=6", "data.seed=1", "optimizer.lr=0.01", "activation=gelu", "loss=mse", "matmul_precision=high"],
)
def test_other_choices_have_other_ids(other: str, composed: Composed) -> None:
    assert config.config_id(composed(other)) != config.config_id(composed())


def test_an_overlay_can_not_add_a_key_by_mistake(tmp_path: Path, composed: Composed) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "typo.yaml").write_text("# @package _global_\nmodel: {hidden_layer: [3]}\n")
    cfg = composed(f"hydra.searchpath=[file://{tmp_path}]", "experiment=typo")
    with pytest.raises(ConfigError, match=r"model.hidden_layer: no such key, did you mean model.hidden_layers\?"):
        config.check(cfg, HydraConfig.get())


def test_an_identity_does_not_change_its_config(composed: Composed) -> None:
    cfg = composed()
    config.config_id(cfg)
    assert cfg == composed()


@pytest.mark.parametrize("key", LIMITS)
def test_every_limit_is_of_a_key_that_exists(key: str) -> None:
    group, _, rest = key.partition(".")
    files = [ROOT / "conf" / path for path in OPTIONS if path.parent.name == group] or [ROOT / "conf" / "config.yaml"]
    contents = [OmegaConf.to_container(OmegaConf.load(file)) for file in files]
    assert any((rest or key) in dict(config.leaves(values)) for values in contents)


@pytest.mark.parametrize(
    "fine",
    [
        "model.hidden_layers=[]",
        "optimizer.lr=1",  # a whole number is a number
        "augmentation.crop.size=20",
        "schedule=cosine",
        "+optimizer.amsgrad=true",
        "optimizer.weight_decay=0",
        "augmentation.rotation.degrees=7.5",
        "optimizer.eps=${optimizer.lr}",
        "data.validation=0.1",
    ],
)
def test_good_values_pass(fine: str, composed: Composed) -> None:
    config.check(composed(fine), HydraConfig.get())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["epochs=0"], "epochs=0: must be 1 or more"),
        (["checkpoint_every=0"], "checkpoint_every=0: must be 1 or more"),
        (["seed=-1"], "seed=-1: must be 0 to 2^63 - 1"),
        (["threads=0"], "threads=0: must be 1 to 1,024"),
        (["matmul_precision=bf16"], "matmul_precision=bf16: must be highest, high or medium"),
        (["epochs=???"], "epochs=???: must be 1 or more"),
        (["+optimizer.momentum=abc"], "optimizer.momentum=abc: must be 0 or more and less than 1"),
        (["augmentation.rotation=5"], "augmentation.rotation=5: must be a mapping with _target_, degrees"),
        (["data.batch_size=0"], "data.batch_size=0: must be 1 or more"),
        (["data.batch_size=2.5"], "data.batch_size=2.5: must be a whole number like 64, as in data/mnist.yaml"),
        (["data.validation=-1"], "data.validation=-1: must be 1 or more images, or a share between 0 and 1"),
        (["data.validation=0.0"], "data.validation=0.0: must be 1 or more images, or a share between 0 and 1"),
        (["data.validation=2.5"], "data.validation=2.5: must be 1 or more images, or a share between 0 and 1"),
        (["data.validation=many"], "data.validation=many: must be a whole number like 5000, as in data/mnist.yaml"),
        (["data=folder"], "data.path=???: must be the path of your data, as in data.path=./photos"),
        (["data=npz", "data.path="], "data.path=: must be the path of your data, as in data.path=./photos"),
        (["data=npz", "data.path=3"], "data.path=3: must be the path of your data, as in data.path=./photos"),
        (
            ["data=csv", "data.path=a", "data.label=64"],
            "data.label=64: must be text like label, as in data/csv.yaml; quotes make it text: 'data.label=\"64\"'",
        ),
        (["data=npz", "data.path=a", "data.size=0"], "data.size=0: must be 1 or more pixels, or null"),
        (["data=npz", "data.path=a", "data.fit=blur"], "data.fit=blur: must be pad, crop or stretch"),
        (["data=npz", "data.path=a", "data.color=red"], "data.color=red: must be auto, gray or rgb"),
        (
            ["data=npz", "data.path=a", "data.test=0"],
            "data.test=0: must be 1 or more images, or a share between 0 and 1",
        ),
        (
            ["data=csv", "data.path=a", "data.shape=[9]"],
            "data.shape=[9]: must be [height,width] or [channels,height,wid",
        ),
        (["data.root=null"], "data.root=null: must be text like data, as in data/mnist.yaml"),
        (["model.hidden_layers=[0]"], "model.hidden_layers=[0]: must be layers of 1 or more units"),
        (["model.hidden_layers=[-5]"], "model.hidden_layers=[-5]: must be layers of 1 or more units"),
        (["model.hidden_layers=wide"], "model.hidden_layers=wide: must be a list like [256,512], as in model/mlp.yaml"),
        (["model.hidden_layers=512"], "model.hidden_layers=512: must be a list like [256,512], as in model/mlp.yaml"),
        (["model.dropout=1"], "model.dropout=1: must be 0 or more and less than 1"),
        (["optimizer.lr=-1"], "optimizer.lr=-1: must be more than 0"),
        (["optimizer.lr=nan"], "optimizer.lr=nan: must be a finite number"),
        (["optimizer.lr=inf"], "optimizer.lr=inf: must be a finite number"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: must be a number like 0.001, as in optimizer/adam.yaml"),
        (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9]: must be two numbers of 0 or more, less than 1"),
        (["optimizer.lr_range=[0.1,0.1]"], "optimizer.lr_range=[0.1,0.1]: must be [low, high] with 0 < low < high"),
        (["optimizer.fused=1"], "optimizer.fused=1: must be true or false, as in optimizer/adam.yaml"),
        (["augmentation=affine", "augmentation.affine.scale=[2,1]"], "[low, high] with 0 < low <= high"),
        (["augmentation.rotation.interpolation=cubic"], "must be nearest or bilinear"),
        (["augmentation.crop.size=0"], "augmentation.crop.size=0: must be 1 or more pixels, or null"),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], "needs optimizer.momentum above 0"),
        (["+speed=11"], "speed: no such key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_values_are_refused_in_so_many_words(wrong: list[str], words: str, composed: Composed) -> None:
    with pytest.raises(ConfigError) as error:
        config.check(composed(*wrong), HydraConfig.get())
    assert words in str(error.value)
    assert "\n" not in str(error.value)
