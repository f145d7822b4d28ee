"""The report on one or more sweeps: results.csv, report.md, report.html and its pictures; any time, also meanwhile.

python -m mnist_exp.report.report FOLDER [FOLDER ...] [--out DIR]
"""

from __future__ import annotations

if __name__ == "__main__":
    import mnist_exp.system.startup  # noqa: F401  # before all else: Ctrl-C is one line from here on

import argparse
import base64
import csv
import hashlib
import io
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from math import isfinite, isnan
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote

from mnist_exp.report import figures, lr_search, sentences
from mnist_exp.report.results import Results, Run, causes, read, seconds, spell
from mnist_exp.system import errors, files
from mnist_exp.system.errors import ConfigError

TEMPLATE = Path(__file__).with_name("page.html")
NEAR = 0.005  # of the best rate's accuracy: how many rates would have done as well, nearly
TOP = 10  # rows of the leaderboard in a terminal
CURVES = {"train_loss": 1, "train_accuracy": 100, "val_loss": 1, "val_accuracy": 100}  # to what the page shows
FIGURES = {  # columns of results.csv: keys of summary.json
    "parameters": "parameters",
    "best_epoch": "best_epoch",
    "val_loss": "best_val_loss",
    "val_accuracy": "best_val_accuracy",
    "test_loss": "test_loss",
    "test_accuracy": "test_accuracy",
    "test_misses": "test_errors",
    "seconds": "seconds",
}
COLUMNS = {  # of the page's table of runs: keys of summary.json, what to multiply them by, and their form
    "validation (%)": ("best_val_accuracy", 100, ".2f"),
    "loss": ("best_val_loss", 1, ".4f"),
    "test (%)": ("test_accuracy", 100, ".2f"),
    "misses": ("test_errors", 1, "d"),
    "best epoch": ("best_epoch", 1, "d"),
    "seconds": ("seconds", 1, ".1f"),
}


class Table(NamedTuple):
    """Headers and cells as text. The columns named in `words` hold words, the others numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str]


def write(folders: Sequence[Path], out: Path | None = None) -> str:
    """Report on sweeps, finished or not, and return the short form for a terminal.

    The files go into `out`; for a single sweep that is its own folder unless told otherwise. Raises ConfigError for
    folders that are no sweeps, and OSError.
    """
    folders = list(dict.fromkeys(folders))
    if out is None and len(folders) > 1:
        raise ConfigError("several sweeps: say where the report on them goes, with --out DIR")
    out = out or folders[0]
    results = read(folders)
    light, dark = (figures.draw(results, dark) for dark in (False, True))
    (out / "plots").mkdir(parents=True, exist_ok=True)
    for name, picture in light.items():
        files.write(out / "plots" / name, picture)
    texts = {
        "results.csv": to_csv(results),
        "report.md": to_markdown(results, list(light)),
        "report.html": to_html(results, out, light, dark),
    }
    for name, text in texts.items():  # a folder's name may hold what is no text
        files.write(out / name, text.encode(errors="backslashreplace"))
    return f"{to_terminal(results)}\n{out / 'report.html'}"


def to_csv(results: Results) -> str:
    """Every run, in full precision."""
    several = len(results.folders) > 1
    file = io.StringIO()
    lines = csv.writer(file)
    heads = [*["sweep"] * several, "number", "config_id", *results.swept, "seed", "status", *FIGURES]
    lines.writerow([*heads, "failure", "error", "stopped", "tags"])
    for run in results.runs:
        job = run.job
        choices = [spell(job.choices.get(key)) for key in results.swept]
        figures = [run.summary.get(key) for key in FIGURES.values()]
        sweep = [str(run.sweep)] * several
        ends = [job.failure, job.error, run.summary.get("stopped"), _tags(run)]
        lines.writerow([*sweep, job.number, job.config_id, *choices, job.seed, job.status, *figures, *ends])
    return file.getvalue()


def to_terminal(results: Results) -> str:
    """The leaderboard's top, the answer, and what went wrong."""
    table = leaderboard(results)
    short = [i for i, header in enumerate(table.headers) if header not in ("sd (pp)", "best", "worst", "test misses")]
    cells = [[row[i] for i in short] for row in [table.headers, *table.rows[:TOP]]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<" if table.headers[i] in table.words else ">" for i in short]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells[: len(cells) if table.rows else 0]
    ]
    if len(table.rows) > TOP:
        lines.append(f"... and {len(table.rows) - TOP:,} more arms")
    told = [
        sentences.progress(results.runs),
        *sentences.warnings(results),
        *sentences.trials(results),
        sentences.answer(results)[0],
        *sentences.advice(results),
    ]
    return "\n".join([*lines, *(line.replace("`", "") for line in told)])


