"""Writes runs for W&B (Weights & Biases): to its server where there is a login, and else to files for `wandb sync`.

Beside the files of a run that is written completely lies its state, so that a second export can pass it over. What an
interrupted export wrote without a login is written once more.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mnist_exp.system import extras, files, quoting
from mnist_exp.system.errors import ConfigError
from mnist_exp.track.runs import Snapshot, TrackedRun

PROJECT = "mnist_exp"  # where WANDB_PROJECT names no other
STATE = "mnist_exp.state"  # a file beside those of W&B
EXIT_CODES = {"completed": 0, "pruned": 0, "failed": 1, "interrupted": 130}  # by which W&B tells how a run ended
QUIET: dict[str, Any] = {  # settings: what would describe this machine and this command, not those of the run
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "silent": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "init_timeout": 30,
}
PATIENCE, PAUSE = 5.0, 0.02  # seconds that the end of a file may take, and between two looks at it
START = 7  # bytes before the first record of an offline file, which has LevelDB's log format
BLOCK, HEADER = 32_768, struct.Struct("<IHB")  # a record's parts lie in blocks; checksum, length and kind of a part
ENDS = (1, 4)  # the kinds of parts that end a record


class WandB:
    """A project in W&B. The runs of an arm are a group."""

    def __init__(self, to: str | None) -> None:
        """Write into the folder `wandb` within `to`; by default within WANDB_DIR, or the current folder.

        Raises:
            ConfigError: wandb is not installed.
            OSError: The folder can't be created.
        """
        extras.require("wandb", *extras.TRACKERS["wandb"])
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self.folder = Path(to or os.environ.get("WANDB_DIR") or ".") / "wandb"
        self.folder.mkdir(parents=True, exist_ok=True)  # or W&B would write into a temporary one
        self.mode: Any = os.environ.get("WANDB_MODE") or ("online" if _is_logged_in() else "offline")
        self.project = os.environ.get("WANDB_PROJECT") or PROJECT
        self._open: dict[str, Any] = {}  # W&B's runs that have not ended, by TrackedRun.id
        self._logged: dict[str, int] = {}  # the last epoch that each has

    @property
    def hint(self) -> str:
        """The command that uploads the runs, or what W&B calls the project."""
        if self.mode == "online":
            return f"project {self.project} of W&B"
        return f"wandb sync {quoting.for_shell(str(self.folder))}/offline-run-*"

    def write(self, snapshot: Snapshot, runs: Sequence[TrackedRun]) -> int:
        """Write what is new of the runs, and return how many had something new.

        Raises:
            ConfigError: W&B's server can't be used.
            OSError: The folder can't be written.
        """
        written: dict[str, list[Path]] = {}
        for path in self.folder.glob("*run-*"):
            written.setdefault(path.name.rpartition("-")[2], []).append(path)
        return sum(self._write(run, snapshot, written.get(run.id, [])) for run in runs)

    def close(self) -> None:
        """End the runs of W&B that are not complete."""
        for run in self._open.values():
            run.finish(exit_code=EXIT_CODES["interrupted"])
        self._open.clear()

    def _write(self, run: TrackedRun, snapshot: Snapshot, written: Sequence[Path]) -> bool:
        """Write what is new of a run, and return whether anything is."""
        if any(_state(folder) == run.state for folder in written):
            return False
        with _in_one_line():
            tracked = self._open.get(run.id) or self._begin(run, snapshot, written)
            for row, moment in zip(run.rows, run.times, strict=True):
                if row.epoch > self._logged[run.id]:
                    tracked.log({**row._asdict(), "_timestamp": moment}, step=row.epoch)
                    self._logged[run.id] = row.epoch
            if run.ended is not None:
                self._finish(run, tracked)
        return True

    def _begin(self, run: TrackedRun, snapshot: Snapshot, written: Sequence[Path]) -> Any:
        import wandb

        for folder in written:  # of an export that was interrupted, or of an earlier state of the run
            shutil.rmtree(folder)
        tracked = wandb.init(
            project=self.project,
            id=run.id,
            resume="allow",
            reinit="create_new",  # runs of a sweep may be open side by side
            mode=self.mode,
            dir=self.folder.parent,
            name=run.name,
            group=run.arm or None,
            job_type="train",
            tags=list(run.labels),
            config={**run.tags, "sweep": snapshot.name, **run.choices},
            settings=wandb.Settings(**QUIET),
        )
        self._open[run.id], self._logged[run.id] = tracked, max(0, tracked.starting_step - 1)
        return tracked

    def _finish(self, run: TrackedRun, tracked: Any) -> None:
        import wandb

        if pictures := {path.stem: wandb.Image(str(path)) for path in run.pictures}:
            tracked.log({**pictures, "_timestamp": run.times[-1]}, step=len(run.rows))
        tracked.summary.update(run.results)
        folder = Path(tracked.dir).parent
        tracked.finish(exit_code=EXIT_CODES[run.status])
        del self._open[run.id]
        if self.mode == "offline" and not _is_written(folder / f"run-{run.id}.wandb"):
            raise ConfigError(f"{folder}: W&B could not write all of it; the disk may be full")
        files.write(folder / STATE, run.state.encode())


def _is_logged_in() -> bool:
    import wandb
    from wandb.sdk.lib import wbauth

    return bool(os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=wandb.Settings().base_url))


def _state(folder: Path) -> str | None:
    try:
        return (folder / STATE).read_text()
    except OSError:
        return None


def _is_written(path: Path) -> bool:
    """Return whether W&B, which closes an offline file a little later than it says, has written the run's end into it.

    After an error, it writes nothing more, and says nothing.

    Raises:
        OSError: The file can't be read.
    """
    deadline = time.monotonic() + PATIENCE
    while not (is_written := _has_end(path)) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return is_written


def _has_end(path: Path) -> bool:
    """Return whether an offline file ends with the run's end.

    Raises:
        OSError: The file can't be read.
    """
    from google.protobuf.message import DecodeError

    record = import_module("wandb.proto.wandb_internal_pb2").Record  # whose classes are made as it is imported
    *_, last = [b"", *_records(path.read_bytes())]
    try:
        return bool(record.FromString(last).HasField("exit"))
    except DecodeError:
        return False


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of an offline file."""
    at, record = START, b""
    while at + HEADER.size <= len(content):
        if BLOCK - at % BLOCK < HEADER.size:  # the rest of a block, too short for a part
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size + length
        record += content[at - length : at]
        if kind in ENDS:
            yield record
            record = b""


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Raise what W&B raises as a ConfigError."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise ConfigError(f"wandb: {' '.join(str(error).split())}") from error
