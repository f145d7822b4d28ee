"""How a report writes numbers, names and lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from math import isnan

from mnist_exp.report import stats
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.results import Arm

ALL_EQUAL = "all equal"  # several seeds with the same value, which have no spread
TOO_WIDE = "too wide"  # to show, of the interval of two seeds


def name(arm: Arm) -> str:
    """Return the label of an arm in backticks."""
    return in_backticks(arm.label)


def in_backticks(text: str) -> str:
    """Return text as code on one line. Backticks within it become apostrophes."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def count(n: int, noun: str) -> str:
    """Return a number of things: "1 seed", "5 seeds"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def join(parts: Sequence[str], word: str = "and", most: int | None = None) -> str:
    """Return parts as an enumeration: "a, b and c"; those beyond `most` are counted: "a, b and 2 more"."""
    if most is not None and len(parts) > most:
        parts = [*parts[:most], f"{len(parts) - most:,} more"]
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}" if len(parts) > 1 else parts[0]


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: 91 -> "0:01:31"."""
    return str(timedelta(seconds=round(seconds)))


def percent(fraction: float) -> str:
    """Return a fraction in percent: 0.97864 -> "97.86 %"."""
    return f"{100 * fraction:.2f} %"


def value(value: float, measure: Measure = ACCURACY) -> str:
    """Return a value of a measure with its unit, or, if it is not accuracy, in words: "a log loss of 0.0712"."""
    shown = f"{measure.show(value)}{measure.unit}"
    article = "an" if measure.title[0] in "aeiou" else "a"
    return shown if measure is ACCURACY else f"{article} {measure.title} of {shown}"


def difference(value: float, measure: Measure = ACCURACY) -> str:
    """Return a difference with its unit: of two fractions in percentage points."""
    return f"{measure.show(value)}{measure.difference_unit}"


def interval(estimate: stats.Estimate | stats.Summary, measure: Measure = ACCURACY) -> str:
    """Return a 95 % interval without its unit; why there is none, or nothing if that is plain.

    An interval of a difference that no two fractions can have says nothing.
    """
    if isinstance(estimate, stats.Summary) and estimate.n > 1 and isnan(estimate.low) and estimate.sd == 0:
        return ALL_EQUAL
    if isinstance(estimate, stats.Summary) and estimate.n == 2 and isnan(estimate.low):
        return TOO_WIDE
    if isnan(estimate.low) or (measure.is_fraction and (estimate.low < -1 or estimate.high > 1)):
        return ""
    return f"{measure.show(estimate.low)} to {measure.show(estimate.high)}"


def p_value(p: float) -> str:
    """Return a p-value with three decimals where they matter, and more where they would hide on which side of 0.05."""
    if p < 0.001:
        return "p < 0.001"
    if round(p, 3) == 0.05 != p:
        return f"p = {p:.4f}"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
