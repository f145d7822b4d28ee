"""The live page: that of the report, with a section on top that says what happens now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from markupsafe import Markup

from mnist_exp.report import page, sentences, status_text, template
from mnist_exp.report.live.server import NOW
from mnist_exp.report.results import Results
from mnist_exp.report.status import ALIVE, ENDED, Run, Stage, Status, Worker
from mnist_exp.store import metrics
from mnist_exp.store.metrics import METRICS
from mnist_exp.store.run_folder import FAILED, LOG, RUNNING, STATUSES
from mnist_exp.system import quoting

FOLDER = Path(__file__).parent
HTML = page.environment(FOLDER, page.FOLDER)
CODE = template.inside(
    [template.BASE, page.FOLDER / "page.css", FOLDER / "live.css"], [page.FOLDER / "page.js", FOLDER / "live.js"]
)
POLICY = "; ".join(
    [
        "default-src 'none'",
        "img-src data:",
        f"style-src '{template.digest(chr(10) + CODE['style'])}'",  # a line of its own in the page
        f"script-src '{CODE['script_digest']}'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
WIDTH, HEIGHT = 100, 24  # px of a small curve
RECENT = 5  # epochs, whose mean time is that of those to come


class Piece(NamedTuple):
    """The runs in one state, as a piece of the bar; fractions of its width."""

    state: str
    start: float
    width: float


class RunNow(NamedTuple):
    """A run that is running."""

    name: str
    done: int  # epochs
    epochs: int  # that it will have, unless patience ends it early
    accuracy: str  # validation, in percent, after the last epoch
    curve: str  # the points of validation accuracy by epoch, in px; empty before the second epoch
    to_go: str  # time


def now(found: Status) -> str:
    """Return what happens now, as HTML: how far the sweep is, which runs are running, and which have failed."""
    stage = found.stage
    shared = stage.shared_overrides
    lines = status_text.prospects(found)
    counted = next((line for line in lines if line.style), lines[0])
    running = [run for run in stage.runs if run.state == RUNNING]
    failed = sorted((run for run in stage.runs if run.state == FAILED), key=lambda run: run.job.ended or "")[::-1]
    together = Counter(run.job.process for run in running)
    workers = sorted(stage.workers, key=_rank)
    return HTML.get_template("now.html.j2").render(
        is_over=found.is_over,
        folder=found.folder,
        done=sum(stage.counts[state] for state in ENDED),
        all=stage.planned,
        counted=counted.text,
        others=[line.text for line in lines if line is not counted],
        pieces=_pieces(stage),
        running=[_run_now(stage, run, shared, together[run.job.process]) for run in running[: status_text.MOST]],
        running_in_all=len(running),
        failed=[
            (status_text.name_of(run, shared), quoting.shown(run.job.error or f"see {run.path / LOG}"))
            for run in failed[: status_text.MOST_FAILURES]
        ],
        failed_in_all=len(failed),
        workers=[
            (worker.state == ALIVE, status_text.about_worker(worker, stage.now))
            for worker in workers[: status_text.MOST]
        ],
        workers_in_all=len(workers),
        commands=[] if stage.is_worked_on else status_text.commands(found),
    )


def to_html(results: Results, light: Mapping[str, bytes], dark: Mapping[str, bytes], edition: int, over: bool) -> str:
    """Return the page, with server.NOW where `now` belongs.

    Args:
        results: The content.
        light: The figures for a light page, PNG by name.
        dark: The same figures for a dark page.
        edition: The number of the page, by which a browser knows whether it has the newest.
        over: Whether it is the last one.
    """
    shown = page.content(results, None, light, dark) | {
        "notes": sentences.facts(results),  # what is left to do, the section on top says
        "written": f"The report is that of {datetime.now():%H:%M:%S}.",
    }
    return HTML.get_template("live.html.j2").render(**shown, **CODE, now=Markup(NOW), edition=edition, over=over)


def _rank(worker: Worker) -> tuple[bool, float]:
    """Return what sorts those first that work, each in the place where it began, then those that were seen last."""
    return (False, worker.started) if worker.state == ALIVE else (True, -worker.seen)


def _pieces(stage: Stage) -> list[Piece]:
    """Return the pieces of the bar: what has ended first, what waits last."""
    pieces: list[Piece] = []
    counts, start = stage.counts, 0.0
    for state in dict.fromkeys((*ENDED, RUNNING, *STATUSES)):
        width = counts[state] / max(1, stage.planned)
        pieces.append(Piece(state, start, width))
        start += width
    return [piece for piece in pieces if piece.width]


def _run_now(stage: Stage, run: Run, shared: set[str], together: int) -> RunNow:
    """Return what a run does now; the seconds of its epochs are its share of those of `together` runs."""
    columns = metrics.read_columns(run.path / METRICS)
    accuracies, seconds = columns.get("val_accuracy", []), columns.get("seconds", [])
    epochs, done = int(stage.epochs(run)), len(accuracies)
    return RunNow(
        name=status_text.name_of(run, shared),
        done=done,
        epochs=epochs,
        accuracy=f"{100 * accuracies[-1]:.2f}" if accuracies else "",
        curve=_points(accuracies, epochs),
        to_go=status_text.duration((epochs - done) * together * fmean(seconds[-RECENT:])) if seconds else "",
    )


def _points(values: Sequence[float], epochs: int) -> str:
    """Return the points of a curve that has the whole width when all epochs are done."""
    finite = [(epoch, value) for epoch, value in enumerate(values) if isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(value for _, value in finite), max(value for _, value in finite)
    scale = (HEIGHT - 4) / ((high - low) or 1)
    return " ".join(
        f"{epoch / max(1, epochs - 1) * WIDTH:.1f},{HEIGHT - 2 - (value - low) * scale:.1f}" for epoch, value in finite
    )
