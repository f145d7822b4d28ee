"""The report as one HTML page that needs no network: page.html.j2 with page.css and page.js inside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from jinja2 import Environment
from markupsafe import Markup

from mnist_exp.report import figures, formats, search_sentences, sentences, tables, template
from mnist_exp.report.results import Results
from mnist_exp.report.runs import RunResult
from mnist_exp.report.tables import RunTable
from mnist_exp.report.text import written_at
from mnist_exp.store.metrics import METRICS

FOLDER = Path(__file__).parent
NO_BREAK_SPACE = "\u00a0"
PART = 200  # rows of a table that are HTML; the script makes the others, so many at once, as one scrolls to them
CURVES = 4_000_000  # characters: what the page holds of the curves of runs
MAX_FAILURES = 1_000  # rows


class Picture(NamedTuple):
    """A figure in both themes, of which the page shows one."""

    caption: str
    light: str  # PNG in base64
    dark: str


class Column(TypedDict):
    """A column of a table, for the page's script."""

    values: list[Any]  # different ones, or one for each row
    rows: NotRequired[list[int]]  # for each row the place of its value


class RunData(TypedDict):
    """What the page's script shows of a run. Accuracies are in percent; null stands for nan and infinity."""

    overrides: str
    results: str  # as a sentence
    error: str | None
    best: int | None  # epoch
    epochs: list[float | None]
    train_loss: list[float | None]
    train_accuracy: list[float | None]
    val_loss: list[float | None]
    val_accuracy: list[float | None]


def to_html(results: Results, out: Path, light: Mapping[str, bytes], dark: Mapping[str, bytes]) -> str:
    """Return report.html.

    Args:
        results: The content.
        out: The folder of the page, from which it links to the runs.
        light: The figures for a light page, PNG by name.
        dark: The same figures for a dark page.
    """
    code = template.inside([template.BASE, FOLDER / "page.css"], [FOLDER / "page.js"])
    return environment(FOLDER).get_template("page.html.j2").render(**content(results, out, light, dark), **code)


def environment(*folders: Path) -> Environment:
    """Return the environment of the page's template, and of those that extend it."""
    made = template.environment(*folders)
    made.filters["with_code"] = with_code
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return made


