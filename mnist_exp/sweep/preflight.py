"""What is checked before a sweep writes anything: its jobs can be built, and mix no results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tqdm import tqdm

from mnist_exp.store.ledger import Job
from mnist_exp.sweep import jobs
from mnist_exp.sweep.arms import one_per_arm
from mnist_exp.sweep.compose import PlannedJob, naming_job
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.fork import run_in_subprocess

OPTIMIZATION = ("optimizer", "schedule", "epochs")  # the network does not depend on them


def require_buildable(left: Sequence[PlannedJob], at_once: int) -> None:
    """Build every part of one job of each arm; what several arms share is built once.

    Args:
        left: The jobs that are left to run.
        at_once: How many jobs run at the same time, and need memory.

    Raises:
        ConfigError: A job can't be built.
    """
    arms = one_per_arm(left).values()  # seeds make no difference
    for same_data in _grouped(arms, _data):
        _build(same_data, min(at_once, len(left)))


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


def _grouped(arms: Iterable[PlannedJob], key: Callable[[PlannedJob], str]) -> list[list[PlannedJob]]:
    """Return arms in groups of equal `key`, in the order of their first ones."""
    groups: dict[str, list[PlannedJob]] = {}
    for arm in arms:
        groups.setdefault(key(arm), []).append(arm)
    return list(groups.values())


def _data(planned: PlannedJob) -> str:
    """Return what decides on the data."""
    return _choices(planned, lambda group: group == "data")


def _network(planned: PlannedJob) -> str:
    """Return what decides on the network, and on the memory for it."""
    return _choices(planned, lambda group: group not in (*OPTIMIZATION, "seed"))


def _optimization(planned: PlannedJob) -> str:
    """Return what decides on the optimizer and the schedule."""
    return _choices(planned, lambda group: group in OPTIMIZATION)


def _choices(planned: PlannedJob, is_wanted: Callable[[str], bool]) -> str:
    """Return the values of all keys of the groups that are wanted, in one text."""
    return repr([(key, value) for key, value in planned.job.choices.items() if is_wanted(key.partition(".")[0])])


def _build(arms: Sequence[PlannedJob], at_once: int) -> None:
    """Build every part of arms that share their data, of which `at_once` run at a time. Raises ConfigError."""
    with naming_job(arms[0].job.overrides):
        jobs.prepare_process(arms[0].config.config())
    from mnist_exp import build  # imports torch, which a mistyped key should not wait for

    def build_all() -> None:
        optimizations: dict[str, build.Optimization] = {}
        with tqdm(total=len(arms), desc="building", unit="arm", leave=False, disable=None) as bar:
            for same_network in _grouped(arms, _network):
                trial = None
                for arm in same_network:
                    with naming_job(arm.job.overrides):
                        trial = trial or build.Trial(arm.config.config(), at_once)
                        key = _optimization(arm)
                        if key not in optimizations:
                            optimizations[key] = trial.optimization(arm.config.config())
                        trial.check(optimizations[key])
                    bar.update()

    run_in_subprocess(build_all)
