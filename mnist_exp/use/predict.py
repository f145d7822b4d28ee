"""The command `predict`: the classes that the network of a run finds in pictures, as a table, as CSV or as JSON."""

import csv
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mnist_exp.data import picture
from mnist_exp.system import quoting, resources, signals, streams
from mnist_exp.system.errors import ConfigError
from mnist_exp.use import sheet
from mnist_exp.use.prepare import Preparation, Prepared

if TYPE_CHECKING:  # it imports torch
    from mnist_exp.use.trained_run import Prediction

T = TypeVar("T")
CHUNK = 1000  # pictures that are held at once
HEADERS = ("file", "class", "probability", "runner-up", "")  # of the table
COLUMNS = ("file", "class", "probability", "runner_up", "runner_up_probability", "note")  # of the CSV


class Answer(NamedTuple):
    """The answer to one picture.

    Attributes:
        file: Its path.
        prediction: What the model predicts; None for a file that can't be read.
        note: What the user should know: why there is no class, or why to doubt it.
    """

    file: str
    prediction: "Prediction | None"
    note: str

    @property
    def ranking(self) -> tuple[str | None, float | None, str | None, float | None]:
        """The class, its probability, the runner-up and its probability; None for each where there is no class."""
        return self.prediction[:4] if self.prediction else (None, None, None, None)

    @property
    def has_class(self) -> bool:
        """Whether the model has named a class."""
        return self.ranking[0] is not None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The ranking as a table shows it."""
        first, p, second, q = self.ranking
        return first or "-", percent(p), second or "", percent(q)


def predict_and_print(
    target: Path, paths: Sequence[Path], form: str, way: str | None = None, show: Path | None = None
) -> None:
    """Print the class of each picture, and end the process with exit code 1 if one has none.

    Args:
        target: The run folder, or `latest`.
        paths: Picture files, and folders with pictures.
        form: table, csv or json.
        way: How the pictures are prepared; None for the run's own way.
        show: Where a picture of what the network was shown goes.

    Raises:
        ConfigError: There is no such run, no picture in a folder, or no format for `show`.
        OSError: `show` can't be written.
    """
    if show:
        sheet.file_format(show)
    with signals.deferred():  # an exception in the middle of torch's import ends the process
        from mnist_exp.use import trained_run

    run = trained_run.load(target)
    files = [file for path in paths for file in _pictures(path)]
    answers: list[Answer] = []
    for chunk in _chunks(_prepared(files, run.preparation(way))):
        good = [prepared for _, prepared in chunk if isinstance(prepared, Prepared)]
        predictions = iter(run.predict_prepared(good))
        for file, prepared in chunk:
            prediction = None if isinstance(prepared, str) else next(predictions)
            answers.append(Answer(file, prediction, prepared if isinstance(prepared, str) else _note(prepared.figures)))
    FORMS[form](answers)
    sys.stdout.flush()
    for answer in answers:
        if answer.note:
            print(quoting.shown(f"{answer.file}: {answer.note}"), file=sys.stderr)
    if show:
        _show(answers, show)
    if not all(answer.has_class for answer in answers):
        sys.exit(1)


def percent(probability: float | None) -> str:
    """Return a probability in percent that never rounds to certainty; "" for None."""
    if probability is None:
        return ""
    return ">99.9 %" if probability > 0.9995 else "<0.1 %" if probability < 0.0005 else f"{probability:.1%}"[:-1] + " %"


def _pictures(path: Path) -> list[str]:
    """Return the file, or the pictures in the folder, in the natural order of their names; hidden ones are left out.

    Raises:
        ConfigError: The folder has none.
    """
    if not path.is_dir():
        return [str(path)]
    from mnist_exp.data.own import natural  # imports torch

    found: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [os.path.join(folder, name) for name in names if name[0] != "." and _has_suffix(name)]
    if not found:
        raise ConfigError(f"{path}: no picture in this folder")
    return sorted(found, key=natural)


def _has_suffix(name: str) -> bool:
    return name.lower().endswith(picture.SUFFIXES)


def _prepared(files: Sequence[str], preparation: Preparation) -> Iterator[tuple[str, Prepared | str]]:
    """Yield each file with its picture, or with the reason why there is none."""

    def one(file: str) -> Prepared | str:
        try:
            return preparation(picture.read(file))
        except ValueError as error:
            return str(error)

    from tqdm import tqdm

    with warnings.catch_warnings(), ThreadPoolExecutor(resources.cores()) as threads:
        warnings.simplefilter("ignore")  # of Pillow, about odd files
        quiet = not streams.shows_progress()
        with tqdm(total=len(files), desc="reading", unit="picture", leave=False, delay=1, disable=quiet) as progress:
            for some in _chunks(files):
                for each in zip(some, threads.map(one, some), strict=True):
                    progress.update()
                    yield each


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _note(figures: int) -> str:
    if figures == 0:
        return "nothing is written on it"
    return "" if figures == 1 else f"{figures} figures; the largest is read"


def _print_table(answers: Sequence[Answer]) -> None:
    """Print aligned columns: of 10,000 rows, rich's table would take longer than the network."""
    from rich.cells import cell_len

    rows = [HEADERS, *(tuple(map(quoting.shown, (answer.file, *answer.cells))) for answer in answers)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if cell.endswith("%") else cell + gap for cell, gap in zip(row, gaps, strict=True)]
        print("  ".join(cells).rstrip())


def _print_csv(answers: Sequence[Answer]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for answer in answers:
        writer.writerow([answer.file, *answer.ranking, answer.note])


def _print_json(answers: Sequence[Answer]) -> None:
    rows = []
    for answer in answers:
        values = dict(zip(COLUMNS, (answer.file, *answer.ranking, answer.note or None), strict=True))
        by_class = answer.prediction.probabilities if answer.prediction and answer.has_class else None
        rows.append(values | {"probabilities": by_class})
    print(json.dumps(rows, indent=2))


FORMS: dict[str, Callable[[Sequence[Answer]], None]] = {
    "table": _print_table,
    "csv": _print_csv,
    "json": _print_json,
}


def _show(answers: Sequence[Answer], path: Path) -> None:
    """Write a picture of what the network was shown."""
    seen = [(answer, answer.prediction.image) for answer in answers if answer.prediction]
    tiles = [sheet.Tile(image, Path(answer.file).name, "  ".join(answer.cells[:2]).strip()) for answer, image in seen]
    sheet.write(tiles[: sheet.MOST], path)
    if len(tiles) > sheet.MOST:
        print(f"{path}: the first {sheet.MOST} of {len(tiles):,} pictures", file=sys.stderr)
