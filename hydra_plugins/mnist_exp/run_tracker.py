"""tracker=NAME of a single run; a sweep has one for all its jobs. Like sweeper.py, quick to import."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig


class RunTracker(Callback):
    """Shows a single run in trackers while it trains. conf/config.yaml names this class."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End the command if the config names trackers that can't be used, before anything is written."""
        _usable_trackers(config)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Start to show the run, until the command ends."""
        if config.hydra.mode == RunMode.RUN and (names := _usable_trackers(config)):
            from mnist_exp import command_line
            from mnist_exp.track import beside

            folder = Path(config.hydra.runtime.output_dir)
            command_line.until_the_end.enter_context(beside.shown_in(names, [folder]))


def _usable_trackers(config: DictConfig) -> list[str]:
    """Return the trackers that the config of a run names, after a look whether they are installed."""
    from mnist_exp.config import trackers
    from mnist_exp.system import errors, extras

    with errors.ending_the_command():
        return extras.require_trackers(trackers(config))
