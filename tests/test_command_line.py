"""The arguments of a command, as Hydra gets them."""

import argparse
import sys
from itertools import permutations

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from mnist_exp import command_line
from mnist_exp.system.errors import ConfigError


def test_flags_are_those_of_hydra() -> None:
    actions = get_args_parser()._actions
    assert set(command_line.FLAGS) == {flag for action in actions for flag in action.option_strings}
    with_value = {
        flag for action in actions if isinstance(action, argparse._StoreAction) for flag in action.option_strings
    }
    assert with_value == {*command_line.VALUE_FLAGS, *command_line.INFO_FLAGS}
    [info] = [action for action in actions if "--info" in action.option_strings]
    assert info.choices == list(command_line.INFO)


PARTS = [["-m"], ["--config-dir", "mine"], ["--cfg", "job"], ["epochs=1", "seed=0,1"]]


@pytest.mark.parametrize("order", list(permutations(PARTS)))
def test_flags_may_stand_anywhere(order: list[list[str]]) -> None:
    args = get_args_parser().parse_args(command_line.arrange([word for words in order for word in words]))
    assert (args.multirun, args.config_dir, args.cfg, args.overrides) == (True, "mine", "job", ["epochs=1", "seed=0,1"])


@pytest.mark.parametrize(
    ("words", "info"),
    [("epochs=1 --info defaults seed=1", "defaults"), ("--info epochs=1 seed=1", "all"), ("epochs=1 seed=1 -i", "all")],
)
def test_info_has_an_optional_value(words: str, info: str) -> None:
    args = get_args_parser().parse_args(command_line.arrange(words.split()))
    assert (args.info, args.overrides) == (info, ["epochs=1", "seed=1"])


def test_an_unknown_flag() -> None:
    with pytest.raises(ConfigError, match=r"--multrun: no such flag, did you mean --multirun\?"):
        command_line.arrange(["seed=0,1", "--multrun"])
    with pytest.raises(ConfigError, match=r"--xyz: no such flag, python train\.py --hydra-help lists them"):
        command_line.arrange(["--xyz"])


def test_null_deletes_a_group() -> None:
    assert command_line.arrange(["experiment=null", "schedule=null", "model.max_norm=null", "resume=null"]) == [
        "~experiment", "~schedule", "model.max_norm=null", "resume=null",
    ]  # fmt: skip


KEYS = [
    "optimizer.lr=1e-3", "+optimizer.foo=1", "++loss.x={a: 1, b: [2, 3]}", "model.hidden_layers=[8, 8]",
    "data.root='a b,c'", "data.root=${oc.env:HOME}", "model.max_norm=null", "data.root=int(3)", 'data.root="a)b"',
]  # fmt: skip
SWEPT = ["optimizer.lr=1,2", "data.seed=range(0,3)", "data.root=choice(a,b)", "optimizer.lr=interval(0,1)"]
OTHERS = [
    "epochs=3",
    "seed=1",
    "optimizer=sgd",
    "~optimizer.foo",
    "data.root=",
    "hydra.sweep.dir=x",
    "optimizer.lr=[",
    "resume=x",
]


def test_keys_of_groups_become_choices_in_a_sweep() -> None:
    arranged = command_line.arrange(["-m", *KEYS, *SWEPT, *OTHERS])[1:]
    parser = OverridesParser.create()
    for typed, word in zip(KEYS, arranged, strict=False):
        assert parser.parse_override(word).is_sweep_override()
        assert command_line.as_typed([word]) == [typed]
    assert arranged[len(KEYS) :] == [*SWEPT, *OTHERS]
    assert command_line.as_typed(SWEPT) == SWEPT
    assert command_line.arrange([*KEYS, *SWEPT]) == [*KEYS, *SWEPT]


def test_the_typed_arguments_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=0,1", "-m", "--config-dir=mine"])
    with command_line.arranged_for_hydra():
        assert sys.argv == ["train.py", "-m", "--config-dir=mine", "seed=0,1"]
        assert command_line.typed() == ["seed=0,1", "-m", "--config-dir=mine"]
        assert command_line.config_flags(command_line.typed()) == ["--config-dir=mine"]
    assert sys.argv[1:] == ["seed=0,1", "-m", "--config-dir=mine"] == command_line.typed()
