"""Images in a table: pixels in columns, or the names of image files: data=csv."""

import csv
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from math import isqrt, prod
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from mnist_exp.data import cache, decode, own
from mnist_exp.data.cache import Read, State
from mnist_exp.data.decode import Fit
from mnist_exp.data.images import DataSet
from mnist_exp.data.own import Labelled
from mnist_exp.system import resources, streams

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
LONGEST_LABEL = 100  # characters


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        has_header: Whether the first line names them.
        label: The index of the label.
        image: The index of the name of the image file; None: all other columns are pixels.
        width: How many there are.
    """

    has_header: bool
    label: int
    image: int | None
    width: int


def csv_table(
    path: str,
    test_path: str | None,
    val_path: str | None,
    label: str,
    image: str | None,
    shape: Sequence[int] | None,
    root: str,
    size: int | None,
    fit: str,
    color: str,
    skip_broken: bool,
) -> DataSet:
    """Return the images in one CSV file, or in one for each part, in the order of their lines.

    Args:
        path: The file with the training images.
        test_path: The file with the test images; None: the test images are cut from the training images.
        val_path: The file with the validation images; None: they are cut from the training images.
        label: The column of the labels: its name or, in a file without a header, its number, where the first is 0.
            A header is a first line that is not all numbers. In a file without one, a name means the first column.
        image: The column with the names of image files, relative to the CSV file; None: all other columns are pixels,
            whole numbers from 0 to 255.
        shape: How the pixels of a line are arranged: [height, width] or [channels, height, width]; None: a square.
        root: The folder of all data sets; the images are cached below it.
        size: As in `folder.folder`.
        fit: As there.
        color: As there.
        skip_broken: As there.

    Raises:
        ValueError: A file is missing, lacks a column or has ragged lines, a pixel is not a whole number from 0 to 255,
            or as in `folder.folder`.
    """
    given = {"train": path, "val": val_path, "test": test_path}
    tables = {part: Path(file).expanduser() for part, file in given.items() if file}
    settings = Fit(size, fit, color)
    return cache.load(
        path,
        root,
        {
            "source": "csv", "others": [test_path, val_path], "label": label, "image": image, "shape": shape,
            "fit": settings, "skip_broken": skip_broken,
        },
        partial(_list_files, tables, label, image),
        partial(_read, tables, label, image, shape, settings, skip_broken),
    )  # fmt: skip


def _list_files(tables: Mapping[str, Path], label: str, image: str | None) -> State:
    state = own.stat({str(path): path for path in tables.values()})
    for path in tables.values() if image else ():
        state |= {file: _stat_or_none(file) for file, _ in _named(path, label, str(image))}
    return state


def _stat_or_none(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _read(
    tables: Mapping[str, Path],
    label: str,
    image: str | None,
    shape: Sequence[int] | None,
    fit: Fit,
    skip_broken: bool,
    state: State,
) -> Read:
    name = own.name_of(tables["train"])
    if image:
        rows = [(part, *row) for part, path in tables.items() for row in _named(path, label, image)]
        files = decode.on_disk(Path(), [file for _, file, _ in rows], state)
        images, broken = decode.decode(files, fit, skip_broken)
        kept = [row for number, row in enumerate(rows) if number not in broken]
        parts = own.parts([part for part, *_ in kept], images, [label for *_, label in kept])
        return Read(own.data_set(name, parts, fit.way), decode.note(broken, len(files)))
    resources.require_memory(
        "cpu",
        {"the pixels in the files, at most": sum(path.stat().st_size for path in tables.values())},
        advice="fewer lines need less",
    )
    parts = {part: _pixels(path, label, shape, fit) for part, path in tables.items()}
    return Read(own.data_set(name, parts, fit.way))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: is not a CSV file: {error}") from error


def _named(path: Path, label: str, image: str) -> list[tuple[str, str]]:
    """Return the path of the image file, and the label, of each line."""
    columns = _columns(path, label, image)
    assert columns.image is not None
    found = []
    with _opened(path) as file:
        for line in islice(reader := csv.reader(file), columns.has_header, None):
            where = f"{path}, line {reader.line_num}"
            if len(line) != columns.width:
                raise ValueError(f"{where}: has {len(line)} columns, not {columns.width}")
            found.append((str(path.parent / line[columns.image]), _label(line[columns.label], where)))
    return found


def _columns(path: Path, label: str, image: str | None) -> Columns:
    with _opened(path) as file:
        first = next(csv.reader(file), [])
    if not first:
        raise ValueError(f"{path}: is empty")
    has_header = not all(NUMBER.fullmatch(word.strip()) for word in first)
    names = [word.strip() for word in first] if has_header else [str(number) for number in range(len(first))]
    label = label if has_header or label.isdecimal() else "0"
    for key, column in (("label", label), ("image", image)):
        if column is not None and column not in names:
            if len(names) == 1:
                raise ValueError(f"{path}: has a single column; commas separate columns")
            raise ValueError(f"{path}: has no column {column}; data.{key} names one of {decode.shortened(names)}")
    return Columns(has_header, names.index(label), None if image is None else names.index(image), len(first))


def _pixels(path: Path, label: str, shape: Sequence[int] | None, fit: Fit) -> Labelled:
    """Return the images of a table of pixels."""
    columns = _columns(path, label, None)
    before, after = columns.label, columns.width - columns.label - 1
    image_shape = _image_shape(before + after, shape)
    fields = [("before", np.uint8, (before,)), ("label", f"U{LONGEST_LABEL + 1}"), ("after", np.uint8, (after,))]
    row_type = np.dtype([field for field in fields if field[-1] != (0,)])
    with _opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's, for pixels like 0.5
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        quiet = not streams.shows_progress()
        lines = tqdm(file, desc=f"reading {path.name}", unit="line", leave=False, disable=quiet)
        try:
            rows = np.loadtxt(
                lines, row_type, delimiter=",", quotechar='"', comments=None, skiprows=int(columns.has_header), ndmin=1
            )
        except UnicodeDecodeError:
            raise
        except (ValueError, OverflowError, DeprecationWarning) as error:
            raise ValueError(f"{path}: {_reason(error, columns)}") from error
    names = rows.dtype.names or ()
    flat = np.concatenate([rows[name] for name in ("before", "after") if name in names], axis=1)
    labels = [_label(text, f"{path}, row {row}") for row, text in enumerate(rows["label"].tolist(), start=1)]
    return Labelled(decode.resize(flat.reshape(-1, *image_shape), fit), labels)


def _reason(error: Exception, columns: Columns) -> str:
    """Return what is wrong with a table that numpy can't read."""
    text = str(error)
    if ragged := re.search(r"requires (\d+) columns but (\d+) were found at row (\d+)", text):
        return f"row {ragged[3]} has {ragged[2]} columns, not {ragged[1]}"
    if wrong := re.search(r"could not convert string '(.*)' to uint8 at row (\d+), column (\d+)", text):
        is_text = wrong[1] and not NUMBER.match(wrong[1])
        hint = "; data.image=COLUMN says that a column names image files" if is_text else ""
        where = f"row {int(wrong[2]) + 1}, column {wrong[3]}"
        return f"{where}: {wrong[1] or 'an empty cell'} is not a pixel, a whole number from 0 to 255{hint}"
    return " ".join(text.split())


def _image_shape(count: int, shape: Sequence[int] | None) -> tuple[int, ...]:
    """Return channels, height and width of the image in `count` pixels.

    Raises:
        ValueError: The pixels don't fill the shape, or there are none.
    """
    side = isqrt(count)
    size = (1, side, side) if shape is None else (*[1] * (3 - len(shape)), *shape)
    if prod(size) != count or not count:
        arranged = "not a square" if shape is None else f"not {decode.by(shape)}"
        raise ValueError(f"the {count:,} pixel columns are {arranged}; data.shape=[H,W] or [C,H,W] arranges them")
    return size


def _label(text: str, where: str) -> str:
    """Return a label as the name of a class: 3 of "3.0", text as it is.

    Raises:
        ValueError: The label is empty, too long, or a number that is not whole.
    """
    text = text.strip()
    if not text or len(text) > LONGEST_LABEL:
        why = f"has more than {LONGEST_LABEL} characters" if text else "is empty"
        raise ValueError(f"{where}: the label {why}")
    if number := NUMBER.fullmatch(text):
        if (number[1] or "").strip(".0"):
            raise ValueError(f"{where}: the label {text} is not a whole number")
        return str(int(text.partition(".")[0]))
    return text
