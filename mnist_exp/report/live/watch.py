"""Shows the report of a sweep in a browser while the sweep runs, and ends with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_exp.figure_page import to_png
from mnist_exp.report import figures, results, status
from mnist_exp.report.live import page
from mnist_exp.report.live.server import Server, Shown
from mnist_exp.report.measures import ACCURACY
from mnist_exp.report.results import Results
from mnist_exp.report.status import ENDED, Status
from mnist_exp.report.status_text import MOST
from mnist_exp.store import sweep_folder
from mnist_exp.store.run_folder import RUNNING
from mnist_exp.system import errors, program, quoting, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.system.pace import PAUSE

REST = 30  # times as long as it took the processor, each of three kinds of work rests: at most a tenth of a core in all


class Pace:
    """Work that rests REST times as long as it took the processor.

    Attributes:
        next: When it may be done again, by time.monotonic.
    """

    def __init__(self) -> None:
        """Begin at once."""
        self.next = 0.0

    def is_due(self) -> bool:
        """Return whether it has rested."""
        return time.monotonic() >= self.next

    @contextmanager
    def work(self) -> Iterator[None]:
        """Do it in the block."""
        began = time.thread_time()
        yield
        self.next = time.monotonic() + REST * (time.thread_time() - began)


class Drawing:
    """The figures of a report, drawn one after the other.

    Attributes:
        light: Those for a light page that are drawn, PNG by name.
        dark: The same figures for a dark page.
    """

    def __init__(self, found: Results) -> None:
        """Begin to draw results."""
        self.light: dict[str, bytes] = {}
        self.dark: dict[str, bytes] = {}
        self._left = zip(figures.figures(found), figures.figures(found, dark=True), strict=True)

    def go_on(self, to_the_end: bool) -> bool:
        """Draw the next figure, or all that are left. Return whether all are drawn."""
        for (name, light), (_, dark) in self._left:
            self.light[name], self.dark[name] = to_png(light), to_png(dark)
            if not to_the_end:
                return False
        return True


class View:
    """What a browser shows of a sweep, made anew as the sweep goes on."""

    def __init__(self, folder: Path, by: str) -> None:
        """Show the sweep in `folder`, whose arms the measure `by` ranks."""
        self.folder, self.by = folder, by
        self._looks, self._tables, self._figures = Pace(), Pace(), Pace()
        self._edition, self._page = 0, ""
        self._drawing: Drawing | None = None
        self._pictures: tuple[dict[str, bytes], dict[str, bytes]] = {}, {}
        self._moved: object = None  # what the tables are of
        self._ended: object = None  # what the figures are of

    def look(self) -> Shown:
        """Return what to show.

        Raises:
            ConfigError: The folder is not a sweep of this program, or there is no such measure of its runs.
            OSError: A file can't be read.
        """
        with self._looks.work():
            found = status.read(str(self.folder))
            now = page.now(found)
        self._renew(found)
        return Shown(self._page, now, self._edition, page.POLICY, found.is_over)

    @property
    def rest(self) -> float:
        """Seconds until the next look."""
        return max(PAUSE, self._looks.next - time.monotonic())

    def _renew(self, found: Status) -> None:
        """Make the page anew if something has changed: the tables at each epoch, the figures when a run has ended."""
        stage, is_over = found.stage, found.is_over
        ended = stage.folder, len(stage.runs), *(stage.counts[state] for state in ENDED)
        running = [run for run in stage.runs if run.state == RUNNING][:MOST]
        moved = ended, stage.counts, [(run.number, run.epoch) for run in running], is_over
        are_drawn = self._draw(to_the_end=False)
        if not are_drawn and (moved == self._moved or not (self._tables.is_due() or is_over)):
            return
        with self._tables.work():
            content = results.read([stage.folder], self.by)
            if ended != self._ended and (is_over or not self._drawing):
                self._drawing, self._ended = Drawing(content), ended
            if is_over:
                self._draw(to_the_end=True)
            self._edition += 1
            self._page = page.to_html(content, *self._pictures, self._edition, is_over)
        self._moved = moved

    def _draw(self, to_the_end: bool) -> bool:
        """Draw a figure if it is time for one, or all. Return whether all have become new."""
        if not self._drawing or not (to_the_end or self._figures.is_due()):
            return False
        with self._figures.work():
            are_drawn = self._drawing.go_on(to_the_end)
        if are_drawn:
            self._pictures, self._drawing = (self._drawing.light, self._drawing.dark), None
        return are_drawn


def watch_and_print(target: str, by: str = ACCURACY.name, port: int = 0) -> None:
    """Serve the report of a sweep as a page that keeps itself up to date, and print its address.

    Nothing is written. It returns when all runs have ended and a browser has the last page.

    Args:
        target: The folder of a sweep, or `latest`.
        by: The name of the measure by which the arms are ranked and compared.
        port: The port on this machine; 0 for any free one.

    Raises:
        ConfigError: The target is not a sweep of this program, there is no such measure, or the port can't be used.
        OSError: A file can't be read.
    """
    view = View(sweep_folder.find(target), by)
    server = Server(view.look(), port)
    with server.running():
        print(server.address, flush=True)
        _follow(view, server)
        server.wait_until_seen()
    command = f"{program.tool('report')} {quoting.for_shell(str(view.folder))}"
    print(f"{view.folder}: all runs have ended, and a browser has their report; {command} writes it into files")


def _follow(view: View, server: Server) -> None:
    """Show what comes until the sweep is over. A file that can't be read now is tried again, and said once."""
    failing = False
    while not server.shown.is_over:
        time.sleep(view.rest)
        try:
            server.show(view.look())
            failing = False
        except (OSError, ConfigError) as error:  # of a ledger that is being written, too
            if not failing:
                streams.say(f"tried again until it works: {errors.explain(error)}")
            failing = True
