"""Runs side by side in one process: each goes its own way, in its own folder, but for the epochs, which are trained as
one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from omegaconf import DictConfig

from mnist_exp import errors, record, stops
from mnist_exp.alone import Steps
from mnist_exp.fused import memory
from mnist_exp.fused.together import Together
from mnist_exp.loop import Row, Training, train_and_validate


class Config(NamedTuple):
    """What a run is given: its own config, and Hydra's."""

    own: DictConfig
    hydra: Any  # a DictConfig with the one key `hydra`


class Member:
    """One of the runs. It wants an epoch (`wants` has its parts and the number), or it is over (None)."""

    def __init__(self, main: Callable[[DictConfig], Steps], config: Config, form: logging.Formatter | None) -> None:
        self.steps, self.hydra = main(config.own), config.hydra
        self.wants: tuple[Training, int] | None = None
        self.log = logging.FileHandler(
            Path(config.hydra.hydra.runtime.output_dir) / record.LOG,
            "a",
            "utf-8",
            delay=True,
            errors="backslashreplace",
        )
        self.log.setFormatter(form)

    def go_on(self, step: Callable[[Steps], tuple[Training, int]]) -> None:
        """Let the run go on until it wants an epoch or is over. Raises SystemExit when it was asked to stop."""
        self.wants = None
        # StopIteration is its end; any other exception it has told its log and its summary.
        with self._at_the_fore(), suppress(Exception):
            self.wants = step(self.steps)

    def take(self, result: Row | BaseException) -> None:
        """Let the run go on with the row of the epoch that it wanted, or with what went wrong in it."""
        if isinstance(result, BaseException):
            self.go_on(lambda steps: steps.throw(result))
        else:
            self.go_on(lambda steps: steps.send(result))

    @contextmanager
    def _at_the_fore(self) -> Iterator[None]:
        """Hydra's global config, and the log, are this run's."""
        HydraConfig.instance().cfg = self.hydra
        logging.getLogger().addHandler(self.log)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(self.log)
            self.log.close()  # it is opened again when there is something to say


def run(main: Callable[[DictConfig], Steps], configs: Sequence[Config]) -> None:
    """Do all the runs. Raises SystemExit when they were asked to stop, and have."""
    memory.hold()
    form = _form_of_logs(configs[0].hydra.hydra)
    members = [Member(main, config, form) for config in configs]
    try:
        for member in members:
            member.go_on(next)
        _train(members)
    except (KeyboardInterrupt, SystemExit):
        for member in members:
            if member.wants:
                with suppress(SystemExit):
                    member.take(stops.Stopped())
        raise


def _train(members: Sequence[Member]) -> None:
    """Epoch by epoch, until no run wants one. Those that are behind, for they were interrupted so, catch up first."""
    crew, train = list[Member](), None
    while epochs := [member.wants[1] for member in members if member.wants]:
        at_work, crew = crew, [member for member in members if member.wants and member.wants[1] == min(epochs)]
        try:
            if crew != at_work or train is None:
                train = _trainer([member.wants[0] for member in crew if member.wants])
            results = train(min(epochs))
        except Exception as error:  # too little memory, say
            results = [error] if len(crew) == 1 else [_of_a_crew(error) for _ in crew]
        with stops.uninterrupted():  # all of them keep their epoch, or none
            for member, result in zip(crew, results, strict=True):
                member.take(result)


def _of_a_crew(error: Exception) -> Exception:
    """What each run of a crew is told of an error that no single one of them is known to have made."""
    shared = errors.CrewError(errors.explain(error) or type(error).__name__)
    shared.__cause__ = error
    return shared


def _trainer(trainings: Sequence[Training]) -> Callable[[int], Sequence[Row | Exception]]:
    """What trains them for the epoch of a number."""
    if len(trainings) == 1:
        return lambda epoch: [train_and_validate(trainings[0], epoch)]
    together = Together(trainings)
    memory.trim()
    return together.epoch


def _form_of_logs(hydra: Any) -> logging.Formatter | None:
    """How a job's log file is written. No handler is left: what a run says goes to its own log, and nowhere else."""
    configure_log(hydra.job_logging, hydra.verbose)
    logger, form = logging.getLogger(), None
    for handler in list(logger.handlers):
        form = handler.formatter if isinstance(handler, logging.FileHandler) else form
        logger.removeHandler(handler)
        handler.close()
    return form
