"""Work in a thread that ends when the work does. So no idle thread is alive when a process is forked."""

import threading
from collections.abc import Callable

AT_ONCE = threading.BoundedSemaphore(2)  # one computes as another waits for the disk; more only wait for Python's lock


def start(work: Callable[[], object]) -> Callable[[], None]:
    """Call `work` in a thread.

    Returns:
        What waits for the end of the work, and raises what it raised, once.
    """
    errors: list[Exception] = []

    def run() -> None:
        try:
            with AT_ONCE:
                work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> None:
        thread.join()
        if errors:
            raise errors.pop()

    return wait


def nothing() -> None:
    """Wait for no work."""
