"""The tables and lists of a report, as text without any markup."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from urllib.parse import quote

from mnist_exp.report import formats, search, sentences, verdicts
from mnist_exp.report.labels import format_value
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.results import Arm, Results
from mnist_exp.report.runs import RunResult, total_seconds
from mnist_exp.report.stats import Estimate
from mnist_exp.store import run_folder

BALANCED = "test, balanced (%)"  # the header of a column that only data with classes of different sizes has


class Table(NamedTuple):
    """Headers and cells."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Sequence[str]  # the headers of columns that hold text; the others hold numbers


class RunRow(NamedTuple):
    """A row of the table of all runs."""

    number: str
    choices: list[str]  # of the swept keys, and before these the sweep if there are several
    seed: str
    status: str
    marks: list[str]  # how the run failed, and versions that most runs do not share
    tags: str
    values: list[str]  # of VALUES


class RunTable(NamedTuple):
    """The table of all runs."""

    choices: list[str]  # headers
    has_tags: bool
    values: list[str]  # headers
    rows: list[RunRow]


class Facts(NamedTuple):
    """A list of facts with its heading."""

    heading: str
    facts: list[tuple[str, str]]


class Value(NamedTuple):
    """How the table of all runs shows a value of summary.json."""

    header: str
    key: str
    format: str
    scale: int = 1


VALUES = (
    Value("validation (%)", "best_val_accuracy", ".2f", 100),
    Value("loss", "best_val_loss", ".4f"),
    Value("test (%)", "test_accuracy", ".2f", 100),
    Value("misses", "test_errors", "d"),
    Value("best epoch", "best_epoch", "d"),
    Value("seconds", "seconds", ".1f"),
)


def values(results: Results) -> list[Value]:
    """Return what the table of all runs shows."""
    balanced = [Value(BALANCED, "test_balanced_accuracy", ".2f", 100)] if _has_imbalance(results) else []
    return [*VALUES[:3], *balanced, *VALUES[3:]]


def _has_imbalance(results: Results) -> bool:
    """Return whether a run's classes differ so much in size that balanced accuracy belongs beside accuracy."""
    return any(run_folder.is_imbalanced(run.data) for arm in results.arms for run in arm.runs)


def leaderboard(results: Results) -> Table:
    """Return the arms ranked by validation, and after them the arms with failed runs."""
    arms = [*results.compared, *results.failing]
    keys = list(dict.fromkeys(key for arm in arms for key in arm.choices))
    measure, is_imbalanced = results.measure, _has_imbalance(results)
    runs = "runs" if _has_splits(results) else "seeds"
    origin = ["from"] if results.has_finalists else []
    headers = ["rank", *keys, *origin, runs, _header("validation", measure), "95 % interval", "against the leader"]
    headers += [f"sd{_in_parentheses(measure.difference_unit)}", "best", "worst"]
    headers += [_header("test", measure), "test misses"]
    rows = []
    for rank, (arm, verdict) in enumerate(zip(arms, sentences.against_the_leader(results), strict=True), start=1):
        choices = [arm.choices.get(key, "") for key in keys]
        choices += ["default" if arm.is_default else "search" for _ in origin]
        row = ["" if arm.failed else str(rank), *choices, arm.seeds]
        row += [_show(arm.val.mean, measure), formats.interval(arm.val, measure), verdict]
        row += [_show(each, measure) for each in (arm.val.sd, arm.val.best, arm.val.worst, arm.test.mean)]
        row += [_number(arm.misses, ".1f")]
        rows.append([*row, *([_percent(_balanced(arm))] if is_imbalanced else [])])
    headers += [BALANCED] if is_imbalanced else []
    return Table(headers, rows, [*keys, *origin, "against the leader"])


