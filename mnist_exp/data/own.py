"""What the sources of a user's own data share: names of parts, the order of names, what a data set must have."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch

from mnist_exp.data import decode
from mnist_exp.data.images import NO_IMAGES, DataSet, Part
from mnist_exp.data.picture import Pixels

PARTS = {  # what folders, files and arrays call the parts of a data set
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
PART_OF = {name: part for part, names in PARTS.items() for name in names}


class Labelled(NamedTuple):
    """Images, and the name of each one's class.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: N names.
    """

    images: Pixels
    labels: Sequence[str]


def data_set(
    name: str, parts: Mapping[str, Labelled], preparation: str, classes: Sequence[str] | None = None
) -> DataSet:
    """Return a data set, without its checksum.

    Args:
        name: Its name.
        parts: The training images as "train", and the parts that are given beside them, as "val" and "test".
        preparation: See DataSet.
        classes: The classes in their order; by default those of the training images in natural order.

    Raises:
        ValueError: There are no images, one class alone, a class with less than two training images, a label outside
            the classes, or a part with images of another shape.
    """
    train = parts.get("train")
    if not train or not len(train.images):
        raise ValueError("has no training images")
    classes = tuple(classes or sorted(set(train.labels), key=natural))
    counts = Counter(train.labels)
    if len(classes) < 2:
        raise ValueError(f"all training images are of one class, {classes[0]}; a model needs two")
    if few := [f"{each} has {counts[each]}" for each in classes if counts[each] < 2]:
        raise ValueError(f"each class needs 2 training images or more: {decode.shortened(few)}")
    number = {each: index for index, each in enumerate(classes)}
    shape = train.images.shape[1:]
    made = {}
    for part, (images, labels) in parts.items():
        if unknown := set(labels) - number.keys():
            example = min(unknown, key=natural)
            raise ValueError(f"the {part} images have the class {example}, which the training images lack")
        if images.shape[1:] != shape:
            shapes = f"{list(images.shape[1:])} and {list(shape)}"
            raise ValueError(f"the {part} and the train images have different shapes (C, H, W): {shapes}")
        made[part] = Part(torch.from_numpy(images), torch.tensor([number[label] for label in labels]))
    val, test = made.get("val", NO_IMAGES), made.get("test", NO_IMAGES)
    return DataSet(name, classes, made["train"], test, "", val, preparation)


def parts(of_images: Sequence[str], images: Pixels, labels: Sequence[str]) -> dict[str, Labelled]:
    """Return the parts of images that are sorted by part; `of_images` names the part of each."""
    starts = [row for row, part in enumerate(of_images) if row == 0 or part != of_images[row - 1]]
    ranges = pairwise([*starts, len(of_images)])
    return {of_images[i]: Labelled(images[i:j], labels[i:j]) for i, j in ranges}


def natural(text: str) -> tuple[list[str | int], str]:
    """Return a key that sorts names as people do: numbers by their value, everything else by its characters."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", text))
    parts[1::2] = map(int, parts[1::2])
    return parts, text


def name_of(path: Path) -> str:
    """Return the name of a data set: that of its folder or its file, or of the folder around a file like train.csv."""
    path = path.resolve()
    name = path.name if path.is_dir() else path.stem
    return path.parent.name if part_of(name) else name


def part_of(name: str) -> str | None:
    """Return the part of a file or folder whose name begins like train-00000-of-00001; None for other names."""
    return PART_OF.get(re.split(r"[-_.]", name.lower())[0])


def stat(paths: Mapping[str, Path]) -> dict[str, os.stat_result | None]:
    """Return the state of files, by the names that messages call them.

    Raises:
        ValueError: There is no such file.
    """
    for name, path in paths.items():
        if not path.exists():
            raise ValueError(f"{name}: no such file")
        if not path.is_file():
            raise ValueError(f"{name}: is a folder, not a file")
    return {name: path.stat() for name, path in paths.items()}
