"""The arms of a sweep, and the space of the search for each one's learning rate: optimizer.lr_range."""

from __future__ import annotations

from collections.abc import Sequence

from mnist_exp import config
from mnist_exp.store.ledger import keys_beside_identity
from mnist_exp.sweep.compose import SEED, PlannedJob
from mnist_exp.sweep.search.space import Interval, Space
from mnist_exp.system.errors import ConfigError

MAX_RATES = 100
DIGITS = 3  # of a rate


def arms(planned: Sequence[PlannedJob]) -> list[str]:
    """Return the name of each job's arm."""
    beside = keys_beside_identity(each.job for each in planned)
    return [each.job.arm_beside(beside) for each in planned]


def one_per_arm(planned: Sequence[PlannedJob]) -> dict[str, PlannedJob]:
    """Return one job of each arm, by the arm's name."""
    return dict(zip(arms(planned), planned, strict=True))


def without_seed(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a job without its seed."""
    return tuple(override for override in overrides if not SEED.fullmatch(override))


def space(planned: PlannedJob) -> Space:
    """Return the learning rates of an arm, equally likely by ratio.

    Raises:
        ConfigError: The optimizer has no lr_range, the command sets the rate, or there are too many rates.
    """
    job = planned.job
    if not 0 < planned.search.rates <= MAX_RATES:
        raise ConfigError(f"hydra.sweeper.trials={planned.search.rates}: must be 0 to {MAX_RATES} learning rates")
    for override in job.overrides:
        if config.key_of(override) == config.LR:
            raise ConfigError(f"{override}: the search chooses this key; remove it, or set hydra.sweeper.trials=0")
    limits = job.choices.get(f"{config.LR}_range")
    if not limits:
        name = f"optimizer={job.choices['optimizer']}"
        raise ConfigError(f"{config.LR}_range: {name} has none; a learning-rate search needs [low, high]")
    return (Interval(config.LR, limits[0], limits[1], is_log=True, digits=DIGITS),)
