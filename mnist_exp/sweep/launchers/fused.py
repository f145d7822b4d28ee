"""hydra/launcher=fused: run the jobs of a sweep in groups, each trained as one."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from mnist_exp.sweep import gpus
from mnist_exp.sweep.jobs import Task, Work
from mnist_exp.sweep.launchers import fused_group, grouping
from mnist_exp.sweep.launchers.fused_group import RunConfig

log = logging.getLogger(__name__)


def launch(
    context: HydraContext, task: Any, master: DictConfig, overrides: Sequence[Sequence[str]], max_models: int | None
) -> list[JobReturn]:
    """Run the jobs, one group after the other.

    Args:
        context: Hydra's config loader and callbacks.
        task: The sweep's task (sweep.jobs.Task), which Hydra knows as a function of a config.
        master: The config of the sweep.
        overrides: The overrides of each job.
        max_models: The most models in a fused group; None for as many as fit into memory.

    Returns:
        What Hydra returns about each job, in the order of the overrides.
    """

    def config(index: int) -> DictConfig:
        return context.config_loader.load_sweep_config(master, list(overrides[index]))

    groups = grouping.group_jobs(map(config, range(len(overrides))))
    log.info(grouping.describe(groups))
    returns: dict[int, JobReturn] = {}
    for jobs, _ in groups:
        if len(jobs) == 1:
            [index] = jobs
            with _logging_restored(master):
                returns[index] = run_job_of(context, task, config(index))
            continue
        rounds = grouping.rounds(config(jobs[0]), jobs, max_models)
        if len(rounds) > 1:
            most = len(rounds[0][-1])
            log.info(f"  {len(jobs)} models train in {len(rounds)} rounds, up to {most} in a fused group")
        for fused_groups in rounds:
            returns |= _run_round(
                context, task, master, [{index: config(index) for index in group} for group in fused_groups]
            )
    return [returns[index] for index in range(len(overrides))]


def _run_round(
    context: HydraContext, task: Task, master: DictConfig, fused_groups: Sequence[dict[int, DictConfig]]
) -> dict[int, JobReturn]:
    """Run fused groups at the same time, each in a process of its own.

    Args:
        context: Hydra's config loader and callbacks.
        task: Runs the fused groups.
        master: The config of the sweep.
        fused_groups: The configs of the jobs of each group, by index.
    """
    returns: dict[int, JobReturn] = {}
    works: list[Work] = []
    with _logging_restored(master):
        for group in fused_groups:
            runs: list[RunConfig] = []
            for index, cfg in group.items():
                returns[index] = run_job_of(context, run_config, cfg)
                runs.append(returns[index].return_value)
                returns[index].return_value = None
            train = gpus.on_its_own(runs[0].cfg, partial(fused_group.train, task.main, runs))
            works.append(Work([run.hydra for run in runs], train))
    task.run(runs[0].cfg, *works)
    return returns


def run_config(cfg: DictConfig) -> RunConfig:
    """Return the config of the job that Hydra has prepared."""
    return RunConfig(cfg, HydraConfig.get())


@contextmanager
def _logging_restored(master: DictConfig) -> Iterator[None]:
    """Restore the logging of the sweep after the block, in which Hydra configures the logging of jobs."""
    try:
        yield
    finally:
        configure_log(master.hydra.hydra_logging, master.hydra.verbose)


def run_job_of(context: HydraContext, task: Any, config: DictConfig) -> JobReturn:
    """Make Hydra create the folder of a job and open its log, and call `task` with its config.

    Raises:
        OSError: The folder or the log can't be written.
    """
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = int(config.hydra.sweep.subdir)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
