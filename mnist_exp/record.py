"""The run folder: metrics.csv line by line, summary.json at the end, however the run ends."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import logging
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mnist_exp import errors, files, spelling, stops
from mnist_exp.errors import ConfigError

if TYPE_CHECKING:  # their module imports torch, and a wrong config should be told before that
    from mnist_exp.loop import Evaluation, Row

log = logging.getLogger(__name__)

METRICS, LOG, LEDGER = "metrics.csv", "train.log", "ledger.jsonl"  # the last makes a folder a sweep
SWEEP = "a sweep"  # which a folder may hold
PICTURES = ("samples", "augmented", "curves", "correct", "incorrect", "confusion_matrix")
WRITTEN = (  # by a run in its folder, beside its log
    *(".hydra/*.yaml", METRICS, "summary.json", "checkpoints/last.pt", "checkpoints/best.pt"),
    *(f"plots/{name}.png" for name in PICTURES),
    f"**/{files.TEMPORARY}",
)
TUNING, RATE = "tuning", "optimizer.lr"  # in a sweep's folder that of its trials, a sweep of its own; what they choose
COLUMNS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
SUMMARY = (
    "status", "error", "config_id", "seed", "parameters", "epochs", "best_epoch", "best_val_loss", "best_val_accuracy",
    "test_loss", "test_accuracy", "test_errors", "seconds", "images_per_second", "device", "threads", "versions", "git",
    "data", "files", "resumed",
)  # fmt: skip
ADDED = ("stopped", "tags", "failure")  # keys that a summary of an older version lacks
FIGURES: dict[str, Callable[[Row], float]] = {  # the lower, the better
    "val_loss": lambda row: row.val_loss,
    "val_accuracy": lambda row: -row.val_accuracy,
}
BEST_FIRST: dict[str, Callable[[Row], Any]] = {
    "val_loss": lambda row: row.val_loss,
    "val_accuracy": lambda row: (-row.val_accuracy, row.val_loss),
}
SEALED = (METRICS, "checkpoints/best.pt", "checkpoints/last.pt")  # the files that a completed run's summary vouches for
SAME_BITS = ("device", "threads", "versions")  # equal choices give equal bits where these are equal too
_CODE = Path(__file__).parent
PACKAGES = ("mnist_exp", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "scikit-learn")


class Run:
    """One run folder: what a run says of itself, epoch by epoch and at its end.

    Until it `may_write`, it leaves everything there as it is: what is refused to another run, or on resume, changes
    nothing.
    """

    def __init__(self, folder: Path, **facts: Any) -> None:
        self.folder, self.may_write, self.start = folder, False, time.perf_counter()
        self.rows: list[Row] = []
        self.summary: dict[str, Any] = dict.fromkeys((*SUMMARY, *ADDED)) | {"resumed": []} | facts

    @property
    def best(self) -> Row:
        """The epoch that validation chose, the first of equals."""
        return self._best(self.rows)

    @property
    def done(self) -> int:
        """How many epochs are behind it."""
        return len(self.rows)

    @property
    def is_over(self) -> bool:
        """Whether no epoch is to come."""
        return self.done >= self.identity["epochs"] or self.stopped is not None

    @property
    def stopped(self) -> str | None:
        """What ends the run before its last epoch: "patience", when best_by's figure has not improved for so long."""
        figures = [FIGURES[self.identity["best_by"]](row) for row in self.rows]
        waited = self.done - 1 - figures.index(min(figures)) if figures else 0
        is_early = self.done < self.identity["epochs"]
        return "patience" if is_early and waited >= self.identity.get("patience", math.inf) else None

    def note(self, **facts: Any) -> None:
        """Put facts into the summary."""
        self.summary |= facts

    def state(self, *new: Row) -> dict[str, Any]:
        """What a later session must know of the run, after its epochs so far and the `new` ones."""
        rows = [*self.rows, *new]
        return {
            "identity": self.identity,
            "epoch": len(rows),
            "best_epoch": self._best(rows).epoch if rows else None,
            "rows": [list(row) for row in rows],
            "seconds": time.perf_counter() - self.start,
        } | {fact: self.summary[fact] for fact in ("config_id", "data", "resumed", *SAME_BITS)}

    def go_on(self, state: dict[str, Any]) -> None:
        """Take up a run where another session left it. Raises ConfigError when it has learned from other data."""
        from mnist_exp.loop import Row

        require_same_data(state["data"], self.summary["data"]["sha256"])
        changed = {fact: [state[fact], self.summary[fact]] for fact in SAME_BITS if state[fact] != self.summary[fact]}
        self.rows, self.start = [Row(*row) for row in state["rows"]], self.start - state["seconds"]
        self.note(resumed=[*state["resumed"], {"after_epoch": self.done, "changed": changed}])
        log.info(f"resumed after epoch {self.done}")
        for fact, (before, now) in changed.items():
            log.warning(f"{fact} was {before} and is {now}: from here on the same bits can't be promised")

    def begin(self, identity: dict[str, Any], images: int) -> None:
        """Make the folder ready for the epochs that `identity` (config.identity) asks for, over so many images."""
        self.identity, self.images, self.may_write = identity, images, True
        (self.folder / "summary.json").unlink(missing_ok=True)  # of a session before this one
        for left in self.folder.rglob(files.TEMPORARY):  # by one that was killed as it wrote
            left.unlink()
        files.write(self.folder / METRICS, "".join(map(_line, [COLUMNS, *self.rows])).encode())

    def epoch(self, row: Row) -> None:
        """Record an epoch."""
        with open(self.folder / METRICS, "r+", newline="") as file:  # not "a", which would make a deleted one anew
            file.seek(0, os.SEEK_END)
            file.write(_line(row))
        self.rows.append(row)
        planned = self.identity["epochs"]
        number = f"{row.epoch:{len(str(planned))}}/{planned}"
        log.info(
            f"epoch {number}  train loss {row.train_loss:.4f}  {row.train_accuracy:6.2%}   "
            f"val loss {row.val_loss:.4f}  {row.val_accuracy:6.2%}   {row.seconds:.1f} s{'  best' * (row is self.best)}"
        )

    def test(self, result: Evaluation) -> None:
        """Record what the best weights made of the test set."""
        if self.stopped:
            best_by, patience = (self.identity[key] for key in ("best_by", "patience"))
            log.info(
                f"stopped: {best_by} has not improved for {patience} epoch{'s' if patience > 1 else ''} (patience)"
            )
        self.note(test_loss=result.loss, test_accuracy=result.accuracy, test_errors=result.errors)
        log.info(
            f"test loss {result.loss:.4f}  {result.accuracy:.2%}: {result.errors:,} of {len(result.logits):,} wrong, "
            f"with the weights of epoch {self.best.epoch}"
        )

    def _best(self, rows: Sequence[Row]) -> Row:
        return min(rows, key=BEST_FIRST[self.identity["best_by"]])

    def close(self, status: str, error: str | None = None, failure: str | None = None) -> None:
        """Write summary.json; `failure` as errors.failure has it."""
        if not self.may_write:
            return
        if self.rows:
            best, seconds = self.best, sum(row.seconds for row in self.rows)
            self.note(
                epochs=self.done,
                best_epoch=best.epoch,
                best_val_loss=best.val_loss,
                best_val_accuracy=best.val_accuracy,
                images_per_second=round(self.images * self.done / seconds),
                stopped=self.stopped,
            )
        if status == "completed":
            self.note(files={name: files.sha256(self.folder / name) for name in SEALED})
        self.note(status=status, error=error, failure=failure, seconds=round(time.perf_counter() - self.start, 3))
        write_summary(self.folder, self.summary)


