"""hydra/launcher=fused, workers and slurm.

Like sweeper.py, quick to import, and without `from __future__ import annotations`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class FusedConf:
    """The keys under `hydra.launcher`."""

    _target_: str = "hydra_plugins.mnist_exp.launcher.FusedLauncher"
    max_models: int | None = None  # that train as one; null: all that are alike, divided by the cores
    keep: str = "all"  # of a completed run; best: without what resumes it, none: without its weights too


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedConf, provider="mnist_exp")


class FusedLauncher(Launcher):
    """Trains jobs of a sweep that are alike as fused groups."""

    def __init__(self, max_models: int | None, **_: Any) -> None:
        """Keep `max_models`; the sweeper reads the other keys."""
        self.max_models = max_models

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes."""
        self.context, self.task, self.master = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return their results. The config of a job has its number."""
        from mnist_exp.sweep.launchers import fused

        return fused.launch(self.context, self.task, self.master, job_overrides, self.max_models)


@dataclass
class WorkersConf:
    """The keys under `hydra.launcher`."""

    _target_: str = "hydra_plugins.mnist_exp.launcher.WorkersLauncher"
    fused: bool = False  # train jobs that are alike as one
    max_models: int | None = None  # that train as one, with fused=true; null: 64, as their memory is unknown
    keep: str = "all"  # of a completed run; best: without what resumes it, none: without its weights too
    n_jobs: int | None = None  # that each worker trains side by side; null: one for each `threads` of its cores


ConfigStore.instance().store(group="hydra/launcher", name="workers", node=WorkersConf, provider="mnist_exp")


class WorkersLauncher(Launcher):
    """Hands the jobs of a sweep over to workers. The sweeper does it: a launcher can't return before its jobs end."""

    def __init__(self, **_: Any) -> None:
        """Accept every key; sweep.launchers.workers reads them."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep nothing."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Raise ConfigError: another sweeper than this program's called it."""
        from mnist_exp.system.errors import ConfigError

        raise ConfigError("hydra/launcher=workers: needs hydra/sweeper=resumable, which hands the jobs over")


@dataclass
class SlurmConf(WorkersConf):
    """The keys under `hydra.launcher`."""

    _target_: str = "hydra_plugins.mnist_exp.launcher.SlurmLauncher"
    tasks: int = 1  # of the job array; each takes batches of jobs from the sweep until its time is nearly over
    time: int = 60  # minutes of a task, which is requeued if its time does not suffice
    partition: str | None = None  # null: the cluster's default; so for the keys that follow
    gpus_per_task: int = 0
    cpus_per_task: int | None = None
    mem_gb: float | None = None  # of a task
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: list[str] = field(default_factory=list)  # lines of the batch script, such as "module load cuda"
    wait: bool = False  # stay until the sweep is over, and show its progress
    sbatch: dict[str, Any] = field(
        default_factory=dict
    )  # other options of sbatch, such as {nice: 100, exclusive: true}


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmConf, provider="mnist_exp")


class SlurmLauncher(WorkersLauncher):
    """Hands the jobs of a sweep over to the tasks of a Slurm job array; sweep.launchers.slurm submits them."""
