"""Which jobs of a sweep can be trained as one."""

import json
from collections.abc import Iterable, Sequence

from omegaconf import DictConfig, OmegaConf

from mnist_exp import config

# Optimizers of torch.optim whose step on a weight depends on that weight alone: they may take many models' for one.
ELEMENTWISE = {"SGD", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"}
FREE = (
    "seed",
    "model.dropout",
    "optimizer.",
    "schedule.",
    "loss.",
    "augmentation.",
)  # what jobs of a group may differ in
NOT_FREE = ("_target_", ".size")  # but not in these: other code, other shapes
EQUAL = ("device", "deterministic", "data.root")  # beside what makes a run what it is


def groups(configs: Iterable[DictConfig]) -> list[list[int]]:
    """Places of the configs, those that can be trained as one together, in the order in which they first come."""
    found = dict[str, list[int]]()
    for place, cfg in enumerate(configs):
        found.setdefault(kind(cfg) or f"alone {place}", []).append(place)
    return list(found.values())


def kind(cfg: DictConfig) -> str | None:
    """Equal for jobs that can be trained as one: None for a job that can't be with any."""
    module, _, optimizer = cfg.optimizer._target_.rpartition(".")
    if module != "torch.optim" or optimizer not in ELEMENTWISE or cfg.hydra.job.chdir:
        return None
    fixed = {key: value for key, value in config.identity(cfg).items() if not _is_free(key)}
    return json.dumps([fixed, [str(OmegaConf.select(cfg, key)) for key in EQUAL]], sort_keys=True)


def _is_free(key: str) -> bool:
    return key.startswith("schedule.") or (key.startswith(FREE) and not key.endswith(NOT_FREE))


def describe(overrides: Sequence[Sequence[str]], found: Sequence[Sequence[int]]) -> str:
    """The groups in words, a line each: how many models, and what they have in common that others have not."""
    common = set.intersection(*(set(words) for words in overrides))
    lines = []
    for places in found:
        first = overrides[places[0]]
        shared = set.intersection(*(set(overrides[place]) for place in places)) - common
        what = " ".join(word for word in first if word in shared)
        lines.append(f"  {len(places)} model{'s' * (len(places) > 1)} as one{': ' * bool(what)}{what}")
    return "\n".join(lines)