def write_summary(folder: Path, facts: dict[str, Any]) -> None:
    """Put a run's summary.json into its folder, in one step."""
    files.write(folder / "summary.json", (files.seal(facts, indent=2) + "\n").encode())


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


def read_summary(folder: Path) -> dict[str, Any]:
    """What a run's summary.json says; empty where there is none. Raises ConfigError when it was altered."""
    path = folder / "summary.json"
    try:
        facts = files.unseal(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}; without it, the run can go on") from error
    if missing := set(SUMMARY) - facts.keys():
        raise ConfigError(f"{path} is of another version: it lacks {', '.join(sorted(missing))}")
    return dict.fromkeys(ADDED) | facts


def require_same_data(before: Mapping[str, str], sha256: str) -> None:
    """Raise ConfigError where a run learned from other data than what there is now."""
    if before["sha256"] != sha256:
        raise ConfigError(
            f"data: the run learned from {before['name']} with SHA-256 {before['sha256']}, and now it is {sha256}; put "
            "the files under data.root back as they were"
        )


def has_completed(folder: Path, config_id: str) -> bool:
    """Whether the folder holds a completed run of this config_id."""
    try:
        facts = read_summary(folder)
    except (OSError, ConfigError):
        return False
    return facts.get("status") == "completed" and facts["config_id"] == config_id


