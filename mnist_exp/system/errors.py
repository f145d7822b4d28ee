"""User errors, reported in one line."""

import atexit
import errno
import gc
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any, NamedTuple

from mnist_exp.system import quoting, signals, streams

SIGPIPE = 141  # the exit code that a shell shows for it
FULL = os.environ.get("HYDRA_FULL_ERROR") == "1"  # the user asks for tracebacks


class ConfigError(ValueError):
    """A choice that can't work. The message names the key, the value, and what is allowed."""


class FusedGroupError(RuntimeError):
    """An error of a fused group. It is unknown which of its runs caused it."""


# What a user can correct: the config, the disk, a loss that diverged. Anything else is a bug, and gets a traceback.
MENDABLE = (ConfigError, OSError, MemoryError, FloatingPointError)
COMPOSERS = ("hydra.", "omegaconf.")  # the errors that these define or raise come from a command line or a config


def is_mendable(error: BaseException) -> bool:
    """Return whether the user can correct the error, and did not ask for a traceback."""
    error = _behind_logging(error)
    mendable = isinstance(error, MENDABLE) or is_out_of_memory(error) or _is_of_composers(error)
    return mendable and not FULL


def explain(error: BaseException) -> str:
    """Return one line: the key, the value and what is allowed, or the file and what is wrong with it."""
    return quoting.shown(_explain(_behind_logging(error)), but="\n")  # the user may have typed any character


def _explain(error: BaseException) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.errno and not error.filename:
        return "the current folder has been deleted; change to one that is there"
    from hydra.errors import MissingConfigException, OverrideParseException  # slow: commands without Hydra do without
    from omegaconf.errors import OmegaConfBaseException, ValidationError

    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        hint = "; pip install hydra-joblib-launcher installs joblib" if option == "joblib" else ""
        return f"{group}={option}: no such option, {offer(option, sorted(error.options))}{hint}"
    if isinstance(error, MissingConfigException):
        return str(error).partition("\n")[0]  # the search path follows; --info searchpath shows it
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if several := re.match(
        r"(?:Ambiguous value for argument|Sweep parameters) '(.*?=.*?)'(?:\n| requires)", str(error)
    ):
        key, _, values = several[1].partition("=")
        one = quoting.for_shell(f"{key}={quoting.quoted(values)}")
        return f"{several[1]}: has several values; -m makes a sweep of them, and quotes make them one text: {one}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        is_copy = error.errno == errno.ENOSPC and error.filename2  # the disk of the copy is full
        return f"{error.filename2 if is_copy else error.filename}: {error.strerror}"
    if is_out_of_memory(error):
        message = str(error).strip().partition("\n")[0]
        advice = "smaller layers, a smaller data.batch_size or less padding need less"
        return "; ".join(["out of memory" + (f": {message}" if message else ""), advice])
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if missing := missing_key(cause):
        return f"{missing.key}: no such key, {missing.others}"
    if isinstance(cause, ValidationError):
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    return str(error) if isinstance(error, OSError) else " ".join(str(error).split())


def failure(error: BaseException) -> str | None:
    """Return how a run itself failed, which is a result: diverged, out of memory, error; None if something else did."""
    if isinstance(error, OSError | FusedGroupError):  # a full disk, say
        return None
    if isinstance(error, FloatingPointError):
        return "diverged"
    return "out of memory" if is_out_of_memory(error) else "error"


@contextmanager
def in_one_line() -> Iterator[None]:
    """Report an error that the user can correct in one line on stderr, with exit code 1.

    HYDRA_FULL_ERROR=1 shows the traceback. A stop signal ends the process with the exit code that a shell shows for it.
    """
    full = os.environ.get("HYDRA_FULL_ERROR")
    streams.harden()
    atexit.register(gc.freeze)  # or Python's shutdown would look through all of torch's objects: a second
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises then, instead of printing several lines
    try:
        with signals.raising():
            try:
                yield
            except SystemExit:  # after --help, say
                streams.flush()
                raise
            streams.flush()
    except (KeyboardInterrupt, Exception) as error:
        with suppress(OSError):
            streams.flush()  # or Python, at its end, would try once more to write what can't be written, and complain
        if signals.caused(error):
            streams.say("interrupted")
            sys.exit(signals.exit_code())
        if isinstance(error, BrokenPipeError):  # the reader of the output is gone
            sys.exit(SIGPIPE)
        if not is_mendable(error):
            raise
        sys.exit(f"error: {explain(error)}")
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        os.environ.update({"HYDRA_FULL_ERROR": full} if full else {})


