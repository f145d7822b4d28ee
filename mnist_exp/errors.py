"""What a user can mend, said in one line."""

import atexit
import gc
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from mnist_exp import stops

FULL = os.environ.get("HYDRA_FULL_ERROR") == "1"  # the user asks for tracebacks


class ConfigError(ValueError):
    """A choice that can't work; its text names the key, the value, and what is allowed."""


# What a user can mend: their choices, their disk, a loss that ran away. Anything else is our fault: a traceback.
MENDABLE = (ConfigError, OSError, MemoryError, FloatingPointError, HydraException, OmegaConfBaseException)
COMPOSERS = ("hydra.", "omegaconf.")  # what these raise, of whatever type, comes from a command line or a config


def is_mendable(error: BaseException) -> bool:
    """Whether one line is enough: a user's error, whose traceback nobody asked for."""
    mendable = isinstance(error, MENDABLE) or _is_of_memory(error) or _raised_in(error).startswith(COMPOSERS)
    return mendable and not FULL


def explain(error: BaseException) -> str:
    """One line: the key, the value, and what is allowed, or the file and what is wrong with it."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        hint = "; pip install -e '.[parallel]' brings joblib" if option == "joblib" else ""
        return f"{group}={option}: no such option, choose from {', '.join(sorted(error.options))}{hint}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if _is_of_memory(error):
        said = str(error).strip().partition("\n")[0]
        return f"out of memory: {said}; smaller layers, a smaller data.batch_size or less padding take less".replace(
            ": ;", ";"
        )
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        return f"{cause.full_key}: no such key, choose from {', '.join(map(str, cause.parent_node))}"
    if isinstance(cause, ValidationError):
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    return str(error) if isinstance(error, OSError | ConfigError) else " ".join(str(error).split())


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn what a user can mend into one line on stderr and exit code 1, unless HYDRA_FULL_ERROR=1 asks for all.

    A signal that asks this process to stop ends it with the exit code that a shell shows for it.
    """
    full = os.environ.get("HYDRA_FULL_ERROR")
    atexit.register(gc.freeze)  # or Python, at its end, would look through all of torch's objects once more: a second
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises where it would print several lines
    try:
        with stops.stoppable():
            yield
    except (KeyboardInterrupt, Exception) as error:
        if stops.asked(error):
            sys.exit(stops.exit_code())
        if not is_mendable(error):
            raise
        sys.exit(f"error: {explain(error)}")
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        os.environ.update({"HYDRA_FULL_ERROR": full} if full else {})


class NoTraceback(logging.Filter):
    """Keeps records that carry a traceback off the console; conf/hydra/job_logging uses it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the console shows the record."""
        return record.exc_info is None


def _is_of_memory(error: BaseException) -> bool:
    """Whether there was too little of it; PyTorch says so in a RuntimeError, on a GPU and on a CPU in other words."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in str(error))


def _raised_in(error: BaseException) -> str:
    """The module that raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""
