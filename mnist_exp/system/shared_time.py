"""The time of things that are done together."""

from __future__ import annotations

import time
from collections.abc import Callable


class SharedTime:
    """Divides the time among clocks: those that go share it equally, so all together show the time that has passed."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Divide the time of a clock, in seconds. No clock goes yet."""
        self._clock, self._since, self._going = clock, clock(), set[Clock]()

    def go(self, *clocks: Clock) -> None:
        """Let these clocks go from now on, and no others."""
        share = self._share
        for each in self._going:
            each.shown += share
        self._since, self._going = self._clock(), set(clocks)

    def of(self, clock: Clock) -> float:
        """Return the time since the last `go` that is a clock's own."""
        return self._share if clock in self._going else 0.0

    @property
    def _share(self) -> float:
        """The time since the last `go` that each clock has which goes."""
        return (self._clock() - self._since) / max(1, len(self._going))


class Clock:
    """A clock that shows its share of the time."""

    def __init__(self, time: SharedTime) -> None:
        """Show a share of `time`, from 0 on."""
        self._time, self.shown = time, 0.0

    def __call__(self) -> float:
        """Return what it shows, in seconds."""
        return self.shown + self._time.of(self)
