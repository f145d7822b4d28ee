"""Who works on which batch of a sweep: a file for each claim, made in one step on any file system that has hard links.

    claims/0017/17042.1      the first claim of batch 17042; its content is the name of the worker
    claims/0017/17042.2      the second: the worker of the first was dead
    claims/0017/17042.done   all jobs of the batch have ended

All files of one worker in a folder are links to one file, so a million claims take a few thousand inodes.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = "claims"  # in the folder of the sweep
SIZE = 1000  # batches in a folder
DONE = "done"


class Claim(NamedTuple):
    """A worker's claim of a batch."""

    batch: int
    attempt: int  # 1 for the first worker, 2 for the one after it


class State(NamedTuple):
    """What the files say about a batch that somebody has claimed."""

    attempt: int  # the last one
    is_done: bool


def read(folder: Path, batches: Iterable[int]) -> dict[int, State]:
    """Return the states of those batches that were ever claimed.

    Args:
        folder: The folder of the sweep.
        batches: Their numbers.
    """
    wanted = set(batches)
    found: dict[int, State] = {}
    for thousand in {batch // SIZE for batch in wanted}:
        found |= _read_thousand(folder, thousand)
    return {batch: state for batch, state in found.items() if batch in wanted}


def owner(folder: Path, claim: Claim) -> str:
    """Return the name of the worker that made a claim; "" if the file is gone, or a crash emptied it.

    Raises:
        OSError: The file can't be read now.
    """
    try:
        return Path(_path(folder, claim.batch, claim.attempt)).read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


class Claims:
    """The claims that one worker makes. It goes through the batches that nobody has had, and then those of the dead."""

    def __init__(self, folder: Path, worker: str, batches: Iterable[int]) -> None:
        """Describe the claims of a worker, without touching the folder.

        Args:
            folder: The folder of the sweep.
            worker: The name of the worker, which no other ever has.
            batches: The numbers of the batches that it may take.
        """
        self.folder, self.worker = folder, worker
        self._open: defaultdict[int, list[int]] = defaultdict(list)  # batches that are not done, by their folder
        for batch in sorted(batches):
            self._open[batch // SIZE].append(batch)
        thousands = list(self._open)
        first = zlib.crc32(worker.encode()) % max(1, len(thousands))  # workers begin in different folders
        self._unread = deque(thousands[first:] + thousands[:first])
        self._unclaimed: deque[int] = deque()  # of the folder that was read last
        self._begun: dict[int, Path] = {}  # this worker's files, by their folders

    def take(self, is_dead: Callable[[str], bool]) -> Claim | None:
        """Claim a batch that is free. Return None if there is none now.

        Args:
            is_dead: Whether the worker of a name will never go on.

        Raises:
            OSError: The folder can't be written, or its file system has no hard links.
        """
        return self._take_unclaimed() or self._take_abandoned(is_dead)

    def finish(self, claim: Claim) -> None:
        """Mark a batch as done: all its jobs have ended.

        Raises:
            OSError: The folder can't be written.
        """
        self._link(claim.batch, DONE)
        with suppress(ValueError):  # a worker that took this one for dead has marked it before
            self._open[claim.batch // SIZE].remove(claim.batch)

    def are_done(self) -> bool:
        """Return whether all batches are done, as far as the last look at them goes."""
        return not any(self._open.values())

    def close(self) -> None:
        """Remove the files of which the claims are links; the claims stay."""
        for path in self._begun.values():
            path.unlink(missing_ok=True)
        self._begun.clear()

    def _take_unclaimed(self) -> Claim | None:
        while True:
            while self._unclaimed:
                claim = Claim(self._unclaimed.popleft(), 1)
                if self._link(*claim):
                    return claim
            if not self._unread:
                return None
            thousand = self._unread.popleft()
            states = self._look_at(thousand)
            self._unclaimed.extend(batch for batch in self._open[thousand] if batch not in states)

    def _take_abandoned(self, is_dead: Callable[[str], bool]) -> Claim | None:
        for thousand in list(self._open):
            for batch, state in self._look_at(thousand).items():
                claim = Claim(batch, state.attempt + 1)
                try:
                    its_worker = owner(self.folder, Claim(batch, state.attempt))
                except OSError:  # the file server has a hiccup: nothing says that the worker is dead
                    continue
                if is_dead(its_worker) and self._link(*claim):
                    return claim
        return None

    def _look_at(self, thousand: int) -> dict[int, State]:
        """Return the states of the open batches of a folder that were ever claimed, and forget those that are done."""
        if not self._open[thousand]:
            return {}
        states = _read_thousand(self.folder, thousand)
        self._open[thousand] = [
            batch for batch in self._open[thousand] if batch not in states or not states[batch].is_done
        ]
        return {batch: states[batch] for batch in self._open[thousand] if batch in states}

    def _link(self, batch: int, suffix: int | str) -> bool:
        """Make a file of a batch as a link to this worker's file. Return whether this worker has made it."""
        path, own = _path(self.folder, batch, suffix), self._begin(batch // SIZE)
        try:
            os.link(own, path)
        except FileExistsError:  # NFS says so too if it made the link, and its answer was lost
            return suffix != DONE and os.path.samefile(path, own)
        return True

    def _begin(self, thousand: int) -> Path:
        """Return this worker's file in a folder, after writing it if it is not there."""
        if thousand not in self._begun:
            path = _thousand(self.folder, thousand) / f".{self.worker}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w") as file:
                file.write(self.worker)
                file.flush()
                os.fsync(file.fileno())
            self._begun[thousand] = path
        return self._begun[thousand]


def _read_thousand(folder: Path, thousand: int) -> dict[int, State]:
    """Return the states of the claimed batches of a folder, in the order of their numbers."""
    attempts: defaultdict[int, int] = defaultdict(int)
    done: set[int] = set()
    for batch, suffix in _names(_thousand(folder, thousand)):
        if suffix == DONE:
            done.add(batch)
        else:
            attempts[batch] = max(attempts[batch], int(suffix))
    return {batch: State(attempts[batch], batch in done) for batch in sorted(attempts.keys() | done)}


def _names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the batch and the suffix of every file in a folder that is one of a batch."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        batch, _, suffix = name.partition(".")
        if batch.isdigit() and (suffix == DONE or suffix.isdigit()):
            yield int(batch), suffix


def _thousand(folder: Path, thousand: int) -> Path:
    return folder / FOLDER / f"{thousand:04}"


def _path(folder: Path, batch: int, suffix: int | str) -> str:
    return f"{folder}/{FOLDER}/{batch // SIZE:04}/{batch}.{suffix}"  # many of them: pathlib takes longer than a link
