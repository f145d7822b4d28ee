"""Configs of jobs that differ in values alone: composed once, and built from that by setting the values."""

from __future__ import annotations

import json
import pickle
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Sweep
from hydra.errors import HydraException
from omegaconf import AnyNode, BooleanNode, DictConfig, FloatNode, IntegerNode, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mnist_exp import config
from mnist_exp.system.errors import ConfigError

NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?|true|false")  # JSON and Hydra agree on their values
NUMBER_NODES = (AnyNode, BooleanNode, FloatNode, IntegerNode)
NOW = re.compile(r"\$\{now:[^${}]*\}")
UNSETTABLE = ("${", "???")  # in a value: what it means is for Hydra to say


class PackedConfig(str):
    """The overrides of a job in one string, which carries the config that they compose.

    Launchers hand a job's overrides back to the config loader, in this process or another. The config travels with
    them, so a YAML file that is edited meanwhile changes nothing. Jobs share the packed config of their template.
    """

    packed: bytes
    words: tuple[str, ...]  # of `hydra.overrides.task`; empty: as packed
    changes: Mapping[str, Any]  # values to set

    @classmethod
    def pack(cls, overrides: Sequence[str], composed: DictConfig) -> PackedConfig:
        """Compress the config: 10,000 configs take gigabytes otherwise."""
        return cls._of(" ".join(overrides), zlib.compress(pickle.dumps(composed), level=1), (), {})

    @classmethod
    def _of(cls, text: str, packed: bytes, words: tuple[str, ...], changes: Mapping[str, Any]) -> PackedConfig:
        config = cls(text)
        config.packed, config.words, config.changes = packed, words, changes
        return config

    def changed(self, changes: Mapping[str, Any]) -> PackedConfig:
        """Return the same job with other values of some keys."""
        return self._of(str(self), self.packed, self.words, {**self.changes, **changes})

    def of_job(self, overrides: Sequence[str], words: Sequence[str], changes: Mapping[str, Any]) -> PackedConfig:
        """Return the config of another job, which differs in some values.

        Args:
            overrides: Its overrides.
            words: Its overrides in this session, as Hydra records them.
            changes: Its values.
        """
        return self._of(" ".join(overrides), self.packed, tuple(words), changes)

    def config(self) -> DictConfig:
        """Return the config with its `hydra` section."""
        composed: DictConfig = pickle.loads(zlib.decompress(self.packed))
        with open_dict(composed.hydra):
            for key, value in self.changes.items():
                OmegaConf.update(composed, key, value)
            if self.words:
                composed.hydra.overrides.task = list(self.words)
                style = composed.hydra.job.config.override_dirname
                composed.hydra.job.override_dirname = override_dirname(self.words, style)
        return composed


def override_dirname(words: Sequence[str], style: DictConfig) -> str:
    """Return hydra.job.override_dirname, as Hydra writes it."""
    kept = sorted(word for word in words if config.key_of(word) not in style.exclude_keys)
    return str(style.item_sep.join(kept).replace("=", style.kv_sep))


def shape(words: Sequence[str]) -> tuple[str, ...]:
    """Return what jobs have in common whose overrides differ in values alone: the words without these values."""
    return tuple(f"{config.key_of(word)}=" if is_value(word) else word for word in words)


def is_value(word: str) -> bool:
    """Return whether an override sets the value of a key that a config has, and chooses no option."""
    key, equals, value = word.partition("=")
    group, dot, _ = key.partition(".")
    is_key = group in config.GROUPS if dot else key in config.VALUES
    return bool(equals) and is_key and not any(mark in value for mark in UNSETTABLE)


class Setting(NamedTuple):
    """The value that an override gives to a key."""

    value: Any  # as it is typed
    plain: Any  # as the config has it
    identity: dict[str, Any]  # the part of config.identity that it decides


class Facts(NamedTuple):
    """What a sweep needs to know about the config of a job."""

    config_id: str
    arm: str
    seed: int
    choices: dict[str, Any]


