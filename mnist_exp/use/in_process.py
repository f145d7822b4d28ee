"""Train a run in a process that belongs to somebody else: a script or a notebook, which goes on afterwards."""

import logging
import os
import runpy
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from mnist_exp import build, command_line
from mnist_exp.store import run_folder
from mnist_exp.system import errors, program, signals, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.training.resume import Completed
from mnist_exp.use import trained_run
from mnist_exp.use.trained_run import TrainedRun

_LOG = logging.getLogger("mnist_exp")
FORMAT = "hydra.job_logging.formatters.dated.format"  # of train.log
_one_at_a_time = threading.Lock()


def train(*overrides: str) -> TrainedRun:
    """Train one run in this process, as `python train.py OVERRIDES` does, and load it.

    The run gets a folder of its own under ./outputs, and is the same to the bit as that of the command. Its log goes to
    standard output and to train.log. Hydra, logging, signals, torch's settings and random numbers, and the working
    folder are afterwards as they were.

    Args:
        *overrides: What the command line would say, such as "optimizer=sgd" and "epochs=3". "resume=FOLDER" resumes a
            run; one that is completed is loaded.

    Raises:
        ConfigError: The config can't work; the message is the command's line.
        FloatingPointError: The loss is no longer finite.
        OSError: A file can't be read or written.
        KeyboardInterrupt: Ctrl-C interrupted the run, which can be resumed.
        RuntimeError: Another thread trains a run.
    """
    arguments = _arranged(overrides)
    if not _one_at_a_time.acquire(blocking=False):
        raise RuntimeError("another run trains in this process, and both would draw from the same random numbers")
    try:
        with build.torch_settings_kept():
            return trained_run.load(_train(arguments))
    finally:
        _one_at_a_time.release()


def _arranged(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra reads them. Raises ConfigError for flags, and for a sweep."""
    for word in overrides:
        if not isinstance(word, str):
            raise ConfigError(f'{word}: is not a string; type train("optimizer=sgd", "epochs=3")')
        if word.startswith("-") or word == "hydra.mode=MULTIRUN":
            raise ConfigError(
                f"{word}: mnist_exp.train takes overrides alone, such as optimizer=sgd; the command mnist-exp takes "
                "flags, and runs sweeps"
            )
    return [*command_line.arrange(overrides), "hydra.mode=RUN"]


def _train(overrides: list[str]) -> Path:
    """Train a run as train.py does, or resume one, and return its folder."""
    with (
        signals.contained(),
        errors.without_exit(),
        _command_named("mnist-exp train"),
        _logging_alone(),
        _writing_to(_console()),
        command_line.until_the_end,
        _hydra() as hydra,
    ):
        try:
            job = hydra.run("config", _main, overrides, with_log_configuration=False)
        except Completed as end:
            return end.folder
        return Path(job.hydra_cfg.hydra.runtime.output_dir)  # type: ignore[union-attr]


def _main(cfg: DictConfig) -> Any:
    """Do what the main function of train.py does, and write the log of the run."""
    main = runpy.run_path(str(program.TRAIN))["main"]
    with _writing_to(_log_file()):
        return main(cfg)


@contextmanager
def _hydra() -> Iterator[Hydra]:
    """Initialize Hydra for the block, and put that of the caller back."""
    kinds = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
    callers = {kind: Singleton._instances.pop(kind, None) for kind in kinds}
    try:
        with initialize_config_dir(str(program.CONF), job_name=program.TRAIN.stem, version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra
            yield hydra
    finally:
        for kind in kinds:
            Singleton._instances.pop(kind, None)
        Singleton._instances |= {kind: instance for kind, instance in callers.items() if instance}


def _log_file() -> logging.Handler:
    """Return what writes the train.log of the run, in the format that Hydra's job logging has for it."""
    path, config = Path(HydraConfig.get().runtime.output_dir, run_folder.LOG), HydraConfig.instance().cfg
    file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter(OmegaConf.select(cast(DictConfig, config), FORMAT)))
    return file


def _console() -> logging.Handler:
    """Return what writes on standard output, which in a notebook is that of the cell."""
    console = streams.Console(sys.stdout)
    console.addFilter(errors.NoTraceback())
    return console


@contextmanager
def _writing_to(handler: logging.Handler) -> Iterator[None]:
    """Give what this program logs in the block to the handler too."""
    _LOG.addHandler(handler)
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
        handler.close()


@contextmanager
def _logging_alone() -> Iterator[None]:
    """Log progress in the block, and keep it from the root logger, which would show each line once more."""
    level, propagate = _LOG.level, _LOG.propagate
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.setLevel(level)
        _LOG.propagate = propagate


@contextmanager
def _command_named(command: str) -> Iterator[None]:
    """Begin the commands that the block suggests with this one, unless a command has started this process."""
    before: Any = os.environ.get(program.COMMAND)
    program.starts_with(before or command)
    try:
        yield
    finally:
        os.environ.pop(program.COMMAND)
        os.environ.update({program.COMMAND: before} if before else {})
