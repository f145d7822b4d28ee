"""The command line, arranged for Hydra before it reads it.

This module must stay quick to import: --help, --cfg and TAB completion wait for it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.types import ChoiceSweep, Override, ValueType

from mnist_exp.config import GROUPS, Config
from mnist_exp.system.errors import ConfigError, did_you_mean

MULTIRUN = ("-m", "--multirun")
CONFIG_FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")  # where configs are found
VALUE_FLAGS = (*CONFIG_FLAGS, "--cfg", "-c", "--package", "-p", "--experimental-rerun")
INFO_FLAGS = ("--info", "-i")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS = (
    *MULTIRUN, *VALUE_FLAGS, *INFO_FLAGS, "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r",
    "--shell-completion", "-sc",
)  # fmt: skip
_typed = list[str]()


def typed() -> list[str]:
    """The arguments of this command, as the user typed them."""
    return _typed or sys.argv[1:]


@contextmanager
def arranged_for_hydra() -> Iterator[None]:
    """Show Hydra the command's arguments in an order and a form that it can read. Raises ConfigError."""
    before = sys.argv
    _typed[:] = before[1:]
    sys.argv = [before[0], *arrange(_typed)]
    try:
        yield
    finally:
        sys.argv = before
        _typed.clear()


def arrange(arguments: Sequence[str]) -> list[str]:
    """Put flags before overrides, for argparse stops at the first gap between these (Hydra 1.3, issue 3053).

    Raises ConfigError for a flag that there is not.
    """
    flags, overrides = split(arguments)
    is_sweep = any(flag in MULTIRUN for flag in flags) or "hydra.mode=MULTIRUN" in overrides
    overrides = [without_plus(without_null(override)) for override in overrides]
    return [*flags, *(map(left_to_the_jobs, overrides) if is_sweep else overrides)]


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags of a command, with their values, and its overrides. Raises ConfigError for a flag that there is not."""
    flags, overrides, rest = list[str](), list[str](), list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flag = word.partition("=")[0]
        if flag not in FLAGS:
            meant = did_you_mean(flag, FLAGS)
            raise ConfigError(f"{flag}: no such flag, {meant or 'python train.py --hydra-help lists them'}")
        flags.append(word)
        if flag in VALUE_FLAGS and "=" not in word and rest:
            flags.append(rest.pop(0))
        elif word in INFO_FLAGS:
            flags.append(rest.pop(0) if rest and rest[0] in INFO else "all")
    return flags, overrides


def without_null(override: str) -> str:
    """Spell `group=null` as Hydra does: ~group, no option of it."""
    group, _, value = override.partition("=")
    return f"~{group}" if value == "null" and group in (*GROUPS, "experiment") else override


def without_plus(override: str) -> str:
    """Spell +key=value as key=value where every config has the key: Hydra adds no key that is there."""
    key = override.partition("=")[0]
    return override[1:] if key.startswith("+") and key[1:] in Config.__dataclass_fields__ else override


def left_to_the_jobs(override: str) -> str:
    """Spell a key of a group's option as a choice of one.

    Hydra composes a sweep's config with the default options in the place of those that are swept, before any job. So it
    would hold `optimizer=sgd,rmsprop optimizer.momentum=0.8` against the keys of the default optimizer. It leaves alone
    what is swept.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = override.partition("=")
    if key.lstrip("+").partition(".")[0] not in GROUPS or "." not in key or not value:
        return override
    # A choice can't be of null alone.
    parser, choice = OverridesParser.create(), f"{key}=null,null" if value == "null" else f"{key}=choice({value})"
    try:
        is_one_value = parser.parse_override(override).value_type == ValueType.ELEMENT
        parser.parse_override(choice)
    except HydraException:  # Hydra meets the same, and it is told there
        return override
    return choice if is_one_value else override


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Take `left_to_the_jobs` back. Raises what Hydra raises for an override that it can't read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = zip(overrides, OverridesParser.create().parse_overrides(list(overrides)), strict=True)
    return [_without_choice(word) if _is_choice_of_one(override) else word for word, override in parsed]


def _is_choice_of_one(override: Override) -> bool:
    values = override.value()
    return isinstance(values, ChoiceSweep) and (len(values.list) == 1 or values.list == [None, None])


def _without_choice(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={value.removeprefix('choice(').removesuffix(')').removesuffix(',null')}"


def config_flags(arguments: Sequence[str]) -> list[str]:
    """Of a command's words, the flags without which another command would find other configs."""
    flags = split(arguments)[0]
    chosen = list[str]()
    for word, following in zip(flags, [*flags[1:], ""], strict=True):
        if word.partition("=")[0] in CONFIG_FLAGS:
            chosen += [word] if "=" in word else [word, following]
    return chosen