def to_markdown(results: Results, pictures: Sequence[str]) -> str:
    """The report as text."""
    headline, *others = sentences.answer(results)
    parts = [
        f"# {_markdown(sentences.title(results))}",
        f"{sentences.scope(results)}; {sentences.progress(results.runs)}.",
    ]
    parts += [f"> {note}" for note in sentences.notes(results)]
    parts += [f"> **Take care**: {_markdown(warning)}" for warning in sentences.warnings(results)]
    parts += [f"**{headline}**", "\n".join(f"- {sentence}" for sentence in others)]
    if leaderboard(results).rows:
        parts += [
            "## Leaderboard",
            _markdown_table(leaderboard(results)),
            f"{sentences.ranking(results)} {sentences.METHOD}",
        ]
    if results.trials:
        parts += ["## Learning rates", *sentences.trials(results), _markdown_table(learning_rates(results))]
    if pictures:
        parts += ["## Pictures", *(f"![{_markdown(figures.CAPTIONS[name])}](plots/{quote(name)})" for name in pictures)]
    if failures(results).rows:
        parts += ["## Failures", _markdown_table(failures(results))]
    parts.append("## Provenance")
    for heading, facts in provenance(results):
        parts += [f"**{_markdown(heading)}**", "\n".join(f"- {key}: {_markdown(value)}" for key, value in facts)]
    parts.append(
        f"{_written()} All runs: [results.csv](results.csv), and with their curves [report.html](report.html)."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(results: Results, out: Path, light: Mapping[str, bytes], dark: Mapping[str, bytes]) -> str:
    """The report as one page that needs no network."""
    template = TEMPLATE.read_text(encoding="utf-8")
    headline, *others = sentences.answer(results)
    statuses = Counter(run.job.status for run in results.runs)
    notices = [("note", note) for note in sentences.notes(results)] + [
        ("warning", it) for it in sentences.warnings(results)
    ]
    parts = {
        "title": escape(sentences.title(results)),
        "scope": escape(sentences.scope(results)),
        "notices": "".join(f'<div class="{kind}"><p>{_marked_up(text)}</p></div>' for kind, text in notices),
        "headline": _marked_up(headline),
        "sentences": "".join(f"<li>{_marked_up(sentence)}</li>" for sentence in others),
        "ranking": _marked_up(sentences.ranking(results)),
        "method": _marked_up(sentences.METHOD),
        "leaderboard": _html_table(leaderboard(results)),
        "trials": " ".join(map(_marked_up, sentences.trials(results))),
        "learning_rates": _html_table(learning_rates(results)),
        "pictures": "".join(_figure(name, light[name], dark[name]) for name in light),
        "progress": sentences.progress(results.runs),
        "statuses": "".join(f'<option value="{status}">{status} ({n})</option>' for status, n in statuses.items()),
        "runs": _runs(results, out),
        "failures": _html_table(failures(results)),
        "provenance": "".join(_html_facts(heading, facts) for heading, facts in provenance(results)),
        "written": _written(),
        "data": json.dumps([_on_the_page(run, out) for run in results.runs]).replace("<", r"\u003c"),
        "digest": _digest(template),
    }
    kept = re.sub(r"(?s)\{\{#(\w+)}}(.*?)\{\{/\1}}", lambda part: part[2] if parts[part[1]] else "", template)
    return re.sub(r"\{\{(\w+)}}", lambda gap: parts[gap[1]], kept)


def leaderboard(results: Results) -> Table:
    """The arms, ranked by validation; after them those of which runs failed by their own doing."""
    arms = [*results.compared, *results.failing]
    keys = list(dict.fromkeys(key for arm in arms for key in arm.choices))
    headers = ["rank", *keys, "seeds", "validation (%)", "95 % interval", "against the leader"]
    headers += ["sd (pp)", "best", "worst", "test (%)", "test misses"]
    rows = []
    for rank, (arm, verdict) in enumerate(zip(arms, sentences.verdicts(results), strict=True), start=1):
        val = arm.val
        row = ["" if arm.failed else str(rank), *(arm.choices.get(key, "") for key in keys), arm.seeds]
        row += [
            _hundredths(val.mean),
            sentences.interval(val),
            verdict,
            *map(_hundredths, (val.sd, val.best, val.worst)),
        ]
        rows.append([*row, _hundredths(arm.test.mean), _number(arm.misses, ".1f")])
    return Table(headers, rows, [*keys, "against the leader"])


def learning_rates(results: Results) -> Table:
    """What each arm's trials found; nothing where there were none."""
    headers = ["arm", "rates tried", "chosen", "validation (%)", f"within {100 * NEAR:g} pp", "failed", "time"]
    rows = []
    for it in lr_search.searches(results.trials) if results.trials else ():
        near = sum(arm.val.mean >= it.reached - NEAR for arm in it.arms)
        tried = f"{it.rates[0]:g} to {it.rates[-1]:g}"
        row = [it.label, tried, _number(it.chosen, "g"), _hundredths(it.reached), f"{near} of {len(it.rates)}"]
        rows.append([*row, causes(it.failed), sentences.clock(it.seconds)])
    return Table(headers, rows, ["arm"])


def failures(results: Results) -> Table:
    """The jobs that failed or were interrupted, with the command that runs each again."""
    headers = ["run", "status", "reason", "the command that runs it alone"]
    rows = [
        [str(run.job.number), run.job.status, run.job.error or "", sentences.again(run)]
        for run in results.runs
        if run.job.status in ("failed", "interrupted")
    ]
    return Table(headers, rows, headers[1:])


def provenance(results: Results) -> list[tuple[str, list[tuple[str, str]]]]:
    """Where the figures come from: the data and the time, then each command with its code and machine."""
    contents = sorted({_data(run) for arm in results.arms for run in arm.runs})
    facts = [("folder", str(folder.resolve())) for folder in results.folders]
    facts += [("data", content) for content in contents]
    facts += [("time in runs", f"{sentences.clock(seconds(results.runs))} (h:mm:ss), of all runs together")]
    told = [("Sweep" if len(results.folders) == 1 else "Sweeps", facts)]
    for i, session in enumerate(results.sessions, start=1):
        facts = [
            ("begun", str(session.get("time"))[:19].replace("T", " ")),
            ("command", str(session.get("command"))),
            ("commit", _commit(session.get("git"))),
            ("versions", _pairs(session.get("versions"))),
            ("machine", _pairs(session.get("machine")) or "not recorded"),
        ]
        if session.get("allow_changed"):
            facts.append(("changes", "it had leave to go on although code, packages or data had changed"))
        told.append((f"Command {i} of {len(results.sessions)}" if len(results.sessions) > 1 else "Command", facts))
    return told


def differing(runs: Sequence[Run]) -> list[str]:
    """For each run the versions that it does not share with most others, such as "torch 2.13.0"."""
    found = [run.summary.get("versions") or {} for run in runs]
    counts = Counter(pair for versions in found for pair in versions.items())
    usual = {package: version for (package, version), _ in reversed(counts.most_common())}
    return [_pairs({k: v for k, v in versions.items() if v != usual[k]}) for versions in found]


def _runs(results: Results, out: Path) -> str:
    """The table of all runs; its rows know their place in the page's data."""
    keys = [*["sweep"] * (len(results.folders) > 1), *results.swept]
    tags = ["tags"] * any(map(_tags, results.runs))
    table = Table(["run", *keys, "seed", "status", *tags, *COLUMNS], [], [*keys, "status", "tags"])
    rows = []
    for i, (run, other) in enumerate(zip(results.runs, differing(results.runs), strict=True)):
        job, number, status = run.job, escape(str(run.job.number)), escape(run.job.status)
        link = f'href="{escape(_link(run, out))}"' if run.curves else 'tabindex="0"'
        marks = "".join(f' <span class="mark">{escape(mark)}</span>' for mark in (job.failure, other) if mark)
        choices = {"sweep": str(run.sweep)} | {key: spell(job.choices.get(key)) for key in results.swept}
        cells = [
            f"<a {link}>{number}</a>",
            *(escape(choices[key]) for key in keys),
            escape(str(job.seed)),
            f'<span class="status {status}">{status}</span>{marks}',
            *(escape(_tags(run)) for _ in tags),
            *(_number(run.summary.get(key), form, scale) for key, scale, form in COLUMNS.values()),
        ]
        rows.append(f'<tr data-run="{i}" data-status="{status}">{_cells(table, cells)}</tr>')
    buttons = (f'<button type="button">{escape(header)}</button>' for header in table.headers)
    return _table(_cells(table, buttons, 'th aria-sort="none"'), rows)


def _on_the_page(run: Run, out: Path) -> dict[str, Any]:
    """What the page's script shows of a run; accuracies in percent, null for what is no number."""
    summary, figures = run.summary, ""
    if summary.get("test_accuracy") is not None:
        validation, test = (sentences.percent(summary[key]) for key in ("best_val_accuracy", "test_accuracy"))
        figures = (
            f"validation {validation} at epoch {summary['best_epoch']}; test {test}, {summary['test_errors']} misses"
        )
        if summary.get("stopped"):
            figures += f"; stopped early ({summary['stopped']}), after epoch {summary['epochs']}"
    return {
        "number": run.job.number,
        "folder": _link(run, out),
        "overrides": " ".join(run.job.overrides),
        "figures": figures.replace(" %", "\u00a0%"),
        "error": run.job.error,
        "best": summary.get("best_epoch"),
        "epochs": run.curves.get("epoch", []),
        **{key: [_finite(scale * value) for value in run.curves.get(key, [])] for key, scale in CURVES.items()},
    }


def _html_table(table: Table) -> str:
    """A table, or nothing where it has no rows."""
    rows = [f"<tr>{_cells(table, map(escape, row))}</tr>" for row in table.rows]
    return _table(_cells(table, map(escape, table.headers), "th"), rows) if rows else ""


def _table(heads: str, rows: Sequence[str]) -> str:
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cells(table: Table, cells: Iterable[str], tag: str = "td") -> str:
    """A row's cells, words to the left."""
    kinds = (' class="left"' if header in table.words else "" for header in table.headers)
    return "".join(f"<{tag}{kind}>{cell}</{tag[:2]}>" for kind, cell in zip(kinds, cells, strict=True))


def _html_facts(heading: str, facts: Sequence[tuple[str, str]]) -> str:
    pairs = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in facts)
    return f"<h3>{escape(heading)}</h3><dl>{pairs}</dl>"


