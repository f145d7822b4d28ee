"""The IDX file format, in which MNIST and its relatives are published."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES: dict[bytes, np.dtype[Any]] = {b"\0\0\x08": np.dtype(np.uint8), b"\0\0\x0c": np.dtype(">i4")}


def decode(content: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the array that an IDX file holds.

    The format: "The IDX file format", http://yann.lecun.com/exdb/mnist.

    Args:
        content: The bytes of the file, uint8 (bytes,).

    Returns:
        An array of uint8, which shares the memory of `content`, or of int32 in the machine's byte order.

    Raises:
        ValueError: The file holds another type, or its size disagrees with its header.
    """
    header = bytes(content[:4])
    if len(header) < 4 or header[:3] not in DTYPES:
        raise ValueError(f"not an IDX file of uint8 or int32: it begins with {header!r}")
    dtype, dimensions = DTYPES[header[:3]], header[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    array = np.frombuffer(content, dtype, offset=4 + 4 * dimensions).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def encode(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bytes of the IDX file that holds the array, uint8 (bytes,)."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return np.concatenate([np.frombuffer(header, np.uint8), array.ravel()])
