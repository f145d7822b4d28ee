"""hydra/launcher=fused. Like sweeper.py, quick to import, and without `from __future__ import annotations`."""

from collections.abc import Sequence
from dataclasses import dataclass

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


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedConf, provider="mnist_exp")


class FusedLauncher(Launcher):
    """Trains jobs of a sweep that are alike as fused groups."""

    def __init__(self, max_models: int | None) -> None:
        self.max_models = max_models

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes."""
        self.context, self.task, self.master = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return their results. The config of a job has its number."""
        from mnist_exp.sweep.launchers import fused

        return fused.launch(self.context, self.task, self.master, job_overrides, self.max_models)