def content(
    results: Results, out: Path | None, light: Mapping[str, bytes], dark: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return what page.html.j2 shows, all but its style and its script.

    The arguments are those of `to_html`. A page in no folder, whose `out` is None, has no links to files.
    """
    headline, *others = sentences.answer(results)
    runs = tables.runs(results)
    long = {
        "leaderboard": tables.leaderboard(results),
        "comparisons": tables.comparisons(results),
        "search": tables.finalists(results),
    }
    failures = tables.failures(results)
    links = [tables.link(run, out) if out and _has_folder(run) else "" for run in results.runs[:PART]]
    details = _details(results)
    return {
        "title": sentences.title(results),
        "scope": sentences.scope(results),
        "notes": sentences.notes(results),
        "warnings": sentences.warnings(results),
        "headline": headline,
        "sentences": others,
        "leaderboard": long["leaderboard"],
        "ranking": sentences.ranking(results),
        "method": sentences.method(results),
        "comparisons": long["comparisons"],
        "about_comparisons": sentences.about_comparisons(results),
        "finalists": long["search"],
        "search_sentences": search_sentences.searched(results),
        "importance": tables.importance(results),
        "about_importance": search_sentences.IMPORTANCE,
        "pictures": [
            Picture(figures.CAPTIONS[name], template.to_base64(png), template.to_base64(dark[name]))
            for name, png in light.items()
        ],
        "progress": sentences.progress(results.runs),
        "statuses": Counter(run.job.status for run in results.runs),
        "runs": runs,
        "links": links,
        "has_links": out is not None,
        "part": PART,
        "with_curves": formats.count(len(details), "run"),
        "failures": failures._replace(rows=failures.rows[:MAX_FAILURES]),
        "failures_in_all": len(failures.rows),
        "provenance": tables.provenance(results),
        "written": written_at(),
        "data": {
            "runs": details,
            "more": _more_runs(results, runs, out),
            "tables": {name: _columns(table.rows[PART:]) for name, table in long.items() if table.rows[PART:]},
        },
    }


def with_code(sentence: str) -> Markup:
    """Return a sentence as HTML: what stands in backticks is code, and no line breaks before a unit."""
    for unit in ("%", "pp"):
        sentence = sentence.replace(f" {unit}", NO_BREAK_SPACE + unit)
    parts = sentence.split("`")
    if len(parts) % 2 == 0:  # the last backtick opens nothing
        parts[-2:] = ["`".join(parts[-2:])]
    marked = (Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))
    return Markup("").join(marked)


def _details(results: Results) -> dict[int, RunData]:
    """Return what the script shows of runs, by their place: of all that the page has room for, the best arms first."""
    place_of_job = {id(run.job): place for place, run in enumerate(results.runs)}
    ranked = [run for arm in (*results.arms, *results.without_results) for run in (*arm.runs, *arm.failed)]
    places = [place for run in ranked if (place := place_of_job.get(id(run.job))) is not None]
    found: dict[int, RunData] = {}
    room = CURVES
    for place in dict.fromkeys([*places, *range(len(results.runs))]):
        found[place] = _run_data(results.runs[place])
        room -= len(json.dumps(found[place]))
        if room < 0:
            break
    return found


def _more_runs(results: Results, table: RunTable, out: Path | None) -> dict[str, Any]:
    """Return the rows of the table of all runs that are not HTML; nothing if there are none."""
    rows, runs = table.rows[PART:], results.runs[PART:]
    if not rows:
        return {}
    cells = (
        [row.number, *row.choices, row.seed, row.status, *([row.tags] if table.has_tags else []), *row.values]
        for row in rows
    )
    return {
        "columns": _columns(cells),
        "marks": _column([tuple(row.marks) for row in rows]),
        "sweep": _column([tables.link_to(run.sweep, out) if out else "" for run in runs]),
        "has_folder": _column([int(out is not None and _has_folder(run)) for run in runs]),
    }


def _has_folder(run: RunResult) -> bool:
    """Return whether there is something to see in the folder of a run."""
    return run.is_as_recorded or (run.folder / METRICS).is_file()


def _columns(rows: Iterable[Sequence[str]]) -> list[Column]:
    return [_column(column) for column in zip(*rows, strict=True)]


def _column(cells: Sequence[Hashable]) -> Column:
    """Return a column in the shorter one of its two forms."""
    place_of_value = {value: place for place, value in enumerate(dict.fromkeys(cells))}
    if 2 * len(place_of_value) > len(cells):
        return {"values": list(cells)}
    return {"values": list(place_of_value), "rows": [place_of_value[cell] for cell in cells]}


def _run_data(run: RunResult) -> RunData:
    def column(name: str, scale: int = 1) -> list[float | None]:
        return [_finite(scale * value) for value in run.curves.get(name, ())]

    return {
        "overrides": " ".join(run.job.overrides),
        "results": _describe(run).replace(" %", f"{NO_BREAK_SPACE}%"),
        "error": run.job.error,
        "best": run.summary["best_epoch"],
        "epochs": column("epoch"),
        "train_loss": column("train_loss"),
        "train_accuracy": column("train_accuracy", 100),
        "val_loss": column("val_loss"),
        "val_accuracy": column("val_accuracy", 100),
    }


def _describe(run: RunResult) -> str:
    """Return the results of a run in words; nothing if it has none."""
    summary = run.summary
    val, test = summary["best_val_accuracy"], summary["test_accuracy"]
    if val is None or test is None:
        return ""
    words = f"validation {formats.percent(val)} at epoch {summary['best_epoch']}"
    words += f"; test {formats.percent(test)}, {summary['test_errors']} misses"
    if summary["stopped"]:
        words += f"; stopped early ({summary['stopped']}), after epoch {summary['epochs']}"
    return words


def _finite(value: float) -> float | None:
    """Return five digits, which are enough for a curve; None for nan and infinity, which JSON can't express."""
    return float(f"{value:.5g}") if isfinite(value) else None
