"""The report as text: results.csv, report.md, and the short form for a terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mnist_exp.report import figures, search_sentences, sentences, tables
from mnist_exp.report.labels import format_value
from mnist_exp.report.results import Results
from mnist_exp.report.runs import COLUMNS, MEASURED
from mnist_exp.report.tables import Table
from mnist_exp.system import quoting

MAX_ROWS = 10  # of the leaderboard in a terminal
MIN_WIDTH = 16  # of a column of text, which is wrapped
GAP = 2  # between columns
MAX_TABLE = 200  # rows of a table in report.md
UNLIMITED = 100_000  # columns: wider than any line


def to_csv(results: Results) -> str:
    """Return results.csv: every run, with all digits."""
    several, shown = len(results.folders) > 1, results.shown
    file = io.StringIO()
    writer = csv.writer(file)
    header = ["number", "config_id", *shown, "seed", "status", *COLUMNS]
    header += ["failure", "error", "stopped", "tags", *MEASURED]
    writer.writerow(["sweep", *header] if several else header)
    for run in results.runs:
        job = run.job
        summary: Mapping[str, Any] = run.summary
        choices = [format_value(job.choices[key]) if key in job.choices else "" for key in shown]
        values = [summary[key] for key in COLUMNS.values()]
        row = [job.number, job.config_id, *choices, job.seed, job.status, *values]
        row += [job.failure, job.error, summary["stopped"], tables.tags(run)]
        row += [run.measured.get(column) for column in MEASURED]
        writer.writerow([run.sweep, *row] if several else row)
    return file.getvalue()


def to_markdown(results: Results, pictures: Sequence[str]) -> str:
    """Return report.md.

    Args:
        results: The content.
        pictures: The names of the figures in plots/.
    """
    headline, *others = sentences.answer(results)
    parts = [
        f"# {_escape(sentences.title(results))}",
        f"{sentences.scope(results)}; {sentences.progress(results.runs)}.",
    ]
    parts += [f"> {note}" for note in sentences.notes(results)]
    parts += [f"> **Take care**: {_escape(warning)}" for warning in sentences.warnings(results)]
    parts += [f"**{headline}**", "\n".join(f"- {sentence}" for sentence in others)]
    if (leaderboard := tables.leaderboard(results)).rows:
        about = f"{sentences.ranking(results)} {sentences.method(results)}"
        parts += ["## Leaderboard", _markdown_table(leaderboard), about]
    if (comparisons := tables.comparisons(results)).rows:
        parts += ["## Comparisons with the leader", _markdown_table(comparisons), sentences.about_comparisons(results)]
    if results.search:
        parts += ["## Search", "\n".join(f"- {sentence}" for sentence in search_sentences.searched(results))]
        parts += [_markdown_table(tables.finalists(results))]
        if (importance := tables.importance(results)).rows:
            parts += [_markdown_table(importance), search_sentences.IMPORTANCE]
    if pictures:
        parts += ["## Figures", *(f"![{_escape(figures.CAPTIONS[name])}](plots/{quote(name)})" for name in pictures)]
    if (failures := tables.failures(results)).rows:
        parts += ["## Failures", _markdown_table(failures)]
    parts.append("## Provenance")
    for heading, facts in tables.provenance(results):
        parts += [f"**{_escape(heading)}**", "\n".join(f"- {key}: {_escape(value)}" for key, value in facts)]
    parts.append(
        f"{written_at()} All runs: [results.csv](results.csv), and with their curves [report.html](report.html)."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def to_terminal(results: Results, width: int | None = None, color: bool = False) -> str:
    """Return the short form of the report: the top of the leaderboard, the answer, and what went wrong.

    Args:
        results: The content.
        width: Wrap lines that are longer. None leaves every line whole, so that a pipe or a log can be searched.
        color: Whether to style the text with ANSI escape codes.
    """
    file = io.StringIO()
    console = Console(
        file=file,
        width=width or UNLIMITED,
        color_system="standard" if color else None,
        force_terminal=color,
        highlight=False,
        legacy_windows=False,
    )
    count = len(results.compared) + len(results.failing)
    if count:
        console.print(_leaderboard(results, console.width), crop=False)
    if count > MAX_ROWS:
        console.print(f"... and {count - MAX_ROWS:,} more arms")
    headline, *_ = sentences.answer(results)
    styled = [
        (sentences.progress(results.runs), ""),
        *((warning, "yellow") for warning in sentences.warnings(results)),
        *((sentence, "") for sentence in search_sentences.searched(results)),
        (headline, "bold"),
        *((sentence, "") for sentence in sentences.advice(results)),
    ]
    for sentence, style in styled:
        console.print(Text(quoting.shown(sentence.replace("`", "")), style))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def written_at() -> str:
    """Return when the report was written, as a sentence."""
    return f"Written {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."


class _Column(NamedTuple):
    header: str
    cells: Sequence[str]
    is_text: bool

    @property
    def width(self) -> int:
        return max(cell_len(line) for text in (self.header, *self.cells) for line in text.splitlines() or [""])

    @property
    def min_width(self) -> int:
        """The width at which the column is still readable: a number is not wrapped."""
        return min(self.width, MIN_WIDTH) if self.is_text else self.width

    def narrow(self) -> _Column:
        return self._replace(header=self.header.replace(" (", "\n("))


def _leaderboard(results: Results, width: int) -> rich_table.Table:
    """Return the top of the leaderboard with as many columns as fit."""
    table = tables.leaderboard(results)
    cells = zip(*([quoting.shown(cell) for cell in row] for row in table.rows[:MAX_ROWS]), strict=True)
    columns = [
        _Column(quoting.shown(header), column, header in table.text_columns)
        for header, column in zip(table.headers, cells, strict=True)
    ]
    columns = columns[:-1] if tables.BALANCED in table.headers else columns
    rank, *keys, seeds, val, interval, verdict, _sd, _best, _worst, test, _misses = columns
    arms = [*results.compared, *results.failing][:MAX_ROWS]
    arm = _Column("arm", [quoting.shown(arm.label) for arm in arms], is_text=True)
    val_below, test_below = val.narrow(), test.narrow()
    layouts = [
        [rank, *keys, seeds, val, interval, verdict, test],
        [rank, arm, seeds, val_below, interval, verdict, test_below],
        [rank, arm, val_below, interval, verdict],
        [rank, arm, val_below, verdict],
    ]
    layout = next((each for each in layouts if _min_width(each) <= width), layouts[-1])
    grid = rich_table.Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in layout:
        justify: Literal["left", "right"] = "left" if column.is_text else "right"
        grid.add_column(
            Text(column.header),
            justify=justify,
            no_wrap=not column.is_text,
            min_width=None if column.is_text else column.width,
            overflow="fold",
        )
    for rank_of_row, row in zip(rank.cells, zip(*(column.cells for column in layout), strict=True), strict=True):
        grid.add_row(*map(Text, row), style="" if rank_of_row else "dim")
    return grid


def _min_width(columns: Sequence[_Column]) -> int:
    return sum(column.min_width for column in columns) + GAP * (len(columns) - 1)


def _markdown_table(table: Table) -> str:
    rule = [":--" if header in table.text_columns else "--:" for header in table.headers]
    rows = [[_escape(cell) for cell in row] for row in [table.headers, *table.rows[:MAX_TABLE]]]
    text = "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
    if len(table.rows) > MAX_TABLE:
        text += f"\n\nThe first {MAX_TABLE} of {len(table.rows):,} rows; report.html has all."
    return text


def _escape(text: str) -> str:
    """Return text without meaning in Markdown, on one line."""
    return re.sub(r"([\\`*\[\]|<&])", r"\\\1", " ".join(text.split()))
