"""Has a launcher run jobs of a sweep, whatever happens to its processes."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mnist_exp.store import keeping, run_folder
from mnist_exp.sweep import jobs, plan
from mnist_exp.sweep.compose import PackedConfigLoader, PlannedJob, StopLaunching
from mnist_exp.sweep.sweep import Sweep
from mnist_exp.system import errors, resources, signals

log = logging.getLogger(__name__)

GRACE_PERIOD = 10  # seconds for running jobs to close their folders after a Ctrl-C


def launch(
    context: HydraContext,
    main: TaskFunction,
    master: DictConfig,
    left: Sequence[PlannedJob],
    sweep: Sweep,
    workers: int,
    stop_on_failure: bool,
) -> None:
    """Have the launcher run jobs, until all have ended or the sweep is asked to stop.

    Args:
        context: Hydra's config loader and callbacks.
        main: Does one run.
        master: The config of the sweep, which names the launcher.
        left: The jobs, which the ledger knows.
        sweep: The sweep.
        workers: The number of jobs that run at once.
        stop_on_failure: Whether a failed job stops the sweep.
    """
    _warn_of_threads(left, workers)
    planned, keep = [each.job for each in left], keeping.of(master.hydra.launcher)
    task = jobs.Task(main, sweep.folder, planned, workers, stop_on_failure, keep)
    loader = cast(ConfigLoader, PackedConfigLoader(sweep.stop_file))
    launcher = Plugins.instance().instantiate_launcher(HydraContext(loader, context.callbacks), task, master)
    attempts: Counter[int] = Counter()
    while left and (error := _launch_once(launcher, left, sweep)):
        sweep.record_dead_jobs()
        known = sweep.ledger.read()[1]
        left = [each for each in left if known[each.job.number].status in ("pending", "interrupted")]
        given_up = _without_folder(left, sweep)
        if not given_up:  # a killed worker took others with it: try again, once
            interrupted = [each for each in left if known[each.job.number].status == "interrupted"]
            suspects = [each.job.number for each in interrupted or left[:1]]
            attempts.update(suspects)
            given_up = {number: error for number in suspects if attempts[number] > 1}
        sweep.ledger.append(
            *({"job": number, "status": "failed", "error": reason} for number, reason in given_up.items())
        )
        left = [
            plan.prepared(each, sweep.folder, known.get(each.job.number))
            for each in left
            if each.job.number not in given_up
        ]


def _warn_of_threads(left: Sequence[PlannedJob], workers: int) -> None:
    """Warn if jobs get fewer threads than they ask for, because several run at once."""
    wanted, cores = max(int(each.job.choices["threads"]) for each in left), resources.cores()
    share = max(1, cores // workers)
    if workers > 1 and wanted > share:
        log.warning(f"threads={wanted}: {workers} jobs at once share {cores} cores, so each gets {share}")


def _launch_once(launcher: Launcher, left: Sequence[PlannedJob], sweep: Sweep) -> str | None:
    """Launch the jobs. Return what broke the launcher, in one line; None if it finished."""
    try:
        returns = launcher.launch([[each.config] for each in left], initial_job_idx=left[0].job.number)
    except Exception as error:
        return errors.explain(error) or type(error).__name__
    for each, result in zip(left, returns, strict=True):
        if result.status == JobStatus.FAILED:  # outside the job, which records its own failures
            error_line = errors.explain(result._return_value) or type(result._return_value).__name__
            sweep.ledger.append({"job": each.job.number, "status": "failed", "error": error_line})
    return None


def _without_folder(left: Sequence[PlannedJob], sweep: Sweep) -> dict[int, str]:
    """Return the jobs whose folder can't be created or whose log can't be written, and why."""
    reasons: dict[int, str] = {}
    for number in (each.job.number for each in left):
        log_file = sweep.job_folder(number) / run_folder.LOG
        try:
            log_file.parent.mkdir(exist_ok=True)
            log_file.open("ab").close()
        except OSError as error:
            reasons[number] = errors.explain(error)
    return reasons


def stop_handler(sweep: Sweep) -> Any:
    """Return the signal handler of a sweep: it stops the sweep, waits for the running jobs, and raises StopLaunching.

    (While this process waits for a job, the handler of jobs.Task is in place.)
    """

    def stop(number: int, _: Any) -> None:
        signals.ignore()
        sweep.stop(128 + number)
        deadline = time.monotonic() + GRACE_PERIOD
        signalled: set[int] = set()
        while (running := sweep.running_pids()) and time.monotonic() < deadline:
            for pid in running - signalled:  # a terminal has sent it to them already; a second one does no harm
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            signalled |= running
            time.sleep(0.05)
        raise StopLaunching

    return stop
