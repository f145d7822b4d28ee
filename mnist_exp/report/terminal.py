"""What of a sweep runs now, at the bottom of a terminal, while lines of the sweep scroll above.

A process of its own draws it, and leaves the cursor at its first line. So a line of any process takes its place, after
erasing it (streams.above), and the next look draws it again below.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from mnist_exp.report import status, status_text
from mnist_exp.report.status_text import Line
from mnist_exp.system import reader, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.pace import PAUSE, until_next_look

END = 5  # seconds that the process which draws has to end


@contextmanager
def shown(folder: Path | None) -> Iterator[None]:
    """Show what runs of the sweep in a folder during the block, if standard error is a terminal; None shows nothing."""
    if not folder or not streams.is_terminal(sys.stderr):
        yield
        return
    drawing = reader.Reader("report.terminal", [str(folder)])
    try:
        yield
    finally:
        drawing.tell_end()
        drawing.has_ended(END)
        drawing.kill()
        _write(streams.ERASE)


def draw(folder: str, ended: threading.Event) -> None:
    """Draw what runs now, again and again, until the command that works on the sweep has ended."""
    console, pause = Console(stderr=True), PAUSE
    while not ended.wait(pause):
        began = time.monotonic()
        with suppress(ConfigError, OSError):  # it has not begun, or the disk is full; the sweep says so
            _write(_frame(status_text.now(status.read(folder)), console))
        pause = until_next_look(began)


def _frame(lines: Sequence[Line], console: Console) -> str:
    """Return what draws the lines below the cursor, each cut to the width, and moves the cursor back up."""
    lines = lines[: console.height - 2]
    with console.capture() as frame:
        for line in lines:
            console.print(Text(cut(line.text, console.width), line.style), no_wrap=True, overflow="crop")
    return f"{streams.ERASE}{frame.get()}\x1b[{len(lines)}A\r"


def cut(text: str, width: int) -> str:
    """Return a line that is at most so wide, with an ellipsis in the place of the words at its end that have no room.

    If the first override has none, the ellipsis takes the place of its beginning, because its value tells runs apart.
    """
    if cell_len(text) <= width:
        return text
    kept, _, rest = set_cell_size(text, width - 1).rpartition(" ")
    word, *others = text[len(kept) :].split()
    end = " …" if others else ""
    room = width - cell_len(f"{kept} …{end}")
    if "=" in word and "=" not in kept and room > 0:
        while cell_len(word) > room:
            word = word[1:]
        return f"{kept} …{word}{end}"
    return f"{kept.rstrip()} …" if kept.strip() else f"{rest}…"


def _write(text: str) -> None:
    with suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    streams.harden()
    draw(sys.argv[1], reader.command_ended(END))
