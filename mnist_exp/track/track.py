"""Exports runs and sweeps to a tracker, once or until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mnist_exp.report.formats import count
from mnist_exp.system import errors, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.pace import until_next_look
from mnist_exp.track import runs
from mnist_exp.track.mlflow import MLflow
from mnist_exp.track.runs import Snapshot, TrackedRun
from mnist_exp.track.tensorboard import TensorBoard
from mnist_exp.track.wandb import WandB


class Tracker(Protocol):
    """Where runs are shown. What it has already, it does not write again."""

    @property
    def hint(self) -> str:
        """What the user types to see the runs."""

    def write(self, snapshot: Snapshot, runs: Sequence[TrackedRun]) -> int:
        """Write what is new of the runs, and return how many had something new."""

    def close(self) -> None:
        """End what is open."""


TRACKERS: dict[str, Callable[[str | None], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def export_and_print(name: str, folders: Sequence[Path], to: str | None = None, follow: bool = False) -> None:
    """Export runs and sweeps, and say how many runs had something new.

    Args:
        name: A key of TRACKERS.
        folders: Runs and sweeps. One that is named twice counts once.
        to: The folder or the address of the tracker; None for its default.
        follow: Go on until all of them have ended.

    Raises:
        ConfigError: A folder is neither a run nor a sweep, or the tracker can't be used.
        OSError: A file can't be written.
    """
    folders = list(dict.fromkeys(folders))
    snapshots = [runs.read(folder) for folder in folders]
    tracker = TRACKERS[name](to)
    try:
        for snapshot in snapshots:
            print(_line(snapshot, tracker.write(snapshot, snapshot.runs)), flush=True)
        print(tracker.hint, flush=True)
        if follow:
            _follow(tracker, snapshots)
    finally:
        tracker.close()


def _follow(tracker: Tracker, snapshots: Sequence[Snapshot]) -> None:
    """Export what comes until all has ended. A tracker that fails is tried again, and said once to have failed."""
    known = {snapshot.folder: snapshot for snapshot in snapshots if snapshot.status == "running"}
    failing = False
    while known:
        began = time.monotonic()
        for folder, before in list(known.items()):
            try:
                now = write_changes(tracker, folder, before)
            except (OSError, ConfigError) as error:
                if not failing:
                    streams.say(f"tried again until it works: {errors.explain(error)}")
                failing = True
                continue
            failing = False
            known[folder] = now
            if now.status != "running":
                streams.say(f"{folder}: {now.status}")
                del known[folder]
        time.sleep(until_next_look(began) if known else 0)


def write_changes(tracker: Tracker, folder: Path, before: Snapshot | None) -> Snapshot:
    """Write what a run or a sweep has that an earlier snapshot lacks, and return the one that is written.

    Raises:
        ConfigError: A file of the folder is damaged, or the tracker can't be used.
        OSError: A file can't be read or written.
    """
    now = runs.read(folder)
    written = {run.id: run for run in before.runs} if before else {}
    changed = [run for run in now.runs if written.get(run.id) != run]
    if changed or not before or now.status != before.status:
        tracker.write(now, changed)
    return now


def _line(snapshot: Snapshot, changed: int) -> str:
    return f"{snapshot.folder}: {count(len(snapshot.runs), 'run')}, {changed:,} with something new"
