"""Standard output and standard error: escape what they can't show, and accept that their reader may go away."""

import errno
import logging
import os
import sys
from typing import IO, Any

GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe; a terminal
ERASE = "\x1b[J"  # a terminal erases what is below its cursor: report/terminal.py shows there what runs now


def harden() -> None:
    """Make both streams escape what they can't encode, such as file names that are not text."""
    logging.raiseExceptions = False  # the run reports a full disk once; each line of the log would again
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Flush both streams.

    Raises:
        OSError: The disk is full. A reader that is gone is not an error.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            discard(stream)  # or Python's shutdown would try again, and complain
            if error.errno not in GONE:
                error.filename = "standard output"
                raise


def say(line: str) -> None:
    """Print a line, if that is possible: it must not change how a command ends."""
    try:
        print(above(sys.stdout) + line, flush=True)
    except OSError:
        discard(sys.stdout)


def discard(stream: IO[Any]) -> None:
    """Redirect a stream to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def shows_progress() -> bool:
    """Return whether a progress bar may write on standard error: a terminal and a notebook show it, a file keeps it."""
    return sys.stderr.isatty() or type(sys.stderr).__module__ == "ipykernel.iostream"


def is_terminal(stream: IO[Any]) -> bool:
    """Return whether a stream is a terminal that moves its cursor and erases lines."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def above(stream: IO[Any]) -> str:
    """Return what comes before a line that takes the place of what a terminal shows below its cursor."""
    return ERASE if is_terminal(stream) else ""


def shows_blocks() -> bool:
    """Return whether standard output can show the blocks of a progress bar."""
    try:
        "\u2588\u258f".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Console(logging.StreamHandler[Any]):
    """Writes records to a stream until its reader goes away. conf/hydra uses it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return above(self.stream) + super().format(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Discard the stream if its reader is gone."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in GONE:
            discard(self.stream)