class Template:
    """The config of a job, from which those of other jobs are built that have the same shape.

    Attributes:
        is_plain: No value depends on another one, so that `facts` is enough to plan a job.
    """

    def __init__(self, words: Sequence[str], composed: DictConfig, choices: Mapping[str, Any]) -> None:
        """Keep a config that is checked.

        Args:
            words: The overrides of the job.
            composed: What they compose, with the section `hydra`. It serves to try values.
            choices: The choices of the job.
        """
        self._packed, self._choices = PackedConfig.pack(words, composed), choices
        self._composed, self._options = composed, config.options(composed.hydra)
        keys = [config.key_of(word) for word in words if is_value(word)]
        self._nodes = {key: _node(composed, key) for key in keys}
        self._is_settable = len(self._nodes) == len(keys) and not any(
            node is None or OmegaConf.is_dict(node) or any(_overlap(key, word) for word in words if not is_value(word))
            for key, node in self._nodes.items()
        )
        self.is_plain = _is_plain(composed)
        fixed = config.identity(config.without_hydra(composed))
        self._identity = {key: value for key, value in fixed.items() if key.partition("[")[0] not in keys}
        self._settings: dict[str, Setting | None] = {}
        self._arms: dict[str, str] = {}
        self._parser = OverridesParser.create()

    def settings(self, words: Sequence[str]) -> dict[str, Setting] | None:
        """Return the values that a job of the same shape sets, checked; None if Hydra must compose the job."""
        if not self._is_settable:
            return None
        found: dict[str, Setting] = {}
        for word in filter(is_value, words):
            setting = self._setting(word)
            if setting is None:
                return None
            found[config.key_of(word)] = setting
        try:
            config.check_together(self._choices_with(found))
        except ConfigError:
            return None
        return found

    def built(self, overrides: Sequence[str], words: Sequence[str], settings: Mapping[str, Setting]) -> PackedConfig:
        """Return the config of a job of the same shape.

        Args:
            overrides: Its overrides.
            words: Its overrides in this session, as Hydra records them.
            settings: Its values.
        """
        return self._packed.of_job(overrides, words, {key: setting.value for key, setting in settings.items()})

    def facts(self, settings: Mapping[str, Setting]) -> Facts:
        """Return what is known about the config of a job of the same shape with these values."""
        identity = self._identity.copy()
        for setting in settings.values():
            identity |= setting.identity
        of_arm = repr([setting.plain for key, setting in settings.items() if key not in config.SEEDS])
        if of_arm not in self._arms:
            self._arms[of_arm] = config.id_of(identity, without=config.SEEDS)
        choices = self._choices_with(settings)
        return Facts(config.id_of(identity), self._arms[of_arm], choices["seed"], choices)

    def _choices_with(self, settings: Mapping[str, Setting]) -> dict[str, Any]:
        return {**self._choices, **{key: setting.plain for key, setting in settings.items()}}

    def _setting(self, word: str) -> Setting | None:
        """Return the value that an override sets, checked; None if Hydra must compose its job."""
        key, _, text = word.partition("=")
        node = self._nodes[key]
        if NUMBER.fullmatch(text) and isinstance(node, NUMBER_NODES):
            return self._checked(key, json.loads(text), node.validate_and_convert)
        if word not in self._settings:
            self._settings[word] = self._parsed(word, key)
        return self._settings[word]

    def _parsed(self, word: str, key: str) -> Setting | None:
        """Return the value of an override that Hydra's grammar explains: text, a list, null."""
        try:
            value = self._parser.parse_override(word).value()
        except HydraException:
            return None
        return self._checked(key, value, lambda value: self._assigned(key, value))

    def _checked(self, key: str, value: Any, convert: Callable[[Any], Any]) -> Setting | None:
        if isinstance(value, Sweep | dict):
            return None
        try:
            plain = convert(value)
            config.check_value(key, plain, self._options)
        except (OmegaConfBaseException, ConfigError):
            return None
        return Setting(value, plain, config.identity_of(config.leaves(plain, key)))

    def _assigned(self, key: str, value: Any) -> Any:
        """Return what becomes of a value in the config."""
        OmegaConf.update(self._composed, key, value)
        assigned = OmegaConf.select(self._composed, key)
        return OmegaConf.to_container(assigned) if OmegaConf.is_config(assigned) else assigned


def _overlap(key: str, word: str) -> bool:
    """Return whether a word that is no value and chooses no option changes a key as well, in the order of the words."""
    other = config.key_of(word)
    is_choice = word == word.lstrip("+~") and "." not in other and other not in config.VALUES
    return not is_choice and (f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."))


def _node(cfg: DictConfig, key: str) -> Any:
    """Return the node of a key, which knows the type of its values; None if an override has deleted it."""
    path, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, path) if path else cfg
    return parent._get_node(name, validate_access=False) if isinstance(parent, DictConfig) else None


def _is_plain(composed: DictConfig) -> bool:
    """Return whether neither a value of the config nor what a sweep reads in `hydra` depends on another value."""
    raw = cast(dict[str, Any], OmegaConf.to_container(composed))
    hydra = raw.pop("hydra")
    of_sweep = NOW.sub("", hydra["sweep"]["dir"]), hydra["sweeper"]["trials"], hydra["sweeper"]["trial_seeds"]
    return raw["resume"] is None and "${" not in str([raw, of_sweep])
