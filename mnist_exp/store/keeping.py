"""What is kept of a run of a sweep that has ended: hydra.launcher.keep. A pruned run never keeps its checkpoints.

With `best`, a run has six files, and with `none` five. What is dropped repeats the ledger and multirun.yaml, or serves
to train the run longer. Its summary records what was dropped, so nobody takes the run for damaged.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mnist_exp.store import run_folder
from mnist_exp.store.run_folder import BEST, HYDRA, LAST, OVERRIDES, PRUNED
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


def drop(folder: Path, keep: str) -> None:
    """Delete what is not kept of a run, after its summary has recorded that. An error leaves the files."""
    summary = run_folder.read_summary(folder)
    if not summary:
        return
    of_pruned = (LAST, BEST) if summary["status"] == PRUNED else ()
    names = [name for name in {*DROPPED[keep], *of_pruned} if (folder / name).is_file()]
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
