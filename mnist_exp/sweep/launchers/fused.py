"""hydra/launcher=fused: the jobs of a sweep in groups, each trained as one."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from mnist_exp.sweep import jobs
from mnist_exp.sweep.launchers import fused_group, grouping

log = logging.getLogger(__name__)


def launch(
    context: HydraContext, task: Any, master: DictConfig, overrides: Sequence[Sequence[str]], max_models: int | None
) -> list[JobReturn]:
    """Run the jobs by `task` (sweep.jobs.Task), a group at a time; what became of them, in their order."""

    def config(place: int) -> DictConfig:
        return context.config_loader.load_sweep_config(master, list(overrides[place]))

    found = grouping.groups(config(place) for place in range(len(overrides)))
    log.info(grouping.describe(found))
    returns = dict[int, JobReturn]()
    for places, _ in found:
        if len(places) == 1:
            returns[places[0]] = _prepare(context, task, config(places[0]))
            configure_log(master.hydra.hydra_logging, master.hydra.verbose)
            continue
        rounds = grouping.crews(config(places[0]), places, max_models)
        if len(rounds) > 1:
            log.info(f"  {len(places)} models in {len(rounds)} rounds, of crews of up to {len(rounds[0][-1])}")
        for crews in rounds:
            returns |= _run_side_by_side(
                context, task, master, [{place: config(place) for place in crew} for crew in crews]
            )
    return [returns[place] for place in range(len(overrides))]


def _run_side_by_side(
    context: HydraContext, task: Any, master: DictConfig, crews: Sequence[dict[int, DictConfig]]
) -> dict[int, JobReturn]:
    """Run crews of jobs side by side, the jobs of each as one."""
    returns, ready = dict[int, JobReturn](), list[list[fused_group.JobConfig]]()
    try:
        for crew in crews:
            told, begun = _begin(context, crew)
            returns |= told
            ready += [begun] if begun else []
    finally:  # or the last job's log had what is told of all
        configure_log(master.hydra.hydra_logging, master.hydra.verbose)
    if ready:
        works = (jobs.Work([job.hydra for job in crew], partial(fused_group.train, task.main, crew)) for crew in ready)
        task.run(ready[0][0].cfg, *works)
    return returns


def _begin(
    context: HydraContext, crew: dict[int, DictConfig]
) -> tuple[dict[int, JobReturn], list[fused_group.JobConfig]]:
    """Have Hydra make the folders of a crew's jobs; what it says of each, and the configs of those that can run."""
    begun = list[fused_group.JobConfig]()

    def begin(cfg: DictConfig) -> None:
        begun.append(fused_group.JobConfig(cfg, HydraConfig.get()))

    return {place: _prepare(context, begin, config) for place, config in crew.items()}, begun


def _prepare(context: HydraContext, task: Any, config: DictConfig) -> JobReturn:
    """Have Hydra make the job's folder, and call `task`."""
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = int(config.hydra.sweep.subdir)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
