"""hydra/sweeper=resumable. Hydra imports this file when any of its programs starts: nothing slow may be imported here.

(No `from __future__ import annotations`: Hydra's scanner runs the file before it is in sys.modules, and a dataclass
whose annotations are strings then fails.)
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ResumableConf:
    """What `hydra.sweeper.` offers."""

    _target_: str = "hydra_plugins.mnist_exp.sweeper.ResumableSweeper"
    params: dict[str, str] = field(default_factory=dict)  # a sweep kept in a file, key: values
    trials: int = 0  # learning rates that each arm tries before, over optimizer.lr_range: validation chooses one
    trial_seeds: list[int] = field(default_factory=lambda: [1000, 1001, 1002])  # of each; they do not judge
    dry_run: bool = False  # print the jobs and run none
    stop_on_failure: bool = False  # else the other jobs run on
    retry_failed: bool = False  # on resume, run the failed jobs again
    allow_changed: bool = False  # on resume, go on though configs, versions or data differ from before
    max_jobs: int = 10_000  # more are taken for a mistake


ConfigStore.instance().store(group="hydra/sweeper", name="resumable", node=ResumableConf, provider="mnist_exp")


class ResumableSweeper(Sweeper):
    """Runs a grid of jobs that survives crashes, and reports on it."""

    def __init__(self, params: dict[str, str], trials: int, trial_seeds: list[int], **options: Any) -> None:
        self.params, self.options = params, options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra has made ready; launcher and jobs come when the sweep begins."""
        self.context, self.task, self.master = hydra_context, task_function, config  # Sweeper.config may be None

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep that the command line and `params` ask for."""
        from mnist_exp.sweep.run import Runner

        Runner(self.context, self.task, self.master, **self.options).run(self.params, arguments)
