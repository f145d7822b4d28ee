"""The file metrics.csv of a run: one row per epoch."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

METRICS = "metrics.csv"


class Row(NamedTuple):
    """One epoch. Accuracies are fractions; training figures are means over the epoch's steps, on augmented images."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float  # at the epoch's first step
    seconds: float  # training and validation


COLUMNS = Row._fields


def header() -> str:
    """Return the first line of the file."""
    return _line(COLUMNS)


def table(rows: Sequence[Row]) -> str:
    """Return the whole file."""
    return header() + "".join(map(_line, rows))


def append(path: Path, row: Row) -> None:
    """Append a row to an existing file.

    Raises:
        OSError: The file is gone, or can't be written.
    """
    with open(path, "r+", newline="") as file:  # not "a", which would create a deleted file
        file.seek(0, os.SEEK_END)
        file.write(_line(row))


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return the columns by name, without a torn last line; an empty mapping for a damaged or missing file."""
    try:
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if all(row.values())]
        return {column: [float(row[column]) for row in rows] for column in (COLUMNS if rows else ())}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def read(path: Path) -> list[Row]:
    """Return the rows, without a torn last line; nothing for a damaged or missing file."""
    return [Row(int(epoch), *figures) for epoch, *figures in zip(*read_columns(path).values(), strict=True)]


def has_rows(path: Path) -> bool:
    """Return whether the file has a row below its header."""
    with open(path, newline="", errors="replace") as file:
        return len(list(csv.reader(file))) > 1


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()