def comparisons(results: Results) -> Table:
    """Return how the leader compares with each arm about which a claim is possible.

    That is: the intervals for new images and for the same ones, and how often the leader is the better one.
    """
    measure = results.measure
    unit = measure.difference_unit
    widest = "new splits" if _has_splits(results) else "new seeds and images"
    headers = [
        "arm",
        f"behind by{_in_parentheses(unit)}",
        widest,
        "p",
        "new seeds only",
        "p (seeds)",
        "P(better)",
        "over",
    ]
    rows = []
    arms = results.compared
    for arm, test in zip(arms[1:], results.comparisons, strict=True):
        if isnan(test.on_these_images.p):
            continue
        share, low, high = test.superiority
        row = [arm.label, _show(test.difference, measure)]
        row += _claim(test.claim, measure) if test.images or test.splits > 1 else ["", ""]
        row += _claim(test.on_these_images, measure) if test.splits == 1 else ["", ""]
        row += ["" if isnan(low) else f"{share:.2f} ({low:.2f} to {high:.2f})"]
        rows.append([*row, verdicts.basis(arms[0], arm, test)])
    return Table(headers, rows, [headers[0], headers[-1]])


def _has_splits(results: Results) -> bool:
    """Return whether arms are compared over several data.seeds."""
    return any(test.splits > 1 for test in results.comparisons)


def finalists(results: Results) -> Table:
    """Return what the best settings of a search became with fresh seeds, each arm's default last; no rows without."""
    headers = ["arm", "setting", "trial", "in the search (%)", "fresh seeds (%)", "95 % interval", "seeds"]
    rows = []
    for each in search.searches(results):
        for finalist in each.finalists:
            number, reached = each.trials.index(finalist.trial) + 1, _percent(finalist.trial.reached)
            rows.append([each.label, finalist.label, f"{number:,}", reached, *_fresh(finalist.fresh)])
        if each.default:
            rows.append([each.label, "default", "", "", *_fresh(each.default)])
    has_arms = any(row[0] for row in rows)
    return (
        Table(headers, rows, headers[:2]) if has_arms else Table(headers[1:], [row[1:] for row in rows], headers[1:2])
    )


def _fresh(arm: Arm) -> list[str]:
    if not arm.runs:
        return ["", "", arm.seeds]
    return [_percent(fmean(run.val_accuracy for run in arm.runs)), formats.interval(arm.val), arm.seeds]


def importance(results: Results) -> Table:
    """Return the share of each searched key in what the trials reached; no rows where too few trials say it."""
    found = [(f"{each.label or 'importance'} (%)", search.importance(each)) for each in search.searches(results)]
    found = [(name, shares) for name, shares in found if shares]
    keys = dict.fromkeys(key for _, shares in found for key in sorted(shares, key=lambda key: -shares[key]))
    rows = [[key, *(f"{100 * shares[key]:.0f}" if key in shares else "" for _, shares in found)] for key in keys]
    return Table(["key", *(name for name, _ in found)], rows, ["key"])


def failures(results: Results) -> Table:
    """Return the jobs that failed or were interrupted, each with the command that runs it again."""
    headers = ["run", "status", "reason", "command that runs it alone"]
    rows = [
        [str(run.job.number), run.job.status, run.job.error or "", sentences.command(run)]
        for run in results.runs
        if run.job.status in (run_folder.FAILED, run_folder.INTERRUPTED)
    ]
    return Table(headers, rows, headers[1:])


def runs(results: Results) -> RunTable:
    """Return all runs, whatever their status."""
    several, keys = len(results.folders) > 1, results.shown
    shown = values(results)
    rows = []
    for run, versions in zip(results.runs, uncommon_versions(results.runs), strict=True):
        own = run.job.choices
        choices = [format_value(own[key]) if key in own else "" for key in keys]
        summary: Mapping[str, Any] = run.summary
        rows.append(
            RunRow(
                number=str(run.job.number),
                choices=[str(run.sweep), *choices] if several else choices,
                seed=str(run.job.seed),
                status=run.job.status,
                marks=[mark for mark in (run.job.failure, versions) if mark],
                tags=tags(run),
                values=[_number(summary[value.key], value.format, value.scale) for value in shown],
            )
        )
    headers = ["sweep", *keys] if several else list(keys)
    return RunTable(headers, any(row.tags for row in rows), [value.header for value in shown], rows)


