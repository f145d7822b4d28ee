"""What is kept of a run of a sweep that has ended: hydra.launcher.keep. A pruned run never keeps its checkpoints.

With `best`, a run has six files, and with `none` five. What is dropped repeats the ledger and multirun.yaml, or serves
to train the run longer. Its summary records what was dropped, so nobody takes the run for damaged.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_exp.store import run_folder
from mnist_exp.store.run_folder import BEST, HYDRA, LAST, OVERRIDES, PRUNED, RUNG
from mnist_exp.system.errors import ConfigError

DROPPED = {"all": (), "best": (LAST, HYDRA, OVERRIDES), "none": (LAST, BEST, HYDRA, OVERRIDES)}


def of(launcher: Mapping[str, Any]) -> str:
    """Return what the config of a launcher keeps; a launcher without this key keeps all.

    Raises:
        ConfigError: There is no such value.
    """
    keep = str(launcher.get("keep", "all"))
    if keep not in DROPPED:
        raise ConfigError(f"hydra.launcher.keep={keep}: must be one of {', '.join(DROPPED)}")
    return keep


def drop(folder: Path, keep: str, may_go_on: bool = True) -> None:
    """Delete what is not kept of a run, after its summary has recorded that. An error leaves the files.

    Args:
        folder: The folder of the run.
        keep: hydra.launcher.keep.
        may_go_on: Whether a run that waits at a rung, for the choice of those that go on, is left as it is.
    """
    unkept = {*DROPPED[keep], LAST, BEST}  # at most
    names = sorted(name for name in unkept if (folder / name).is_file())
    summary = run_folder.read_summary(folder) if names else None
    if not summary or (may_go_on and summary["stopped"] == RUNG):
        return
    if summary["status"] != PRUNED:
        names = [name for name in names if name in DROPPED[keep]]
    if not names:
        return
    with suppress(OSError):  # a full disk; the run is complete all the same
        dropped = {*(summary["dropped"] or ()), *map(str, names)}
        run_folder.write_summary(folder, {**summary, "dropped": sorted(dropped)})
        for name in names:
            (folder / name).unlink(missing_ok=True)
        (folder / BEST).parent.rmdir()  # if nothing is left in it


def why_gone(folder: Path, name: Path) -> str:
    """Return why a run lacks a file, as the rest of a sentence."""
    if not was_dropped(folder, name):
        return "is gone"
    summary = run_folder.read_summary(folder)
    if summary and summary["status"] == PRUNED:
        return "was dropped when the run was pruned (hydra.sweeper.prune)"
    return "was dropped when the run was completed (hydra.launcher.keep)"


def was_dropped(folder: Path, name: Path) -> bool:
    """Return whether a file of a run was dropped on purpose."""
    with suppress(OSError, ConfigError):
        summary = run_folder.read_summary(folder)
        return bool(summary and str(name) in (summary["dropped"] or ()))
    return False


def has_begun(folder: Path) -> bool:
    """Return whether a run has got as far as its config, which Hydra writes before the overrides."""
    return (folder / OVERRIDES).is_file() or was_dropped(folder, OVERRIDES)
