"""The swept keys as the figures compare them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mnist_exp.report.figures import averages
from mnist_exp.report.figures.page import CROSS, fit
from mnist_exp.report.formats import count
from mnist_exp.report.labels import format_value
from mnist_exp.report.measures import ACCURACY, Measure
from mnist_exp.report.results import Arm, Results

WIDE = 20  # times the lowest number: from here on an axis is logarithmic
MAX_NAMES = 20  # values: a key of more names is left out; a key of more numbers has no heat map


class Key(NamedTuple):
    """A key of which the arms have several values: numbers in ascending order, names in the order of the command."""

    name: str
    values: tuple[str, ...]
    numeric: bool
    log: bool  # whether the numbers span so much that their axis is logarithmic
    places: tuple[float, ...]  # of the values along an axis, from 0 to 1
    arms: tuple[list[Arm], ...]  # those with each value that are compared
    failing: tuple[list[Arm], ...]  # those with each value that have failed runs, and are in no mean
    measure: Measure = ACCURACY

    def value_of(self, arm: Arm) -> str | None:
        """Return the value of an arm; None if it has not the key, as an option may have keys that others have not."""
        return arm.choices.get(self.name)

    @property
    def means(self) -> list[float]:
        """The mean of the arms with each value."""
        return [averages.mean(arms, self.measure) for arms in self.arms]

    @property
    def ticks(self) -> list[str]:
        """The labels of the values on an axis."""
        labels = [short_value(value, 1.2) for value in self.values]
        return [f"{label} {CROSS}" if arms else label for label, arms in zip(labels, self.failing, strict=True)]

    @property
    def effect(self) -> float:
        """The difference between the means of the best and the worst value; of fractions in percentage points."""
        means = list(filter(math.isfinite, self.means))
        return max(means) - min(means)


def varying_keys(results: Results, tuned: Mapping[str, bool] = {}) -> tuple[list[Key], list[str]]:
    """Return the keys of which the compared arms have several values, and a note on keys that are left out.

    Args:
        results: What to draw. Where a search chose the arms, no average over them says what a key does.
        tuned: Keys that a search took from intervals, and whether their axes are logarithmic.
    """
    keys: list[Key] = []
    left_out: list[str] = []
    compared, failing = results.compared, results.failing
    for name in results.crossed if compared and not results.has_finalists else ():
        choices = [run.job.choices for run in results.runs]
        in_order = dict.fromkeys(format_value(each[name]) for each in choices if name in each)
        present = {arm.choices[name] for arm in (*compared, *failing) if name in arm.choices}
        values = [value for value in in_order if value in present]
        numbers = as_numbers(values)
        if len(values) > MAX_NAMES and not numbers:
            left_out.append(f"{name} ({len(values)} values)")
        elif len({arm.choices.get(name) for arm in compared} - {None}) > 1:
            values = sorted(values, key=float) if numbers else values
            line = np.array(sorted(numbers)) if numbers else np.arange(len(values))
            log = bool(numbers and line[0] > 0 and tuned.get(name, line[-1] / line[0] >= WIDE))
            line = np.log(line) if log else line
            places = tuple(((line - line[0]) / (line[-1] - line[0])).tolist())
            arms, without = (_by_value(group, name, values) for group in (compared, failing))
            keys.append(Key(name, tuple(values), bool(numbers), log, places, arms, without, results.measure))
    return keys, [f"Left out: {', '.join(left_out)}."] if left_out else []


def _by_value(arms: Sequence[Arm], name: str, values: Sequence[str]) -> tuple[list[Arm], ...]:
    """Return the arms with each value of a key."""
    found: dict[str, list[Arm]] = {value: [] for value in values}
    for arm in arms:
        if name in arm.choices:
            found[arm.choices[name]].append(arm)
    return tuple(found.values())


def unbalanced(arms: Sequence[Arm], keys: Sequence[Key]) -> list[str]:
    """Return a note if some combination of values has no arm, so that averages over other keys mislead."""
    combinations = math.prod(len(key.values) for key in keys)
    completed = len({tuple(key.value_of(arm) for key in keys) for arm in arms})
    return [f"Not balanced: {completed} of {combinations} combinations completed."] if completed < combinations else []


def failed(keys: Sequence[Key]) -> list[str]:
    """Return a note if some value has arms with failed runs."""
    if not any(arms for key in keys for arms in key.failing):
        return []
    return [f"{CROSS}: arms with failed runs, which no mean includes."]


def beyond(arms: Sequence[Arm], ends: tuple[float, float], measure: Measure) -> list[str]:
    """Return a note if some arm is worse than the scale with these ends shows."""
    hidden = sum(averages.is_beyond(averages.mean([arm], measure), ends, measure) for arm in arms)
    where = "Below" if measure.sign > 0 else "Above"
    return [f"{where} the scale: {count(hidden, 'arm')}."] if hidden else []


def selected(shown: int, found: int, what: str) -> list[str]:
    """Return a note if a figure shows less than there is."""
    return [f"Shown: the {shown} of {found} {what} that matter most."] if found > shown else []


def as_numbers(values: Sequence[str]) -> list[float]:
    """Return the values as numbers; an empty list if one is not a finite number, or if two are equal."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) and len(set(numbers)) == len(numbers) else []


def short_value(value: str, width: float = 1.5) -> str:
    """Return a value in at most `width` inches: long numbers have four digits, and an empty text has quotes."""
    if len(value) > 8 and as_numbers([value]):
        value = f"{float(value):.4g}"
    return fit(value or '""', width)
