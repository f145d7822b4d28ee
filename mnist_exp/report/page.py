"""The report as one HTML page that needs no network: page.html.j2 with page.css and page.js inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import NamedTuple, TypedDict

from markupsafe import Markup

from mnist_exp.report import figures, formats, sentences, tables, template
from mnist_exp.report.results import Results, RunResult
from mnist_exp.report.text import written_at

FOLDER = Path(__file__).parent
NO_BREAK_SPACE = "\u00a0"


class Picture(NamedTuple):
    """A figure in both themes, of which the page shows one."""

    caption: str
    light: str  # PNG in base64
    dark: str


class RunData(TypedDict):
    """What the page's script shows of a run. Accuracies are in percent; null stands for nan and infinity."""

    number: int
    folder: str  # relative URL
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
    environment = template.environment(FOLDER)
    environment.filters["with_code"] = with_code
    headline, *others = sentences.answer(results)
    return environment.get_template("page.html.j2").render(
        title=sentences.title(results),
        scope=sentences.scope(results),
        notes=sentences.notes(results),
        warnings=sentences.warnings(results),
        headline=headline,
        sentences=others,
        leaderboard=tables.leaderboard(results),
        ranking=sentences.ranking(results),
        method=sentences.method(results),
        comparisons=tables.comparisons(results),
        about_comparisons=sentences.about_comparisons(results),
        learning_rates=tables.learning_rates(results),
        rate_sentences=sentences.learning_rates(results),
        finalists=tables.finalists(results),
        search_sentences=sentences.searched(results),
        importance=tables.importance(results),
        about_importance=sentences.IMPORTANCE,
        pictures=[
            Picture(figures.CAPTIONS[name], template.to_base64(png), template.to_base64(dark[name]))
            for name, png in light.items()
        ],
        progress=sentences.progress(results.runs),
        statuses=Counter(run.job.status for run in results.runs),
        runs=tables.runs(results),
        failures=tables.failures(results),
        provenance=tables.provenance(results),
        written=written_at(),
        data=[_run_data(run, out) for run in results.runs],
        **template.inside([template.BASE, FOLDER / "page.css"], [FOLDER / "page.js"]),
    )


def with_code(sentence: str) -> Markup:
    """Return a sentence as HTML: what stands in backticks is code, and no line breaks before a unit."""
    for unit in ("%", "pp"):
        sentence = sentence.replace(f" {unit}", NO_BREAK_SPACE + unit)
    parts = sentence.split("`")
    if len(parts) % 2 == 0:  # the last backtick opens nothing
        parts[-2:] = ["`".join(parts[-2:])]
    marked = (Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))
    return Markup("").join(marked)


def _run_data(run: RunResult, out: Path) -> RunData:
    def column(name: str, scale: int = 1) -> list[float | None]:
        return [_finite(scale * value) for value in run.curves.get(name, ())]

    return {
        "number": run.job.number,
        "folder": tables.link(run, out),
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
