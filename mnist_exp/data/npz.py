"""Images in an archive of NumPy arrays, as Keras and MedMNIST publish them: data=npz."""

import zipfile
import zlib
from collections.abc import Iterable, Set
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_exp.data import cache, decode, own
from mnist_exp.data.cache import Read, State
from mnist_exp.data.decode import Fit
from mnist_exp.data.images import DataSet
from mnist_exp.data.own import PARTS, Labelled
from mnist_exp.data.picture import Pixels
from mnist_exp.system import resources

PAIRS = (("x_{}", "y_{}"), ("X_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"))  # by part
WHOLE = (("x", "y"), ("X", "y"), ("images", "labels"))  # of an archive without parts


def npz(path: str, root: str, size: int | None, fit: str, color: str) -> DataSet:
    """Return the images in an archive, in their order.

    Arrays are named as Keras (x_train, y_train, x_test, y_test) or MedMNIST (train_images, train_labels, val_images,
    ...) name them. Images are (N, H, W), (N, H, W, 1 or 3), (N, 1 or 3, H, W), or (N, H*W) of squares. Pixels are
    whole numbers from 0 to 255; or floats from 0 to 1, which are multiplied by 255 and rounded. Labels are whole
    numbers or text, (N,) or (N, 1).

    Args:
        path: The archive.
        root: The folder of all data sets; the images are cached below it.
        size: As in `folder.folder`.
        fit: As there.
        color: As there.

    Raises:
        ValueError: The archive is missing, damaged, or contains pickled objects, which are never loaded; or its arrays
            are not as above.
    """
    file, settings = Path(path).expanduser(), Fit(size, fit, color)
    return cache.load(
        path,
        root,
        {"source": "npz", "fit": settings},
        lambda: own.stat({file.name: file}),
        partial(_read, file, settings),
    )


def _read(path: Path, fit: Fit, _: State) -> Read:
    if not zipfile.is_zipfile(path):
        raise ValueError("is not an archive of arrays (.npz), or is incomplete")
    _require_memory(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            used = _names(set(arrays))
            parts = {part: _part(arrays, *names, fit) for part, names in used.items()}
            others = sorted(set(arrays).difference(*used.values()))
    except (zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"is damaged: {error}") from error
    notes = [f"other arrays are left out: {decode.shortened(others)}"] if others else []
    return Read(own.data_set(own.name_of(path), parts, fit.way), notes)


def _require_memory(path: Path) -> None:
    """Raise ConfigError if the unpacked arrays and a run's copy of them need more memory than is free."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    needs = {"the arrays": unpacked, "their copy in the run's parts": unpacked}
    resources.require_memory("cpu", needs, advice="fewer images need less")


def _names(there: Set[str]) -> dict[str, tuple[str, str]]:
    """Return the names of the images and the labels of each part of an archive."""
    names = {part: pair for part, words in PARTS.items() if (pair := _pair(PAIRS, words, there))}
    if not names and (whole := _pair(WHOLE, [""], there)):
        names = {"train": whole}
    if not names:
        held = ", ".join(sorted(there)) or "nothing"
        raise ValueError(f"holds {held}; it needs x_train and y_train, or train_images and train_labels")
    return names


def _pair(patterns: Iterable[tuple[str, str]], words: Iterable[str], there: Set[str]) -> tuple[str, str] | None:
    """Return the first names, of images and of labels, that are there."""
    pairs = ((images.format(word), labels.format(word)) for word in words for images, labels in patterns)
    return next((pair for pair in pairs if there >= set(pair)), None)


def _part(arrays: Any, images: str, labels: str, fit: Fit) -> Labelled:
    try:
        x, y = arrays[images], arrays[labels]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError("contains pickled objects, which could run any code; they are not loaded") from None
    pixels, names = _bytes(images, _channels_first(images, x)), _labels(labels, y)
    if len(pixels) != len(names):
        raise ValueError(f"{images} has {len(pixels):,} images, and {labels} has {len(names):,} labels")
    return Labelled(decode.resize(pixels, fit), names)


def _channels_first(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of images as (N, C, H, W)."""
    shape = array.shape
    if array.ndim == 2 and isqrt(shape[1]) ** 2 == shape[1]:
        return array.reshape(-1, 1, isqrt(shape[1]), isqrt(shape[1]))
    if array.ndim == 3:
        return array[:, None]
    is_first, is_last = (array.ndim == 4 and shape[axis] in (1, 3) for axis in (1, 3))
    if is_first == is_last:
        why = "both ends may be channels" if is_first else "the images are (N, H, W), or have 1 or 3 channels"
        raise ValueError(f"{name} has the shape {list(shape)}: {why}")
    return array if is_first else np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def _bytes(name: str, array: NDArray[Any]) -> Pixels:
    """Return pixels as uint8."""
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} has the type {array.dtype}; pixels are numbers")
    if not (np.isfinite(array).all() and array.min() >= 0):
        raise ValueError(f"{name} has pixels below 0, or that are not numbers; pixels are 0 to 255, or 0 to 1")
    if array.dtype.kind in "bf" and array.max() <= 1:
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if array.max() > 255 or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
        raise ValueError(f"{name} has pixels up to {array.max():g}; they are whole numbers from 0 to 255, or 0 to 1")
    return array.astype(np.uint8)


def _labels(name: str, array: NDArray[Any]) -> list[str]:
    """Return labels, (N,) or (N, 1), as names of classes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {list(array.shape)}; each image has one label: (N,) or (N, 1)")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise ValueError(f"{name} has labels that are not whole numbers")
    if array.dtype.kind in "fb":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuU":
        raise ValueError(f"{name} has the type {array.dtype}; labels are whole numbers or text")
    return [str(label) for label in array.tolist()]
