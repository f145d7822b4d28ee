"""Which jobs of a sweep can be trained as one, and how many of them at a time."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from mnist_exp import config
from mnist_exp.sweep.compose import PlannedJob
from mnist_exp.system import resources
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess

# Optimizers of torch.optim that update each weight by its own gradient alone: one of them can step for many models.
ELEMENTWISE = {"SGD", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"}
# The keys in which jobs of a group may differ...
FREE_GROUPS = ("init.", "schedule.")
FREE_KEYS = ("seed", "patience", "model.dropout", "model.input_dropout", "optimizer.", "loss.", "augmentation.")
FIXED_SUFFIXES = ("_target_", ".size", ".points")  # ...except these of FREE_KEYS: they mean other code or other shapes
EQUAL_KEYS = ("device", "threads", "deterministic", "data.root")  # must be equal, although config_id ignores them


class Group(NamedTuple):
    """Jobs that can be trained as one.

    Attributes:
        jobs: The indices of the jobs in the sweep, sorted by seed.
        overrides: The overrides that all jobs of the group have in common, and the jobs of the sweep do not.
    """

    jobs: list[int]
    overrides: str


def is_fused(launcher: Mapping[str, Any]) -> bool:
    """Return whether a launcher, by its config, trains jobs that are alike as one.

    Raises:
        ConfigError: Its `max_models` is less than 1.
    """
    fused = bool(launcher["_target_"].endswith(".FusedLauncher") or launcher.get("fused"))
    if fused and launcher["max_models"] is not None and launcher["max_models"] < 1:
        raise ConfigError(
            f"hydra.launcher.max_models={launcher['max_models']}: must be 1 or more, or null for no limit"
        )
    return fused


def group_jobs(configs: Iterable[DictConfig]) -> list[Group]:
    """Sort the jobs of a sweep into groups, in the order of their first jobs.

    Args:
        configs: One config per job, with Hydra's section.
    """
    return _groups((group_key(cfg), cfg.seed, set(cfg.hydra.overrides.task)) for cfg in configs)


def group_planned(planned: Iterable[PlannedJob]) -> list[Group]:
    """Sort planned jobs into groups, as `group_jobs` does, and unpack few of their configs."""
    keys: dict[str, str | None] = {}

    def key_of(each: PlannedJob) -> str | None:
        telling = {key: value for key, value in each.config.changes.items() if not _is_of_one_job(key)}
        text = repr([id(each.config.packed), telling])
        if text not in keys:
            keys[text] = group_key(each.config.config())
        return keys[text]

    return _groups((key_of(each), each.job.seed, set(each.job.overrides)) for each in planned)


def _is_of_one_job(key: str) -> bool:
    """Return whether a change of a planned job's config leaves it in its group."""
    return key == "resume" or key.startswith("hydra.") or is_free(key)


def _groups(keyed: Iterable[tuple[str | None, int, set[str]]]) -> list[Group]:
    """Return the groups of jobs, given the group key, the seed and the overrides of each."""
    members: dict[str, list[tuple[int, int]]] = {}
    overrides: list[set[str]] = []
    for index, (key, seed, words) in enumerate(keyed):
        members.setdefault(key or f"job {index}", []).append((seed, index))
        overrides.append(words)
    common = set.intersection(*overrides) if overrides else set()
    groups: list[Group] = []
    for seeds_and_jobs in members.values():
        jobs = [index for _, index in sorted(seeds_and_jobs)]
        own = set.intersection(*(overrides[index] for index in jobs)) - common
        groups.append(Group(jobs, " ".join(sorted(own))))
    return groups


def group_key(cfg: DictConfig) -> str | None:
    """Return a text that is equal for jobs that can be trained as one; None for a job that must be trained alone.

    Args:
        cfg: The config of the job, with Hydra's section.
    """
    module, _, optimizer = cfg.optimizer._target_.rpartition(".")
    if module != "torch.optim" or optimizer not in ELEMENTWISE or cfg.hydra.job.chdir:
        return None
    fixed = {key: value for key, value in config.identity(config.without_hydra(cfg)).items() if not is_free(key)}
    return json.dumps([fixed, [str(OmegaConf.select(cfg, key)) for key in EQUAL_KEYS]], sort_keys=True)


def is_free(key: str) -> bool:
    """Return whether the jobs of a group may differ in a key."""
    return key.startswith(FREE_GROUPS) or (key.startswith(FREE_KEYS) and not key.endswith(FIXED_SUFFIXES))


def rounds(cfg: DictConfig, jobs: Sequence[int], max_models: int | None) -> list[list[Sequence[int]]]:
    """Divide a group into rounds of fused groups; the fused groups of a round train at the same time.

    On a CPU, each core trains one fused group, which is faster than all cores on one. Each GPU trains one.

    Args:
        cfg: The config of one of the jobs.
        jobs: The indices of the jobs.
        max_models: The most models in a fused group; None for as many as fit into memory.
    """
    at_once, most = run_in_subprocess(partial(_capacity, cfg, max_models))
    count = max(min(at_once, len(jobs)), -(-len(jobs) // most))
    count += -count % at_once  # whole rounds
    ends = [number * len(jobs) // count for number in range(count + 1)]
    fused_groups = [jobs[start:end] for start, end in pairwise(ends) if start < end]
    return [fused_groups[first : first + at_once] for first in range(0, len(fused_groups), at_once)]


def _capacity(cfg: DictConfig, max_models: int | None) -> tuple[int, int]:
    """Return how many fused groups train at the same time, and how many models each can have."""
    import torch

    from mnist_exp import build
    from mnist_exp.fused import memory

    build.setup_torch(cfg)
    device = build.device(cfg)
    at_once = resources.cores() if device.type == "cpu" else build.num_devices(cfg)
    if max_models:
        return at_once, max_models
    data = build.split(cfg, build.cached_source(cfg), torch.device("cpu"))
    model = build.model(cfg, data)
    parts, copies = (build.loss(cfg), build.optimizer(cfg, model), data.train), build.checkpoint_copies(cfg, device)
    size = memory.bytes_per_model(model, *parts, copies)
    return at_once, memory.max_models(size, device, at_once if device.type == "cpu" else 1)


def describe(groups: Sequence[Group]) -> str:
    """Return a line per group for the console."""
    lines: list[str] = []
    for group in groups:
        line = f"  {len(group.jobs)} jobs are trained as one"
        if len(group.jobs) == 1:
            reason = ": no other shares its model, optimizer and data" if len(groups) > 1 else ""
            line = f"  1 job runs on its own{reason}"
        lines.append(f"{line} ({group.overrides})" if group.overrides else line)
    return "\n".join(lines)
