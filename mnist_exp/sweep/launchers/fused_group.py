"""Train several runs as one fused group. Each run has its own folder and log; they share the work of an epoch."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from hydra.conf import HydraConf
from hydra.core.utils import configure_log
from omegaconf import DictConfig

from mnist_exp.fused import memory
from mnist_exp.fused.trainer import FusedTrainer
from mnist_exp.store import run_folder
from mnist_exp.store.metrics import Row
from mnist_exp.system import errors, signals
from mnist_exp.system.shared_time import Clock, SharedTime
from mnist_exp.training.loop import Training, train_and_validate
from mnist_exp.training.run import TrainingRun

TrainEpoch = Callable[[int], Sequence[Row | Exception]]  # trains the epoch of a number; one result per training


class RunConfig(NamedTuple):
    """The config of a run, and Hydra's section of it."""

    cfg: DictConfig
    hydra: HydraConf


def train(main: Callable[[DictConfig], float], configs: Sequence[RunConfig]) -> None:
    """Do several runs, each as `main` does one, but train their epochs together.

    The time of an epoch counts for each run in equal parts, and what is done for a run alone counts for it alone.
    A run that fails records its error in its folder, and the others continue.

    Args:
        main: Does one run. Its module, train.py, has the functions `prepare` and `finish` too.
        configs: One config per run.

    Raises:
        KeyboardInterrupt: A signal asked the process to stop. All unfinished runs are recorded as interrupted.
    """
    steps = sys.modules[main.__module__]
    memory.keep_freed_memory()
    time = SharedTime()
    clocks = [Clock(time) for _ in configs]
    runs = [
        TrainingRun(*each, log, clock) for each, log, clock in zip(configs, _run_logs(configs), clocks, strict=True)
    ]
    clock_of = dict(zip(runs, clocks, strict=True))
    trainer = _EpochTrainer()
    try:
        for run in runs:
            time.go(clock_of[run])
            with _failure_recorded(run):
                run.check()
                steps.prepare(run)
        while runs := [run for run in runs if run.is_open]:
            if not any(run.is_over for run in runs):
                epoch = min(run.next_epoch for run in runs)  # runs that were interrupted earlier than others catch up
                together = [run for run in runs if run.next_epoch == epoch]
                time.go(*(clock_of[run] for run in together))
                trainer.train_epoch(together, epoch)
            for run in runs:
                if run.is_open and run.is_over:
                    time.go(clock_of[run])
                    with _failure_recorded(run):
                        steps.finish(run)
                        run.close()
    except KeyboardInterrupt as error:
        for run in runs:
            if run.is_open:
                run.fail(error)
        raise


class _EpochTrainer:
    """Trains epochs of runs. The models stay stacked while the runs are the same."""

    def __init__(self) -> None:
        self._runs: list[TrainingRun] = []
        self._train_epoch: TrainEpoch | None = None

    def train_epoch(self, runs: list[TrainingRun], epoch: int) -> None:
        """Train and record an epoch, which is the next one of all these runs."""
        results = self._results(runs, epoch)
        with signals.deferred():  # all runs record the epoch, or none
            for run, result in zip(runs, results, strict=True):
                with _failure_recorded(run):
                    if isinstance(result, Exception):
                        run.fail(result)
                    else:
                        run.record(result)

    def _results(self, runs: list[TrainingRun], epoch: int) -> Sequence[Row | Exception]:
        """Return the result of each run: its row, or its error. An error of the group is an error of each run."""
        try:
            if runs != self._runs or self._train_epoch is None:
                self._train_epoch = None  # frees the weights of the previous stack
                self._runs, self._train_epoch = runs, _stack([run.training for run in runs])
            return self._train_epoch(epoch)
        except Exception as error:  # too little memory, for example
            if signals.caused(error):
                raise signals.Stopped from error
            if len(runs) == 1:
                return [error]
            shared = errors.FusedGroupError(errors.explain(error) or type(error).__name__)
            shared.__cause__ = error
            return [shared] * len(runs)


def _stack(trainings: Sequence[Training]) -> TrainEpoch:
    """Stack the models of the trainings, and return the function that trains them."""
    if len(trainings) == 1:
        return lambda epoch: [train_and_validate(trainings[0], epoch)]
    trainer = FusedTrainer(trainings)
    memory.trim()
    return trainer.train_epoch


@contextmanager
def _failure_recorded(run: TrainingRun) -> Iterator[None]:
    """Record an error in the block as the failure of the run."""
    try:
        yield
    except Exception as error:
        if signals.caused(error):
            raise signals.Stopped from error
        run.fail(error)


class _RunLogHandler(logging.FileHandler):
    """Closes the file after each record: a large group would have too many open files."""

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record to the file."""
        super().emit(record)
        self.close()


def _run_logs(configs: Sequence[RunConfig]) -> list[logging.Logger]:
    """Return a logger per run that writes to the run's train.log, in the format of Hydra's job logging.

    Messages of other loggers go to the log of the first run; nothing goes to the console.
    """
    root, hydra = logging.getLogger(), configs[0].hydra
    configure_log(cast(DictConfig, hydra.job_logging), hydra.verbose)
    formatter: logging.Formatter | None = None
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler):
            formatter = handler.formatter
        root.removeHandler(handler)
        handler.close()
    logs: list[logging.Logger] = []
    for config in configs:
        path = Path(config.hydra.runtime.output_dir) / run_folder.LOG
        handler = _RunLogHandler(path, "a", "utf-8", delay=True, errors="backslashreplace")
        handler.setFormatter(formatter)
        log = logging.Logger("mnist_exp.run", root.level)
        log.addHandler(handler)
        logs.append(log)
    root.addHandler(logs[0].handlers[0])
    return logs
