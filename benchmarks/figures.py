"""How a benchmark shows a figure: a line for people, and beside it the same as one line of JSON.

A line of JSON has `name`, `value` (the median, where there are rounds), `unit`, `n`, `spread` (lowest and highest, or
null), `benchmark`, `machine`, `torch`, `date`, `commit`, `dirty`, and what else the benchmark says of the figure.
"""

import json
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from mnist_exp.store import provenance


def show(name: str, values: Sequence[float], unit: str, **facts: Any) -> None:
    """Print the median and the range of what was measured, and the line of JSON.

    Args:
        name: What was measured.
        values: One per round.
        unit: Of the values; "" for a ratio.
        facts: What else there is to say of the figure.
    """
    middle, low, high = median(values), min(values), max(values)
    print(f"{name:44} {middle:9.4g} {unit}  ({low:.4g} to {high:.4g}, n={len(values)})")
    line(name, middle, unit, len(values), (low, high), **facts)


def line(
    name: str, value: float | None, unit: str, n: int = 1, spread: Sequence[float] | None = None, **facts: Any
) -> None:
    """Print the line of JSON alone.

    Args:
        name: What was measured.
        value: The figure; None if there is none, as a share of nothing.
        unit: Of the value and the spread.
        n: How many measurements it sums up.
        spread: The lowest and the highest of them, or the ends of an interval.
        facts: What else there is to say of the figure.
    """
    limits = None if spread is None else list(map(_short, spread))
    figure = {"name": name, "value": _short(value), "unit": unit, "n": n, "spread": limits}
    print(json.dumps(figure | facts | _about()), flush=True)


def read(output: str) -> dict[tuple[str, str], float]:
    """Return the figures in what a benchmark printed, by name and unit."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"name": ')]
    return {(each["name"], each["unit"]): each["value"] for each in lines if each["value"] is not None}


def _short(value: float | None) -> float | None:
    """Return the number with six digits."""
    return value if value is None else float(f"{value:.6g}")


def _about() -> dict[str, Any]:
    """Return where, when and of which code the figure is."""
    git = provenance.git() or {"commit": None, "dirty": None}
    facts = {"machine": provenance.machine(), "torch": version("torch"), "date": date.today().isoformat()}
    return {"benchmark": Path(sys.argv[0]).stem} | facts | git
