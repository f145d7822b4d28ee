"""Standard output and standard error: what they can't show is escaped, and a reader that went away is no error."""

import errno
import logging
import os
import sys
from typing import IO, Any

GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe; a terminal


def harden() -> None:
    """Have both streams escape what they can't show, such as a name that is no text, or letters beyond ASCII."""
    logging.raiseExceptions = False  # a full disk is told once, by the run, and not by every line of the log
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write what the streams still hold. Raises OSError for a full disk, but not where nobody reads any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            discard(stream)  # or Python, at its end, would try once more, and complain
            if error.errno not in GONE:
                error.filename = "standard output"
                raise


def say(line: str) -> None:
    """Print a line; nothing where it can't be shown, for that must not change how a command ends."""
    try:
        print(line, flush=True)
    except OSError:
        discard(sys.stdout)


def discard(stream: IO[Any]) -> None:
    """Let what is written to a stream from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def shows_blocks() -> bool:
    """Whether the standard output can show the blocks of a progress bar."""
    try:
        "\u2588\u258f".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Console(logging.StreamHandler[Any]):
    """Shows records on a stream until nobody reads it; conf/hydra uses it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Be silent from now on, where the stream failed."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in GONE:
            discard(self.stream)
