"""What a config may contain: the schema, and checks of values and across keys.

The file of a group's option is its own schema: it has the keys, and its values have the types. So a new option needs
a YAML file alone. This module must stay quick to import: --help, --cfg and TAB completion wait for it.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.conf import HydraConf, RuntimeConf
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf

from mnist_exp.limits import LIMITS, PART, listed
from mnist_exp.system import quoting
from mnist_exp.system.errors import ConfigError, offer

LR = "optimizer.lr"
GROUPS = ("data", "augmentation", "model", "activation", "init", "optimizer", "schedule", "loss")

# Keys that decide where and how fast a run trains, not what it trains. config_id leaves them out.
# (Bits may differ between devices and thread counts: summary.json records both.)
RUNTIME_KEYS = (
    "device",
    "threads",
    "plots",
    "predictions",
    "checkpoint_every",
    "deterministic",
    "data.root",
    "resume",
    "tags",
    "tracker",
)
PRUNING = ("stop_below", "stop_after")  # a run that these end is pruned: it has no result that could differ
EXCLUDED_FROM_ID = (*RUNTIME_KEYS, *PRUNING, "optimizer.lr_range")  # the range is for sweeps alone
OFF: dict[str, Any] = {  # values of keys that older versions lack
    "patience": None,
    "stop_below": None,
    "stop_after": None,
    "tags": [],
    "predictions": True,
    "checkpoint_every": 1,
    "tracker": None,
}
SEEDS = ("seed", "data.seed")  # runs that differ in these alone are one arm
INTERVAL = re.compile(r"\binterval\(")
SEARCHED = re.compile(r"\b(interval|choice)\(")  # values among which a search chooses
# The keys that may change when a run is resumed.
RESUME_KEYS = ("epochs", "patience", *(key for key in RUNTIME_KEYS if key != "resume"))


@dataclass
class Config:
    """The types of the top-level keys. conf/config.yaml has their values and explains them."""

    epochs: int = MISSING
    patience: int | None = MISSING
    stop_below: list[float] | None = MISSING
    stop_after: int | None = MISSING
    best_by: str = MISSING
    seed: int = MISSING
    device: str = MISSING
    threads: int = MISSING
    matmul_precision: str = MISSING
    plots: bool = MISSING
    predictions: bool = MISSING
    checkpoint_every: int = MISSING
    deterministic: bool = MISSING
    resume: str | None = MISSING
    tags: list[str] = MISSING
    tracker: Any = MISSING  # text, or a list of it
    data: dict[str, Any] = MISSING
    augmentation: dict[str, Any] = MISSING
    model: dict[str, Any] = MISSING
    activation: dict[str, Any] = MISSING
    init: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    schedule: dict[str, Any] = MISSING
    loss: dict[str, Any] = MISSING


VALUES = [key for key in Config.__dataclass_fields__ if key not in (*GROUPS, "resume")]  # top-level keys of a run's own
ConfigStore.instance().store(name="schema", node=Config)


def check(cfg: DictConfig, hydra: HydraConf) -> None:
    """Check values and combinations of them, before anything is loaded.

    Args:
        cfg: The config of a run, without Hydra's section.
        hydra: Hydra's section.

    Raises:
        ConfigError: A key is unknown, or has a value that can't work.
    """
    _require_one_run(cfg, hydra)
    if unknown := cfg.keys() - Config.__dataclass_fields__.keys():
        raise ConfigError(f"{', '.join(sorted(map(str, unknown)))}: no such key")
    groups = GROUPS if cfg.resume is None else ()  # a resumed run was checked against its options when it started
    for group in groups:
        if not isinstance(hydra.runtime.choices.get(group), str):
            raise ConfigError(f"{group}: needs one option; {quoting.command('--help')} lists them")
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{key}=???: must be {LIMITS[key].text if key in LIMITS else 'set'}")
    for group, (file, example) in options(hydra).items() if groups else ():
        _require_types(group, cfg[group], example, file, hydra.overrides.task)
    check_values(cfg)
    check_together({f"optimizer.{key}": value for key, value in cfg.optimizer.items()})


def check_together(choices: Mapping[str, Any]) -> None:
    """Raise ConfigError if values contradict each other that are allowed one by one."""
    if choices.get("optimizer.nesterov") and not choices.get("optimizer.momentum"):
        raise ConfigError("optimizer.nesterov=true: needs optimizer.momentum above 0")


def check_value(key: str, value: Any, options: Mapping[str, tuple[Path, Any]]) -> None:
    """Check one value of a config whose other values are checked.

    Args:
        key: Its dotted key.
        value: The value.
        options: What `options` has returned for the config.

    Raises:
        ConfigError: The value is not allowed, or its option's file lacks the key.
    """
    group, *names = key.split(".")
    file, example = options.get(group, (Path(), None))
    for name in names:
        if isinstance(example, dict) and name not in example and "defaults" not in example:
            raise ConfigError(f"{key}: no such key")
        example = example.get(name) if isinstance(example, dict) else None
    _require_types(key, value, example, file, ())
    _check_limits(leaves(value, key))


def options(hydra: HydraConf) -> dict[str, tuple[Path, Any]]:
    """Return the file of each group's option, and its content."""
    files = {group: _option_file(group, hydra.runtime) for group in GROUPS}
    return {group: (file, OmegaConf.to_container(OmegaConf.load(file))) for group, file in files.items() if file}


