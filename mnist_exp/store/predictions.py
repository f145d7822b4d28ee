"""predictions.npz: what a run predicted for each image, so that any measure can be computed after the fact."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_exp.store.run_folder import PREDICTIONS
from mnist_exp.system import files
from mnist_exp.system.errors import ConfigError

PARTS = ("val", "test")


class Predictions(NamedTuple):
    """What a model predicted for the N images of a part of the data, in the order of that part."""

    label: NDArray[np.unsignedinteger[Any]]  # the true class, uint8 (N,); uint16 for more than 256 classes
    predicted: NDArray[np.unsignedinteger[Any]]  # the predicted class, like `label`
    log_probability: NDArray[np.float16]  # natural logarithm of the true class's probability, (N,); at most 0
    confidence: NDArray[np.float16]  # the probability of the predicted class, (N,)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly, (N,)."""
        right: NDArray[np.bool_] = self.label == self.predicted
        return right


class RunPredictions(NamedTuple):
    """What a run predicted with the weights of its best epoch."""

    val: Predictions
    test: Predictions


def write(folder: Path, predictions: RunPredictions) -> None:
    """Write predictions.npz in one step. Equal predictions give equal bytes.

    Raises:
        OSError: The disk is full, or the folder is read-only or gone.
    """
    arrays = {
        f"{part}_{name}": array
        for part, found in zip(PARTS, predictions, strict=True)
        for name, array in found._asdict().items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files.write(folder / PREDICTIONS, buffer.getbuffer())


def read(folder: Path, sha256: str | None) -> RunPredictions | None:
    """Return the predictions of a completed run; None if it has kept none.

    Args:
        folder: The run folder.
        sha256: The checksum of the file in the run's summary; None if the run has kept no predictions.

    Raises:
        ConfigError: The file was altered, cut, replaced by another run's, or deleted.
    """
    if sha256 is None:
        return None
    found = iter(_read(folder, sha256, [f"{part}_{name}" for part in PARTS for name in Predictions._fields]))
    return RunPredictions(*(Predictions(*islice(found, len(Predictions._fields))) for _ in PARTS))


def read_right(folder: Path, sha256: str) -> NDArray[np.bool_]:
    """Return whether a run classified each validation image correctly, (N,), without a look at all that it predicted.

    Args:
        folder: The run folder.
        sha256: The checksum of predictions.npz in the run's summary.

    Raises:
        ConfigError: The file was altered, cut, replaced by another run's, or deleted.
    """
    label, predicted = _read(folder, sha256, ["val_label", "val_predicted"])
    right: NDArray[np.bool_] = label == predicted
    return right


def _read(folder: Path, sha256: str, names: Sequence[str]) -> list[NDArray[Any]]:
    """Return arrays of predictions.npz. Raises ConfigError if the file was altered or deleted."""
    path = folder / PREDICTIONS
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is gone") from error
    if files.digest(content) != sha256:
        raise ConfigError(f"{path}: was altered: its checksum is not the one in the run's summary")
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        return [_array(archive.read(f"{name}.npy")) for name in names]
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:  # another version wrote it
        raise ConfigError(f"{path}: has another format: {' '.join(str(error).split())}") from error


def _array(content: bytes) -> NDArray[Any]:
    """Return the array in a .npy file. Equal headers are read once: np.load takes most of its time for them.

    Raises:
        ValueError: The file has another format.
    """
    start = content.find(b"\n") + 1  # of the values: the header has no other line break
    shape, is_fortran, dtype = _header(content[:start])
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")


@lru_cache
def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, the order and the type of an array."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"unknown version {version} of .npy")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    return shape, is_fortran, dtype
