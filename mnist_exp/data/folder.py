"""Images in folders, one folder for each class: data=folder."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mnist_exp.data import cache, decode, own
from mnist_exp.data.cache import Read, State
from mnist_exp.data.decode import Fit
from mnist_exp.data.images import DataSet
from mnist_exp.data.own import PART_OF, natural
from mnist_exp.data.picture import SUFFIXES


class Sample(NamedTuple):
    """An image file, and where its place in the tree puts it.

    Attributes:
        part: train, val or test.
        label: The name of its class folder.
        below: Its path below the class folder.
        name: Its path below the data set's folder.
    """

    part: str
    label: str
    below: str
    name: str


def folder(path: str, root: str, size: int | None, fit: str, color: str, skip_broken: bool) -> DataSet:
    """Return the images in `path`/<class>/..., or in `path`/{train,val,test}/<class>/...

    The classes are in natural order (numbers by their value, then by their characters), and so are the images of a
    part: by their names, whatever their class. Names that begin with a dot are left out.

    Args:
        path: The folder.
        root: The folder of all data sets; the decoded images are cached below it.
        size: The height and width that the images get, in pixels; None if all have the same size.
        fit: How an image that is not square gets it: pad, crop or stretch.
        color: gray, rgb, or auto: grey if every image is.
        skip_broken: Leave out files that can't be decoded.

    Raises:
        ValueError: There is no such folder, no class folder, a class with less than two images, or a file that can't
            be decoded.
    """
    top, settings = Path(path).expanduser(), Fit(size, fit, color)
    return cache.load(
        path,
        root,
        {"source": "folder", "fit": settings, "skip_broken": skip_broken},
        partial(list_files, top),
        partial(_read, top, settings, skip_broken),
    )


def list_files(top: Path) -> dict[str, os.stat_result | None]:
    """Return the state of every file in a folder and its subfolders, by its path below the folder.

    Names that begin with a dot are left out. A file that can't be found, because it is a broken link, has no state.
    Neither has an empty folder, which stands there as `folder/`.

    Raises:
        ValueError: There is no such folder, or a link leads back to a folder around it.
    """
    if not top.is_dir():
        raise ValueError("is a file, not a folder" if top.exists() else "no such folder")
    return dict(_walk(str(top), "", (_identity(os.stat(top)),)))


def _walk(folder: str, prefix: str, around: Sequence[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result | None]]:
    with os.scandir(folder) as entries:
        in_order = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    if prefix and not in_order:
        yield prefix, None
    for entry in in_order:
        name = prefix + entry.name
        try:
            state = entry.stat()
            is_folder = entry.is_dir()
        except OSError:
            yield name, None
            continue
        if not is_folder:
            yield name, state
        elif _identity(state) in around:
            raise ValueError(f"{name}: a link that leads back to a folder around it; remove it")
        else:
            yield from _walk(entry.path, f"{name}/", (*around, _identity(state)))


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _read(top: Path, fit: Fit, skip_broken: bool, state: State) -> Read:
    parts, classes = _layout(top)
    samples = sorted(_samples(parts, state), key=lambda sample: (sample.part, natural(sample.below), sample.label))
    files = decode.on_disk(top, [sample.name for sample in samples], state)
    images, broken = decode.decode(files, fit, skip_broken)
    kept = [sample for number, sample in enumerate(samples) if number not in broken]
    labels = [sample.label for sample in kept]
    notes = decode.note(broken, len(samples))
    if others := sorted({name for name in state if not name.endswith("/")} - {sample.name for sample in samples}):
        notes.append(f"other files are left out: {decode.shortened(others)}")
    data = own.data_set(own.name_of(top), own.parts([each.part for each in kept], images, labels), fit.way, classes)
    return Read(data, notes)


def _layout(top: Path) -> tuple[dict[str, str], list[str]]:
    """Return which folder holds which part, and the classes; a part's folder is "" if `top` holds the class folders.

    Raises:
        ValueError: There are no class folders, or the folders are parts and others.
    """
    names = _folders(top)
    parts = {name: PART_OF.get(name.lower()) for name in names}
    found = [part for part in parts.values() if part]
    if "train" not in found or len(found) == 1 < len(names):  # a class may be called train
        parts = {"": "train"}
    elif None in parts.values() or len(set(found)) < len(found):
        raise ValueError(
            f"holds {decode.shortened(names)}; it should hold either class folders, or train, val and test alone"
        )
    folder = next(name for name, part in parts.items() if part == "train")
    classes = sorted(_folders(top / folder), key=natural)
    if not classes:
        where = f"{folder} holds" if folder else "holds"
        raise ValueError(f"{where} no class folders: the images of a class lie in a folder with its name, as cat/1.png")
    return {folder: part for folder, part in parts.items() if part}, classes


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _samples(parts: Mapping[str, str], names: Iterable[str]) -> Iterator[Sample]:
    """Yield the image files that lie in a class folder."""
    for name in names:
        folder, _, below = ("", "", name) if "" in parts else name.partition("/")
        label, _, rest = below.partition("/")
        if rest and folder in parts and name.lower().endswith(SUFFIXES):
            yield Sample(parts[folder], label, rest, name)