def provenance(results: Results) -> list[Facts]:
    """Return where the results come from: the data and the time, then each command with its code and machine."""
    data = sorted({f"{run.data['name']}, SHA-256 {run.data['sha256']}" for arm in results.arms for run in arm.runs})
    time = formats.clock(total_seconds(results.runs))
    about_sweeps = [("folder", str(folder.resolve())) for folder in results.folders]
    about_sweeps += [("data", each) for each in data]
    about_sweeps += [("time in runs", f"{time} (h:mm:ss), all runs together")]
    lists = [Facts("Sweep" if len(results.folders) == 1 else "Sweeps", about_sweeps)]
    for number, session in enumerate(results.sessions, start=1):
        facts = [
            ("started", str(session.get("time"))[:19].replace("T", " ")),
            ("command", str(session.get("command"))),
            ("commit", _commit(session.get("git"))),
            ("versions", _pairs(session.get("versions"))),
            ("machine", _pairs(session.get("machine")) or "not recorded"),
        ]
        if session.get("allow_changed"):
            facts.append(("changes", "was allowed to continue although code, packages or data had changed"))
        count = len(results.sessions)
        lists.append(Facts(f"Command {number} of {count}" if count > 1 else "Command", facts))
    return lists


def uncommon_versions(runs: Sequence[RunResult]) -> list[str]:
    """Return for each run the versions that most others do not share, such as "torch 2.13.0"."""
    counts = Counter(pair for run in runs for pair in run.summary["versions"].items())
    usual = {package: version for (package, version), _ in reversed(counts.most_common())}
    return [_pairs({k: v for k, v in run.summary["versions"].items() if v != usual[k]}) for run in runs]


def tags(run: RunResult) -> str:
    """Return the tags of a run; a tag with a space stands in quotes."""
    return shlex.join(map(str, run.summary["tags"] or ()))


def link(run: RunResult, out: Path) -> str:
    """Return the relative URL from the report in `out` to the folder of a run."""
    return f"{link_to(run.sweep, out)}{run.folder.name}/"


def link_to(folder: Path, out: Path) -> str:
    """Return the relative URL from the report in `out` to a folder; nothing if they are the same."""
    path = Path(os.path.relpath(folder, out)).as_posix()
    return "" if path == "." else quote(os.fsencode(path)) + "/"


def _balanced(arm: Arm) -> float:
    """Return the mean balanced accuracy of an arm's runs on the test images; nan if one of them did not record it."""
    found = [run.summary["test_balanced_accuracy"] for run in arm.runs]
    return sum(each if each is not None else nan for each in found) / len(found) if found else nan


def _header(part: str, measure: Measure) -> str:
    """Return the header of a column of values: "validation (%)", "test, log loss"."""
    named = part if measure is ACCURACY else f"{part}, {measure.title}"
    return f"{named}{_in_parentheses(measure.unit)}"


def _in_parentheses(unit: str) -> str:
    return f" ({unit.strip()})" if unit else ""


def _claim(estimate: Estimate, measure: Measure) -> list[str]:
    """Return an interval and its p-value; nothing if there is no claim."""
    if isnan(estimate.p):
        return ["", ""]
    return [formats.interval(estimate, measure), formats.p_value(estimate.p).removeprefix("p = ").removeprefix("p ")]


def _show(value: float, measure: Measure) -> str:
    """Return a value without its unit; nothing for nan."""
    return "" if isnan(value) else measure.show(value)


def _percent(fraction: float) -> str:
    """Return a fraction in percent, without the sign: 0.97864 -> "97.86"; nothing for nan."""
    return _number(fraction, ".2f", 100)


def _number(value: float | None, form: str, scale: int = 1) -> str:
    """Return a number as text; nothing if it is unknown."""
    return "" if value is None or isnan(value) else format(scale * value, form)


def _commit(git: Mapping[str, Any] | None) -> str:
    if not git:
        return "not in a git repository"
    return f"{git['commit']}, {'with' if git['dirty'] else 'without'} uncommitted changes"


def _pairs(facts: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (facts or {}).items())