@contextmanager
def ending_the_command() -> Iterator[None]:
    """End the command with the line of an error that the user can correct, or the traceback of another one.

    Hydra logs a warning about what one of its callbacks raises, and carries on.
    """
    try:
        yield
    except Exception as error:
        if not is_mendable(error):
            traceback.print_exc()
            raise SystemExit(1) from error
        raise SystemExit(f"error: {explain(error)}") from error


@contextmanager
def without_exit() -> Iterator[None]:
    """Raise the error that makes a command exit, in a process that goes on.

    Raises:
        ConfigError: Hydra or OmegaConf refuses the config; the message is the command's line.
        KeyboardInterrupt: A signal asked the process to stop.
    """
    try:
        yield
        return
    except BaseException as raised:
        error = raised.__cause__ or raised if isinstance(raised, SystemExit) else raised
    if signals.caused(error):
        raise KeyboardInterrupt from None
    if isinstance(error, ConfigError) or not _is_of_composers(error):
        raise error from error.__cause__  # without SystemExit as its context
    raise ConfigError(explain(error)) from None


class NoTraceback(logging.Filter):
    """Keeps records with a traceback off the console. conf/hydra/job_logging uses it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the console shows the record."""
        return record.exc_info is None


def _behind_logging(error: BaseException) -> BaseException:
    """Return the cause of an error in setting up logging, such as a log file that can't be opened; else the error."""
    return error.__cause__ if error.__cause__ and _raised_in(error) == "logging.config" else error


def offer(word: str, options: Sequence[str], elsewhere: Iterable[str] = ()) -> str:
    """Return a hint for a mistyped word: the option, or the key elsewhere, that it resembles, and all options."""
    if not options:
        return "there is none to choose from"
    same_name = [name for name in elsewhere if name.endswith(f".{word}")]
    meant = did_you_mean(word, options) or did_you_mean(word, same_name[:1])
    return f"{meant} Choose from {', '.join(options)}" if meant else f"choose from {', '.join(options)}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the known name whose last part is most similar to a mistyped one; "" if none is."""
    last = {name.rpartition(".")[2]: name for name in known}
    near = get_close_matches(word.rpartition(".")[2], last, n=1, cutoff=0.65)
    return f"did you mean {last[near[0]]}?" if near else ""


class MissingKey(NamedTuple):
    """A key in a command that its config lacks."""

    key: str
    others: str  # a sentence about the keys that exist


def missing_key(error: BaseException | None) -> MissingKey | None:
    """Return the missing key that an error, or its cause, is about; None if it is about something else."""
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    while error:
        if isinstance(error, ConfigAttributeError | ConfigKeyError) and error.parent_node is not None:
            return MissingKey(str(error.full_key), _other_keys(str(error.full_key), error.parent_node))
        error = error.__cause__
    return None


def _other_keys(key: str, parent: Any) -> str:
    """Return a sentence about the keys beside a missing one, and the key elsewhere in the config that may be meant."""
    from omegaconf import OmegaConf

    path = key.rpartition(".")[0]
    beside = [str(name) for name in parent if name not in ("_target_", "hydra")]
    root = OmegaConf.to_container(parent._get_root(), resolve=False)
    return offer(key, [f"{path}.{name}" if path else name for name in beside], _dotted(root))


def _dotted(values: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested mappings, without those of Hydra."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if name not in ("_target_", "hydra"):
            yield f"{path}{name}"
            yield from _dotted(value, f"{path}{name}.")


def _unreadable(override: str) -> str:
    """Return what is wrong with an override that Hydra can't parse, and how to type it."""
    key, equals, value = override.partition("=")
    shown = quoting.shown(override)
    if not equals:
        return f"{shown}: is not an override, because it has no =; type key=value"
    if value.startswith(("[", "{")):
        return f"{shown}: can't be read; a list is typed {key}=[1,2], and a mapping '{key}={{a: 1}}'"
    quoted = quoting.for_shell(quoting.override(key, value))
    return f"{shown}: can't be read; a value with such characters needs quotes: {quoted}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out. PyTorch raises a RuntimeError then, with different texts on GPU and CPU."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in str(error))


def _raised_in(error: BaseException) -> str:
    """Return the name of the module that raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""


def _is_of_composers(error: BaseException) -> bool:
    """Return whether Hydra or OmegaConf defines the error's type, or raised it."""
    modules = (_raised_in(error), *(kind.__module__ for kind in type(error).__mro__))
    return any(module.startswith(COMPOSERS) for module in modules)
