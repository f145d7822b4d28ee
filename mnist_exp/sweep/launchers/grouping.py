"""Which jobs of a sweep can be trained as one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from mnist_exp import config
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess

# Optimizers of torch.optim whose step on a weight depends on that weight alone: they may take many models' for one.
ELEMENTWISE = {"SGD", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"}
# What jobs of a group may differ in...
WHOLLY_FREE = ("init.", "schedule.")
FREE = ("seed", "patience", "model.dropout", "model.input_dropout", "optimizer.", "loss.", "augmentation.")
NOT_FREE = ("_target_", ".size", ".points")  # ...but not in these of the latter: other code, other shapes
EQUAL = ("device", "threads", "deterministic", "data.root")  # beside what makes a run what it is


def is_for(launcher: Mapping[str, Any]) -> bool:
    """Whether a launcher, by its config, is the fused one. Raises ConfigError when it can't be so."""
    fused = bool(launcher["_target_"].endswith(".FusedLauncher"))
    if fused and launcher["max_models"] is not None and launcher["max_models"] < 1:
        raise ConfigError(
            f"hydra.launcher.max_models={launcher['max_models']}: must be 1 or more, or null for no limit"
        )
    return fused


class Group(NamedTuple):
    """Jobs that can be trained as one: their places among all, by seed, and the overrides that only they have all."""

    places: list[int]
    words: str


def groups(configs: Iterable[DictConfig]) -> list[Group]:
    """Sort jobs into groups, in the order in which these first come."""
    found, words = dict[str, list[tuple[int, int]]](), list[set[str]]()
    for place, cfg in enumerate(configs):
        found.setdefault(kind(cfg) or f"alone {place}", []).append((cfg.seed, place))
        words.append(set(cfg.hydra.overrides.task))
    sorted_places = [[place for _, place in sorted(group)] for group in found.values()]
    common = set.intersection(*words)
    return [
        Group(places, " ".join(sorted(set.intersection(*(words[place] for place in places)) - common)))
        for places in sorted_places
    ]


def kind(cfg: DictConfig) -> str | None:
    """Equal for jobs that can be trained as one: None for a job that can't be with any."""
    module, _, optimizer = cfg.optimizer._target_.rpartition(".")
    if module != "torch.optim" or optimizer not in ELEMENTWISE or cfg.hydra.job.chdir:
        return None
    fixed = {key: value for key, value in config.identity(config.without_hydra(cfg)).items() if not _is_free(key)}
    return json.dumps([fixed, [str(OmegaConf.select(cfg, key)) for key in EQUAL]], sort_keys=True)


def _is_free(key: str) -> bool:
    return key.startswith(WHOLLY_FREE) or (key.startswith(FREE) and not key.endswith(NOT_FREE))


def crews(cfg: DictConfig, places: Sequence[int], most: int | None) -> list[list[Sequence[int]]]:
    """Divide a group, of which `cfg` is one, into crews that are trained as one, side by side: rounds of these.

    On a CPU there is a crew for each core, which gets more out of it than all cores on one crew. A crew has `most`
    models; None: as many as there is memory for.
    """
    at_once, most = run_in_subprocess(partial(_room, cfg, most))
    count = max(min(at_once, len(places)), -(-len(places) // most))
    count += -count % at_once  # whole rounds
    ends = [number * len(places) // count for number in range(count + 1)]
    found = [places[start:end] for start, end in pairwise(ends) if start < end]
    return [found[first : first + at_once] for first in range(0, len(found), at_once)]


def _room(cfg: DictConfig, most: int | None) -> tuple[int, int]:
    """How many crews work at once, and how many models each can have."""
    from mnist_exp import build
    from mnist_exp.fused import memory

    device = build.device(cfg)
    at_once = resources.cores() if device.type == "cpu" else 1
    return at_once, most or memory.most_models(cfg, device, at_once)


def describe(found: Sequence[Group]) -> str:
    """The groups in words, a line each."""
    return "\n".join(
        f"  {len(group.places)} as one" * (len(group.places) > 1)
        + "  1 alone, for no other has the like model, optimizer, data..." * (len(group.places) == 1)
        + f": {group.words}" * bool(group.words)
        for group in found
    )
