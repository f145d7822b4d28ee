"""How often a command looks at files that other processes write."""

import time

PAUSE = 1.0  # seconds between two looks at least
REST = 10  # times as long as a look took, so that looks at large sweeps take at most a tenth of a core


def until_next_look(began: float) -> float:
    """Return the seconds from now to the next look.

    Args:
        began: When this look began, by time.monotonic.
    """
    return max(PAUSE, REST * (time.monotonic() - began))
