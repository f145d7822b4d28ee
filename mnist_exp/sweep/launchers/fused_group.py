"""Runs that are trained as one fused group: each has its own folder and log, and they share the work of an epoch."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hydra.conf import HydraConf
from hydra.core.utils import configure_log
from omegaconf import DictConfig

from mnist_exp.fused import memory
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.store import run_folder
from mnist_exp.store.metrics import Row
from mnist_exp.system import errors, signals
from mnist_exp.training.loop import Training, train_and_validate
from mnist_exp.training.run import TrainingRun


class JobConfig(NamedTuple):
    """The config of a job, and Hydra's section of it."""

    cfg: DictConfig
    hydra: HydraConf


def train(main: Callable[[DictConfig], float], jobs: Sequence[JobConfig]) -> None:
    """Do all the runs, as `main` does one.

    Args:
        main: The function that does one run. Its module, train.py, has `prepare` and `finish` beside it.
        jobs: One config per run.

    Raises:
        KeyboardInterrupt: A signal asked the process to stop; every run is recorded as interrupted.
    """
    steps = sys.modules[main.__module__]
    memory.hold()
    formatter = _log_formatter(jobs[0].hydra)
    runs = [TrainingRun(cfg, hydra, _run_log(hydra, formatter)) for cfg, hydra in jobs]

    def finish_if_over(run: TrainingRun) -> None:
        if run.is_over:
            steps.finish(run)
            run.close()

    try:
        for run in runs:
            with _failure_recorded(run):
                run.check()
                steps.prepare(run)
                finish_if_over(run)
        _train_epochs(runs, finish_if_over)
    except KeyboardInterrupt as error:
        for run in runs:
            if run.is_open:
                run.fail(error)
        raise


def _train_epochs(runs: Sequence[TrainingRun], finish_if_over: Callable[[TrainingRun], None]) -> None:
    """Train the open runs epoch by epoch. Runs that were interrupted earlier than others catch up first."""
    group: list[TrainingRun] = []
    train_epoch: Callable[[int], Sequence[Row | Exception]] = lambda epoch: []  # noqa: E731
    while open_runs := [run for run in runs if run.is_open]:
        epoch = min(run.next_epoch for run in open_runs)
        behind = [run for run in open_runs if run.next_epoch == epoch]
        try:
            if behind != group:
                group, train_epoch = behind, _trainer([run.training for run in behind])
            results = train_epoch(epoch)
        except Exception as error:  # too little memory, for example
            if signals.caused(error):
                raise signals.Stopped from error
            results = [error if len(behind) == 1 else _shared_error(error)] * len(behind)
        with signals.deferred():  # all runs keep their epoch, or none
            for run, result in zip(behind, results, strict=True):
                with _failure_recorded(run):
                    if isinstance(result, Exception):
                        raise result
                    run.record(result)
                    finish_if_over(run)


def _trainer(trainings: Sequence[Training]) -> Callable[[int], Sequence[Row | Exception]]:
    """Return the function that trains an epoch of all of them."""
    if len(trainings) == 1:
        return lambda epoch: [train_and_validate(trainings[0], epoch)]
    trainer = FusedTrainer(trainings)
    memory.trim()
    return trainer.train_epoch


def _shared_error(error: Exception) -> Exception:
    """Return the error that each run of a group records if it is unknown which of them caused it."""
    shared = errors.FusedGroupError(errors.explain(error) or type(error).__name__)
    shared.__cause__ = error
    return shared


@contextmanager
def _failure_recorded(run: TrainingRun) -> Iterator[None]:
    """Record an error as the run's failure, so that the other runs of the group continue."""
    try:
        yield
    except Exception as error:
        if signals.caused(error):
            raise signals.Stopped from error
        run.fail(error)


class _RunLog(logging.FileHandler):
    """Closes the file after each record: a group may have more runs than a process can have open files."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.close()


def _run_log(hydra: HydraConf, formatter: logging.Formatter | None) -> logging.Logger:
    """Return a logger that writes to the run's train.log alone."""
    path = Path(hydra.runtime.output_dir) / run_folder.LOG
    handler = _RunLog(path, "a", "utf-8", delay=True, errors="backslashreplace")
    handler.setFormatter(formatter)
    log = logging.Logger("mnist_exp.run", logging.INFO)
    log.addHandler(handler)
    return log


def _log_formatter(hydra: Any) -> logging.Formatter | None:
    """Return the format of a job's train.log, and remove the root logger's handlers: each run has its own log."""
    configure_log(hydra.job_logging, hydra.verbose)
    logger, formatter = logging.getLogger(), None
    for handler in list(logger.handlers):
        formatter = handler.formatter if isinstance(handler, logging.FileHandler) else formatter
        logger.removeHandler(handler)
        handler.close()
    return formatter
