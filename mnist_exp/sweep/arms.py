"""The arms of a sweep: jobs of one arm differ in the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

from mnist_exp.store.ledger import keys_beside_identity
from mnist_exp.sweep.compose import SEED, PlannedJob


def arm_names(planned: Sequence[PlannedJob]) -> list[str]:
    """Return the name of each job's arm."""
    beside = keys_beside_identity(each.job for each in planned)
    return [each.job.arm_beside(beside) for each in planned]


def one_per_arm(planned: Sequence[PlannedJob]) -> dict[str, PlannedJob]:
    """Return one job of each arm, by the arm's name."""
    return dict(zip(arm_names(planned), planned, strict=True))


def without_seed(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a job without its seed."""
    return tuple(override for override in overrides if not SEED.fullmatch(override))