def check_values(cfg: DictConfig) -> None:
    """Check values against their limits.

    Raises:
        ConfigError: A value is not allowed.
    """
    _check_limits(leaves(OmegaConf.to_container(cfg, resolve=True)))


def trackers(cfg: DictConfig) -> list[str]:
    """Return the trackers that a config names, each once. Raises ConfigError for one that there is not."""
    value = OmegaConf.to_container(OmegaConf.masked_copy(cfg, "tracker"), resolve=True)["tracker"]  # type: ignore
    _check_limits([("tracker", value)])
    return listed(value)


def _check_limits(values: Iterable[tuple[str, Any]]) -> None:
    for key, value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value}: must be a finite number")
        limit = LIMITS.get(key)
        if limit and value is not None and not limit.allows(value):
            raise ConfigError(f"{key}={spell(value)}: must be {limit.text}")


def _require_one_run(cfg: DictConfig, hydra: HydraConf) -> None:
    """Raise ConfigError for an experiment that is a sweep, without -m, unless the command chooses one run of it."""
    if hydra.mode != RunMode.RUN or cfg.resume is not None:
        return
    if until := hydra.sweeper.get("until"):
        raise ConfigError(f"hydra.sweeper.until={until}: is for a sweep; add -m and values to compare")
    typed, params = set(map(key_of, hydra.overrides.task)), dict(hydra.sweeper.get("params") or {})
    params = {key: values for key, values in params.items() if not SEARCHED.search(values)}
    open_keys = [key for key in params if key not in typed and (key != "seed" or len(params) == 1)]
    if open_keys:
        name = f"experiment={hydra.runtime.choices.get('experiment')}"
        one = [f"{key}={str(params[key]).partition(',')[0]}" for key in open_keys if key != "seed"] or ["seed=0"]
        raise ConfigError(
            f"{name}: is a sweep over {', '.join(params)}; add -m, or choose one run of it, as in "
            f"{name} {' '.join(one)}"
        )


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a config without its `hydra` section."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def identity(cfg: DictConfig) -> dict[str, Any]:
    """Return the values that define what a run trains, by their dotted keys; equal values have equal types."""
    return identity_of(leaves(OmegaConf.to_container(cfg, resolve=True)))


