"""What train.py's command line says, arranged for Hydra.

This module must stay quick to import: --help, --cfg and TAB completion wait for it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from hydra.core.override_parser.types import ChoiceSweep, Override, ValueType

from mnist_exp.config import GROUPS, Config
from mnist_exp.system import quoting
from mnist_exp.system.errors import ConfigError, did_you_mean
from mnist_exp.system.program import CONFIG_FLAGS

MULTIRUN = ("-m", "--multirun")
VALUE_FLAGS = (*CONFIG_FLAGS, "--cfg", "-c", "--package", "-p", "--experimental-rerun")
INFO_FLAGS = ("--info", "-i")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
FLAGS = (
    *MULTIRUN, *VALUE_FLAGS, *INFO_FLAGS, "--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r",
    "--shell-completion", "-sc",
)  # fmt: skip
_typed: list[str] = []
until_the_end = ExitStack()  # what lasts as long as the command does; in a script, as long as its run


def typed() -> list[str]:
    """Return the arguments of this command as the user typed them."""
    return _typed or sys.argv[1:]


@contextmanager
def arranged_for_hydra() -> Iterator[None]:
    """Put the arguments in `sys.argv` into an order and a form that Hydra can read, for the block.

    Raises:
        ConfigError: The command has an unknown flag.
    """
    before = sys.argv
    _typed[:] = before[1:]
    sys.argv = [before[0], *arrange(_typed)]
    try:
        with until_the_end:
            yield
    finally:
        sys.argv = before
        _typed.clear()


def arrange(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra reads them, flags first.

    Hydra 1.3 rejects overrides that stand on both sides of a flag (its issue 3053).

    Raises:
        ConfigError: A flag is unknown.
    """
    flags, overrides = split(arguments)
    is_sweep = any(flag in MULTIRUN for flag in flags) or "hydra.mode=MULTIRUN" in overrides
    overrides = [without_plus(without_null(override)) for override in overrides]
    return [*flags, *(map(as_choice, overrides) if is_sweep else overrides)]


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the flags of a command with their values, and its overrides.

    Raises:
        ConfigError: A flag is unknown.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flag = word.partition("=")[0]
        if flag not in FLAGS:
            hint = did_you_mean(flag, FLAGS) or f"{quoting.command('--hydra-help')} lists them"
            raise ConfigError(f"{flag}: no such flag, {hint}")
        flags.append(word)
        if flag in VALUE_FLAGS and "=" not in word and rest:
            flags.append(rest.pop(0))
        elif word in INFO_FLAGS:
            flags.append(rest.pop(0) if rest and rest[0] in INFO else "all")
    return flags, overrides


def without_null(override: str) -> str:
    """Write `group=null` as Hydra does: `~group`."""
    group, _, value = override.partition("=")
    return f"~{group}" if value == "null" and group in (*GROUPS, "experiment") else override


def without_plus(override: str) -> str:
    """Write `+key=value` as `key=value` where every config has the key: Hydra adds only new keys."""
    key = override.partition("=")[0]
    return override[1:] if key.startswith("+") and key[1:] in Config.__dataclass_fields__ else override


def as_choice(override: str) -> str:
    """Write an override of a key in a group as a choice of one value.

    Before any job, Hydra composes the config of a sweep with the default option of each swept group. It would reject
    `optimizer=sgd,rmsprop optimizer.momentum=0.8`, because the default optimizer has no momentum. It skips swept keys.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, value = override.partition("=")
    if key.lstrip("+").partition(".")[0] not in GROUPS or "." not in key or not value:
        return override
    # Hydra's grammar has no choice of null alone.
    parser, choice = OverridesParser.create(), f"{key}=null,null" if value == "null" else f"{key}=choice({value})"
    try:
        is_one_value = parser.parse_override(override).value_type == ValueType.ELEMENT
        parser.parse_override(choice)
    except HydraException:  # Hydra raises it again, where it becomes a message
        return override
    return choice if is_one_value else override


def as_typed(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as they were before `as_choice`.

    Raises:
        HydraException: Hydra can't read an override.
    """
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
    """Return the flags that choose where configs are found; a related command needs the same ones.

    Raises:
        ConfigError: A flag is unknown.
    """
    flags = split(arguments)[0]
    chosen: list[str] = []
    for word, following in zip(flags, [*flags[1:], ""], strict=True):
        if word.partition("=")[0] in CONFIG_FLAGS:
            chosen += [word] if "=" in word else [word, following]
    return chosen
