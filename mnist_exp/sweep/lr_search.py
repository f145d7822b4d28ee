"""Plans the learning-rate search of each arm: a sweep of its own, whose validation chooses the arm's rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mnist_exp import config
from mnist_exp.store.ledger import keys_beside_identity
from mnist_exp.sweep.compose import SEED, PlannedJob
from mnist_exp.system.errors import ConfigError

MAX_RATES = 100


class Trial(NamedTuple):
    """One run of a search."""

    arm: str  # whose rate it helps to choose
    rate: str  # as an override
    planned: PlannedJob


def arms(planned: Sequence[PlannedJob]) -> list[str]:
    """Return the name of each job's arm."""
    beside = keys_beside_identity(each.job for each in planned)
    return [each.job.arm_beside(beside) for each in planned]


def one_per_arm(planned: Sequence[PlannedJob]) -> dict[str, PlannedJob]:
    """Return one job of each arm, by the arm's name."""
    return dict(zip(arms(planned), planned, strict=True))


def trials(planned: Sequence[PlannedJob], plan: Callable[[Sequence[str]], PlannedJob]) -> list[Trial]:
    """Return the trials of all arms: rates over each optimizer.lr_range, each with every seed of the search.

    Args:
        planned: The jobs of the sweep.
        plan: Composes a job from overrides.

    Raises:
        ConfigError: The optimizer has no lr_range, the command sets the rate, or a seed is used twice.
    """
    seeds = {each.job.seed for each in planned if each.search.rates}
    return [
        Trial(arm, rate, plan([*overrides, rate, f"seed={seed}"]))
        for arm, each in one_per_arm(planned).items()
        if each.search.rates
        for overrides, limits in [_search_space(each, seeds)]
        for rate in rates(limits, each.search.rates)
        for seed in each.search.seeds
    ]


def _search_space(planned: PlannedJob, seeds: set[int]) -> tuple[list[str], list[float]]:
    """Return an arm's overrides without the seed, and its range of learning rates. Raises ConfigError."""
    search, job = planned.search, planned.job
    if not 0 < search.rates <= MAX_RATES or not search.seeds:
        raise ConfigError(f"hydra.sweeper.trials: must be 0 to {MAX_RATES}, and trial_seeds one seed or more")
    if both := seeds.intersection(search.seeds):
        raise ConfigError(
            f"seed={min(both)}: is also in hydra.sweeper.trial_seeds, which choose the rate and so can't judge it"
        )
    overrides = [override for override in job.overrides if not SEED.fullmatch(override)]
    for override in overrides:
        if config.key_of(override) == config.LR:
            raise ConfigError(f"{override}: the search chooses this key; remove it, or set hydra.sweeper.trials=0")
    limits = job.choices.get(f"{config.LR}_range")
    if not limits:
        name = f"optimizer={job.choices['optimizer']}"
        raise ConfigError(f"{config.LR}_range: {name} has none; a learning-rate search needs [low, high]")
    return overrides, limits


def rates(limits: Sequence[float], count: int) -> list[str]:
    """Return `count` learning rates in [low, high] as overrides, evenly spaced by ratio; one rate is the middle."""
    low, high = limits
    steps = [step / (count - 1) for step in range(count)] if count > 1 else [0.5]
    return [f"{config.LR}={low * (high / low) ** step:.3g}" for step in steps]
