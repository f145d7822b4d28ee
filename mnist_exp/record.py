"""The run folder: metrics.csv line by line, summary.json at the end, however the run ends."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_exp import errors, files

if TYPE_CHECKING:  # their module imports torch, and a wrong config should be told before that
    from mnist_exp.loop import Evaluation, Row

log = logging.getLogger(__name__)

COLUMNS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds"]
SUMMARY = (
    "status", "error", "config_id", "seed", "parameters", "epochs", "best_epoch", "best_val_loss", "best_val_accuracy",
    "test_loss", "test_accuracy", "test_errors", "seconds", "images_per_second", "device", "threads", "versions", "git",
    "data",
)  # fmt: skip
_CODE = Path(__file__).parent
PACKAGES = ("mnist_exp", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "scikit-learn")


class KeepRuns(Callback):
    """Stops Hydra before it writes into a folder that holds a run already; conf/config.yaml names it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Exit with one line if the folder is taken."""
        if (Path(config.hydra.run.dir) / "metrics.csv").exists():
            sys.exit(f"error: {_taken(config.hydra.run.dir)}")


class Run:
    """One run folder, claimed by creating its metrics.csv. Raises FileExistsError when it holds a run already."""

    def __init__(self, folder: Path, **facts: Any) -> None:
        self.folder, self.start = folder, time.perf_counter()
        self.rows: list[Row] = []
        self.summary: dict[str, Any] = dict.fromkeys(SUMMARY) | facts
        try:
            with open(folder / "metrics.csv", "x", newline="") as file:
                csv.writer(file).writerow(COLUMNS)
        except FileExistsError:
            raise FileExistsError(_taken(folder)) from None

    @property
    def best(self) -> Row:
        """The epoch with the lowest validation loss, the first of equals."""
        return min(self.rows, key=lambda row: row.val_loss)

    def note(self, **facts: Any) -> None:
        """Put facts into the summary."""
        self.summary |= facts

    def begin(self, epochs: int, images: int) -> None:
        """Say how many epochs are to come, over so many training images."""
        self.planned, self.images = epochs, images

    def improves(self, row: Row) -> bool:
        """Whether an epoch is better than all that were recorded."""
        return not self.rows or row.val_loss < self.best.val_loss

    def epoch(self, row: Row) -> None:
        """Record an epoch."""
        with open(self.folder / "metrics.csv", "a", newline="") as file:
            csv.writer(file).writerow(row)
        self.rows.append(row)
        best = self.best
        seconds = sum(row.seconds for row in self.rows)
        number = f"{row.epoch:{len(str(self.planned))}}/{self.planned}"
        self.note(
            epochs=row.epoch,
            best_epoch=best.epoch,
            best_val_loss=best.val_loss,
            best_val_accuracy=best.val_accuracy,
            images_per_second=round(self.images * len(self.rows) / seconds),
        )
        log.info(
            f"epoch {number}  train loss {row.train_loss:.4f}  {row.train_accuracy:6.2%}   "
            f"val loss {row.val_loss:.4f}  {row.val_accuracy:6.2%}   {row.seconds:.1f} s{'  best' * (row is best)}"
        )

    def test(self, result: Evaluation) -> None:
        """Record what the best weights made of the test set."""
        self.note(test_loss=result.loss, test_accuracy=result.accuracy, test_errors=result.errors)
        log.info(
            f"test loss {result.loss:.4f}  {result.accuracy:.2%}: {result.errors:,} of {len(result.logits):,} wrong, "
            f"with the weights of epoch {self.summary['best_epoch']}"
        )

    def close(self, status: str, error: str | None = None) -> None:
        """Write summary.json."""
        self.note(status=status, error=error, seconds=round(time.perf_counter() - self.start, 3))
        files.write(self.folder / "summary.json", (json.dumps(self.summary, indent=2) + "\n").encode())


@contextmanager
def recording() -> Iterator[Run]:
    """Claim Hydra's run folder, and leave its summary there however the run ends.

    Ctrl-C ends the process with exit code 130. In a single run, what a user can mend ends it with one line and exit
    code 1; in a sweep it is raised, for the sweeper to deal with.
    """
    logging.raiseExceptions = False  # a full disk is told once, by the run, and not by every line of the log
    hydra = HydraConfig.get()
    run = Run(Path(hydra.runtime.output_dir), versions=versions(), git=git())
    try:
        yield run
        run.close("completed")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the second Ctrl-C of an impatient user
        run.close("interrupted")
        log.warning(f"interrupted; what was learned is in {run.folder}")
        sys.exit(130)
    except Exception as error:
        line = errors.explain(error)
        log.error(f"failed: {line}", exc_info=True)  # to train.log alone
        with suppress(OSError):  # the disk may be what failed
            run.close("failed", line)
        if hydra.mode == RunMode.RUN and errors.is_mendable(error):
            sys.exit(f"error: {line}")
        raise


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: what belongs together is written together."""
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def _taken(folder: Path | str) -> str:
    return f"{folder} holds a run already: choose another hydra.run.dir"


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