def _figure(name: str, light: bytes, dark: bytes) -> str:
    """A picture in both themes, one of which the page shows."""
    caption = escape(figures.CAPTIONS[name])
    images = (
        f'<img class="{theme}" alt="{caption}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for theme, picture in (("light", light), ("dark", dark))
    )
    box = f'<div class="picture">{"".join(images)}</div>'
    return f"<figure>{box}<figcaption>{caption}</figcaption></figure>"


def _marked_up(sentence: str) -> str:
    """A sentence as HTML, with what stands in backticks as code."""
    units = re.sub(r" (%|pp)", r"&nbsp;\1", escape(sentence))
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", units)


def _digest(template: str) -> str:
    """The hash by which a page allows its own script and no other."""
    script = template.partition("<script>")[2].partition("</script>")[0]
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _markdown_table(table: Table) -> str:
    rule = [":--" if header in table.words else "--:" for header in table.headers]
    rows = [[_markdown(cell) for cell in row] for row in [table.headers, *table.rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def _markdown(text: str) -> str:
    """Text that means nothing else in Markdown."""
    return re.sub(r"([\\`*\[\]|<&])", r"\\\1", " ".join(text.split()))


def _link(run: Run, out: Path) -> str:
    """From the report to a run's folder."""
    return quote(os.fsencode(Path(os.path.relpath(run.folder, out)).as_posix())) + "/"


def _hundredths(fraction: float) -> str:
    """In percent: 0.97864 -> "97.86"; empty for nan."""
    return _number(fraction, ".2f", 100)


def _number(value: float | None, form: str, scale: int = 1) -> str:
    """A figure, or nothing for one that is not known."""
    return "" if value is None or isnan(value) else format(scale * value, form)


def _finite(value: float) -> float | None:
    """Five digits, enough for a curve; None for what JSON has no number for."""
    return float(f"{value:.5g}") if isfinite(value) else None


def _tags(run: Run) -> str:
    """What the user calls a run; one with a blank in it stands in quotes."""
    return shlex.join(map(str, run.summary.get("tags") or ()))


def _data(run: Run) -> str:
    return f"{run.summary['data']['name']}, SHA-256 {run.summary['data']['sha256']}"


def _commit(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "not in a git repository"
    return f"{git['commit']}, {'with' if git['dirty'] else 'without'} uncommitted changes"


def _pairs(facts: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (facts or {}).items()) or ""


def _written() -> str:
    return f"Written {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the rest of this program does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; python -m mnist_exp.report.report --help says more")


def main(arguments: Sequence[str] | None = None) -> None:
    """What `python -m mnist_exp.report.report` does."""
    parser = _Parser(prog="python -m mnist_exp.report.report", description="Report on sweeps, finished or not.")
    parser.add_argument(
        "folders", metavar="FOLDER", nargs="+", type=Path, help="such as multirun/2026-11-23/10-00-00-000000"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the report goes; for one sweep its own folder")
    options = parser.parse_args(arguments)
    print(write(options.folders, options.out))


if __name__ == "__main__":
    with errors.in_one_line():
        main()
