"""Writes the report on one or more sweeps: results.csv, report.md, report.html and the figures in plots/.

A report by another measure than accuracy lies in a folder of its own, within that of the report by accuracy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_exp.report import figures
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.page import to_html
from mnist_exp.report.results import Results, read
from mnist_exp.report.text import to_csv, to_markdown, to_terminal
from mnist_exp.system import files
from mnist_exp.system.collector import without_collector
from mnist_exp.system.errors import ConfigError


def write(folders: Sequence[Path], out: Path | None = None, by: str = ACCURACY.name) -> str:
    """Write the report on sweeps, finished or not.

    Args:
        folders: The folders of the sweeps. One that is named twice counts once.
        out: The folder of the report; by default that of the sweep, if it is one.
        by: The name of the measure by which the arms are ranked and compared.

    Returns:
        The short form of the report and the path of the page, as plain text for a log.

    Raises:
        ConfigError: A folder is not a sweep, several sweeps have no `out`, or there is no such measure of the runs.
        OSError: A file can't be written.
    """
    results, page = _write_files(folders, out, by)
    return f"{to_terminal(results)}\n{page}"


def write_and_print(folders: Sequence[Path], out: Path | None = None, by: str = ACCURACY.name) -> None:
    """Write the report as `write` does, and print its short form.

    In a terminal, lines are wrapped at its width; colour follows NO_COLOR and TERM. A pipe gets whole lines.
    """
    from rich.console import Console

    results, page = _write_files(folders, out, by)
    console = Console()  # knows NO_COLOR, TERM and COLUMNS
    width = console.width if sys.stdout.isatty() else None
    print(to_terminal(results, width, color=console.color_system is not None and not console.no_color))
    print(page)


def folder_of(measure: Measure) -> str:
    """Return the name of the folder of the report by a measure; "" for accuracy."""
    return "" if measure is ACCURACY else "by_" + re.sub(r"\W+", "_", measure.name)


@without_collector()  # of 100,000 runs nothing is garbage before the end, and looking takes a sixth of the time
def _write_files(folders: Sequence[Path], out: Path | None, by: str) -> tuple[Results, Path]:
    folders = list(dict.fromkeys(folders))
    if out is None and len(folders) > 1:
        raise ConfigError("several sweeps: --out DIR says where their report goes")
    results = read(folders, by)
    out = (out or folders[0]) / folder_of(results.measure)
    light, dark = (figures.draw(results, dark) for dark in (False, True))
    (out / "plots").mkdir(parents=True, exist_ok=True)
    for name, picture in light.items():
        files.write(out / "plots" / name, picture)
    page = out / "report.html"
    texts = {
        out / "results.csv": to_csv(results),
        out / "report.md": to_markdown(results, list(light)),
        page: to_html(results, out, light, dark),
    }
    for path, text in texts.items():  # the name of a folder may not be valid text
        files.write(path, text.encode(errors="backslashreplace"))
    return results, page
