"""hydra/sweeper=resumable. Every Hydra program imports this file when it starts, so it imports nothing slow.

It has no `from __future__ import annotations`: Hydra runs the file before it is in sys.modules, and dataclasses then
can't resolve annotations that are strings.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ResumableConf:
    """The keys under `hydra.sweeper`."""

    _target_: str = "hydra_plugins.mnist_exp.sweeper.ResumableSweeper"
    params: dict[str, str] = field(default_factory=dict)  # the values of each swept key, in the file of an experiment
    trials: int = 0  # settings that each arm tries first, of its intervals and choices, or learning rates without any
    trial_seeds: list[int] = field(default_factory=lambda: [1000, 1001, 1002])  # of each trial; the sweep uses others
    search: Any = "tpe"  # what suggests the trials: tpe, random, qmc, cmaes, gp, grid; or {sampler: tpe, seed: 0, ...}
    prune: Any = "none"  # ends trials that are behind: none, median, hyperband, wilcoxon; or {pruner: median, ...}
    finalists: int = 2  # the best settings of each arm, which the sweep compares with the arm's default run
    until: str | None = None  # decided: add seeds until the leader is told apart from the others; null: as typed
    max_seeds: int = 40  # of each arm, with until=decided
    smallest: float = 0.1  # with until=decided, the smallest difference that matters, in percentage points
    dry_run: bool = False  # list the jobs and run none
    stop_on_failure: bool = False  # false: the other jobs still run
    retry_failed: bool = False  # when a sweep resumes, run its failed jobs again
    allow_changed: bool = False  # resume although configs, versions or data differ
    max_jobs: int = 10_000  # more are taken for a typing mistake
    work: bool = False  # with resume=FOLDER, be a worker of that sweep; mnist-exp work sets these four keys
    close: bool = False  # with resume=FOLDER, report, and go on only if all jobs so far have ended
    n_jobs: int | None = None  # of a worker: jobs side by side; null: as the launcher says
    minutes: float | None = None  # of a worker: stop after this long; null: when all jobs have ended


ConfigStore.instance().store(group="hydra/sweeper", name="resumable", node=ResumableConf, provider="mnist_exp")


class ResumableSweeper(Sweeper):
    """Runs a grid of jobs that can be resumed, and reports on it."""

    def __init__(self, params: dict[str, str], trials: int, trial_seeds: list[int], **options: Any) -> None:
        self.params, self.options = params, options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes. Launcher and jobs are made when the sweep starts."""
        self.context, self.task, self.master = hydra_context, task_function, config  # Sweeper.config may be None

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep that the command line and `params` describe."""
        from mnist_exp.sweep.run import Runner

        Runner(self.context, self.task, self.master, **self.options).run(self.params, arguments)
