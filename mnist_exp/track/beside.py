"""Shows runs in trackers while they train: tracker=NAME. Each tracker has a process of its own.

The process of the run only starts these, and waits for their last look. A tracker that fails changes nothing about it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mnist_exp.system import errors, program, quoting, streams
from mnist_exp.system.pace import until_next_look
from mnist_exp.system.reader import Reader, command_ended
from mnist_exp.track import runs, track
from mnist_exp.track.runs import Snapshot
from mnist_exp.track.track import Tracker

PATIENCE = 60  # seconds that the last look may take
AFTER_FAILURE = 10  # if the run has failed, or was stopped
SILENT = 2  # seconds before a line says what the command waits for
PAUSE_OF_FAILING = 10.0  # seconds between two tries


@contextmanager
def shown_in(names: Sequence[str], folders: Sequence[Path]) -> Iterator[None]:
    """Show the runs and sweeps in these folders, which the block writes, in trackers.

    Args:
        names: Keys of extras.TRACKERS.
        folders: Runs and sweeps. One that never begins is left out.
    """
    paths = [str(folder.absolute()) for folder in folders]
    readers = {name: Reader("track.beside", [name, *paths]) for name in names}
    seconds = AFTER_FAILURE
    try:
        yield
        seconds = PATIENCE
    finally:
        _finish(readers, folders, seconds)


def _finish(readers: dict[str, Reader], folders: Sequence[Path], seconds: float) -> None:
    """Wait until the trackers have everything, but not for long, and say which of them lack something."""
    deadline = time.monotonic() + seconds
    for reader in readers.values():
        reader.tell_end()
    try:
        for name, reader in readers.items():
            if not reader.has_ended(min(SILENT, seconds)):
                streams.say(f"tracker={name}: writes what is left, which may take up to {seconds} s")
                reader.has_ended(max(0.0, deadline - time.monotonic()))
    finally:
        begun = " ".join(quoting.for_shell(str(folder)) for folder in folders if runs.has_begun(folder))
        for name, reader in readers.items():
            if reader.kill() and begun:
                streams.say(f"tracker={name}: not all is written; the rest: {program.tool('track')} {name} {begun}")


class _Export:
    """Folders on their way into a tracker, which is opened when the first of them begins."""

    def __init__(self, name: str, folders: Sequence[Path]) -> None:
        self.name = name
        self.tracker: Tracker | None = None
        self.known: dict[Path, Snapshot | None] = dict.fromkeys(folders)

    def look(self) -> None:
        """Write what is new. What raises an error is written by the next look."""
        for folder, before in self.known.items():
            if runs.has_begun(folder):
                self.known[folder] = track.write_changes(self._opened(), folder, before)

    def close(self) -> None:
        """End what is open."""
        if self.tracker:
            self.tracker.close()

    def _opened(self) -> Tracker:
        if not self.tracker:
            self.tracker = track.TRACKERS[self.name](None)
            streams.say(f"tracker={self.name}: to see it: {self.tracker.hint}")
        return self.tracker


def read_along(name: str, folders: Sequence[Path], ended: threading.Event) -> int:
    """Export to a tracker what comes into the folders, until the command that writes them has ended.

    Returns:
        The exit code: 0 if the tracker has everything.
    """
    export, failing = _Export(name, folders), False
    while True:
        is_last, began, failure = ended.is_set(), time.monotonic(), ""
        try:
            export.look()
            if is_last:
                export.close()
        except Exception as error:  # whatever it is, the run goes on
            failure = errors.explain(error) or type(error).__name__
        if failure and not failing:
            streams.say(f"tracker={name}: {failure}" + ("" if is_last else "; tried again until the run ends"))
        elif failing and not failure:
            streams.say(f"tracker={name}: works again")
        failing = bool(failure)
        if is_last:
            return int(failing)
        ended.wait(PAUSE_OF_FAILING if failing else until_next_look(began))


def main() -> None:
    """Be the process of one tracker: its arguments are the tracker's name, and the folders."""
    streams.harden()
    code = read_along(sys.argv[1], [Path(folder) for folder in sys.argv[2:]], command_ended(PATIENCE))
    streams.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
