"""What is checked before a sweep writes anything: its jobs can be built, and mix no results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from tqdm import tqdm

from mnist_exp.store.ledger import Job
from mnist_exp.sweep import jobs
from mnist_exp.sweep.arms import one_per_arm
from mnist_exp.sweep.compose import PlannedJob, naming_job
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess


def require_buildable(left: Sequence[PlannedJob], at_once: int) -> None:
    """Build every part of one job of each arm.

    Args:
        left: The jobs that are left to run.
        at_once: How many jobs run at the same time, and need memory.

    Raises:
        ConfigError: A job can't be built.
    """
    arms = one_per_arm(left).values()  # seeds make no difference
    for _, same_data in groupby(arms, key=_data_choices):
        _build(list(same_data), min(at_once, len(left)))


def require_same_data(left: Sequence[PlannedJob], known: Mapping[int, Job]) -> None:
    """Check that the data are those of the completed jobs.

    Args:
        left: The jobs that are left to run.
        known: The jobs of the ledger, by number.

    Raises:
        ConfigError: Completed jobs were trained on other data.
    """
    from mnist_exp import build

    trained = {job.source: job for job in known.values() if job.status == "completed" and job.data}
    for name, each in {each.job.source: each for each in left if each.job.source in trained}.items():
        now = build.cached_source(each.config.config()).sha256
        if now != trained[name].data:
            raise ConfigError(
                f"data={each.job.choices['data']}: job {trained[name].number} was trained on other data (SHA-256 "
                f"{trained[name].data}, now {now}); hydra.sweeper.allow_changed=true continues all the same"
            )


def _data_choices(planned: PlannedJob) -> str:
    """Return the values of all keys of `data`, in one text."""
    return repr([(key, value) for key, value in planned.job.choices.items() if key.startswith("data.")])


def _build(arms: Sequence[PlannedJob], at_once: int) -> None:
    """Build every part of arms that share their data, of which `at_once` run at a time. Raises ConfigError."""
    with naming_job(arms[0].job.overrides):
        jobs.prepare_process(arms[0].config.config())
    from mnist_exp import build  # imports torch, which a mistyped key should not wait for

    def build_all() -> None:
        for arm in tqdm(arms, desc="building", unit="arm", leave=False, disable=None):
            with naming_job(arm.job.overrides):
                build.check_build(arm.config.config(), at_once)

    run_in_subprocess(build_all)