def is_as_sealed(folder: Path, summary: dict[str, Any], name: str) -> bool:
    """Whether a file of a completed run is still the one that its summary vouches for."""
    try:
        return bool(files.sha256(folder / name) == summary["files"][name])
    except (OSError, TypeError, KeyError):
        return False


def owner(folder: Path) -> str | None:
    """What a folder belongs to, if anything."""
    if (folder / LEDGER).exists():
        return SWEEP
    if (folder.parent / LEDGER).exists() and folder.name.isdigit():
        return "a job of a sweep"
    return "a run" if (folder / METRICS).exists() else None


def claim(folder: Path) -> None:
    """Make `folder` a new run's: of those that want it, one gets it. Raises FileExistsError when it is taken."""
    if not (taken := owner(folder)):
        make(folder, "hydra.run.dir")
        try:
            with open(folder / METRICS, "x", newline="") as file:
                file.write(_line(COLUMNS))
        except FileExistsError:  # another run was sooner
            taken = "a run"
    if taken:
        raise FileExistsError(f"{folder} holds {taken} already: choose another hydra.run.dir")


def make(folder: Path, key: str) -> None:
    """Make a folder that can be written. Raises ConfigError, which says that `key` can name another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; {key}=FOLDER chooses another folder") from error


def clear(folder: Path) -> None:
    """Take away what a run has written in its folder, but for its log, which goes on; all else stays."""
    for path in [path for pattern in WRITTEN for path in folder.glob(pattern)]:
        path.unlink()
    for path in folder.glob("*/"):
        with suppress(OSError):  # it holds something else
            path.rmdir()


@contextmanager
def recording(resumed: bool) -> Iterator[Run]:
    """Record a run in Hydra's run folder, alone, and leave its summary there however the run ends.

    Ctrl-C, SIGTERM and SIGHUP end the process with exit code 130, 143 and 129. In a single run, what a user can mend
    ends it with one line and exit code 1; in a sweep it is raised, for the sweeper to deal with.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    run = Run(folder, versions=versions(), git=git())
    with ExitStack() as lock:
        try:
            lock.enter_context(_alone(folder))
            run.may_write = not resumed
            yield run
            run.close("completed")
        except (KeyboardInterrupt, Exception) as error:
            if stops.asked(error):
                with suppress(OSError):
                    run.close("interrupted")
                go_on = spelling.command(spelling.override("resume", folder))
                hint = f"; to go on: {go_on}" if hydra.mode == RunMode.RUN else ""
                log.warning(f"interrupted{hint}")
                sys.exit(stops.exit_code())
            line = errors.explain(error)
            log.error(f"failed: {line}", exc_info=True)  # to train.log alone
            with suppress(OSError):  # the disk may be what failed
                run.close("failed", line, errors.failure(error))
            if hydra.mode == RunMode.RUN and errors.is_mendable(error):
                sys.exit(f"error: {line}")
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the run while it is at work. Raises ConfigError when another process does."""
    with ExitStack() as lock:
        try:
            lock.enter_context(files.locked(folder / LOG))
        except BlockingIOError:
            raise ConfigError(f"{folder}: another process is at work on this run") from None
        yield


@cache  # the code in memory does not change while a sweep runs
def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on; ours with a digest of its code, for commits say too little."""
    found = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    digest = hashlib.sha256()
    for path in sorted([*_CODE.rglob("*.py"), *_CODE.parent.glob("train.py")]):
        if not path.is_relative_to(_CODE / "sweep") and path.name != "plots.py":  # these only look at results
            digest.update(path.read_bytes())
    return found | {"mnist_exp": f"{found['mnist_exp']}+{digest.hexdigest()[:8]}"}


def machine() -> dict[str, Any]:
    """What the code runs on; `cores` are those that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {"system": platform.platform(), "processor": (names or [platform.processor()])[0], "cores": cores()}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def git() -> dict[str, Any] | None:
    """The commit of this code, and whether files differ from it; None outside a repository."""
    try:
        commit, status = (
            subprocess.run(["git", "-C", _CODE, *arguments], capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(status)}