def identity_of(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the part of a config's identity that these dotted keys and their values are."""
    kept = {key: _same_number(value) for key, value in values if key.partition("[")[0] not in EXCLUDED_FROM_ID}
    return {key: value for key, value in kept.items() if key not in OFF or value != OFF[key]}


def config_id(cfg: DictConfig, without: tuple[str, ...] = ()) -> str:
    """Return twelve hexadecimal digits that are equal for equal configs, on any machine and at any time.

    Args:
        cfg: The config of a run.
        without: Keys to leave out, beside EXCLUDED_FROM_ID.
    """
    return id_of(identity(cfg), without)


def id_of(identity: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """Return the config_id of a config with this identity."""
    kept = {key: value for key, value in identity.items() if key not in without}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return a sentence about the keys whose values differ."""
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in keys if "[" not in key)


def key_of(override: str) -> str:
    """Return the key of an override."""
    return override.lstrip("+~").partition("=")[0]


def is_in_identity(key: str) -> bool:
    """Return whether a key is part of a run's identity, and not one of EXCLUDED_FROM_ID or an experiment."""
    group = key.partition(".")[0].partition("@")[0]
    return group in Config.__dataclass_fields__ and key not in EXCLUDED_FROM_ID


def choices(cfg: DictConfig, hydra: HydraConf) -> dict[str, Any]:
    """Return the option of each group, and the value of every dotted key of the config."""
    chosen = hydra.runtime.choices
    options = {group: option for group, option in chosen.items() if not group.startswith("hydra/")}
    keys = {key: value for key, value in leaves(OmegaConf.to_container(cfg, resolve=True)) if "[" not in key}
    return dict.fromkeys((*GROUPS, "experiment")) | options | keys


def values(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `choices` that is the config itself, without the options of groups."""
    return {key: value for key, value in choices.items() if _is_value(key)}


def rebuild(values: Mapping[str, Any]) -> DictConfig:
    """Return the config with these values, without composing anything.

    Keys that an older version lacked have the values that turn them off.

    Args:
        values: What the function `values` has returned for a config, perhaps in another process.
    """
    nested: dict[str, Any] = OFF | {group: {} for group in GROUPS}
    for key, value in values.items():
        *path, name = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    cfg = OmegaConf.merge(OmegaConf.structured(Config), nested)
    OmegaConf.set_struct(cfg, True)
    return cast(DictConfig, cfg)


def _is_value(key: str) -> bool:
    """Return whether a key of `choices` is one of the config, and not a group."""
    return key not in GROUPS and key.partition(".")[0] in Config.__dataclass_fields__


class Recorded(NamedTuple):
    """What the folder .hydra of a run says."""

    overrides: tuple[str, ...]
    config_id: str
    arm: str  # the config_id without the seed
    seed: int
    choices: dict[str, Any]


def recorded(folder: Path) -> Recorded:
    """Read the folder .hydra of a run.

    Raises:
        OSError: A file can't be read.
    """
    cfg, hydra = (cast(DictConfig, OmegaConf.load(folder / f"{name}.yaml")) for name in ("config", "hydra"))
    return Recorded(
        overrides=tuple(OmegaConf.load(folder / "overrides.yaml")),
        config_id=config_id(cfg),
        arm=config_id(cfg, without=SEEDS),
        seed=cfg.seed,
        choices=choices(cfg, cast(HydraConf, hydra.hydra)),
    )


def _same_number(value: Any) -> Any:
    """Return 1.0 as 1, at any depth of lists: a float may be typed as a whole number."""
    if isinstance(value, list):
        return [_same_number(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _option_file(group: str, runtime: RuntimeConf) -> Path | None:
    """Return the YAML file of the option that is chosen for a group: as Hydra, the first on the search path."""
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    files = [folder / group / f"{runtime.choices[group]}.yaml" for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _require_types(key: str, value: Any, example: Any, file: Path, overrides: Sequence[str]) -> None:
    """Raise ConfigError for keys that the option's file lacks (unless added with +), and for values of other types.

    Null in the file stands for any type, and so does what another key decides: an interpolation, or ???.
    """
    if isinstance(example, dict) and isinstance(value, DictConfig):
        for name in map(str, value):
            if name in example:
                _require_types(f"{key}.{name}", value[name], example[name], file, overrides)
            elif "defaults" not in example and not _added(f"{key}.{name}", overrides):
                known = [f"{key}.{other}" for other in example if other != "_target_"]
                raise ConfigError(f"{key}.{name}: no such key, {offer(name, known)}; +{key}.{name}=... adds it")
    elif example is not None and "${" not in str(example) and example != "???" and not _alike(key, value, example):
        needed = f"must be {_kind(example)}, as in {file.parent.name}/{file.name}{_quotes(key, value, example)}"
        raise ConfigError(f"{key}={spell(value)}: {needed}")


def _added(key: str, overrides: Sequence[str]) -> bool:
    """Return whether an override adds a key, or a mapping around it, with a +."""
    added = [word.lstrip("+").partition("=")[0] for word in overrides if word.startswith("+")]
    return any(f"{key}.".startswith(f"{name}.") for name in added)


def _alike(key: str, value: Any, example: Any) -> bool:
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(example, list):
        return isinstance(value, list) and all(_alike(key, item, kind) for item in value for kind in example[:1])
    if LIMITS.get(key) is PART:  # the file has a number of images, or a share
        return type(value) in (int, float)
    return type(value) is type(example) or (type(value) is int and type(example) is float)


def _kind(example: Any) -> str:
    if isinstance(example, list):
        return f"a list like {spell(example)}"
    if isinstance(example, dict):
        return f"a mapping with {', '.join(example)}"
    names = {bool: "true or false", int: f"a whole number like {example}", float: f"a number like {example}"}
    return names.get(type(example), f"text like {example}")


def _quotes(key: str, value: Any, example: Any) -> str:
    """Return how a number or a truth value is typed where text is needed; "" elsewhere."""
    if not (isinstance(example, str) and isinstance(value, int | float)):
        return ""
    return f"; quotes make it text: {quoting.for_shell(quoting.override(key, spell(value)))}"


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for everything below a mapping; a list is a value, and so are its items."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, f"{prefix}.{name}" if prefix else str(name))
        return
    yield prefix, value
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, f"{prefix}[{number}]")


def spell(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return str(value) if isinstance(value, str) else json.dumps(value).replace(" ", "").replace("NaN", "nan")
