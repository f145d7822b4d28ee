import numpy as np
import pytest
from helpers.data_files import idx_bytes
from numpy.typing import NDArray

from mnist_exp.data import idx

SHORT, LONG, FLOAT = b"\0\0\x08\1\0\0\0\2a", b"\0\0\x08\1\0\0\0\2abc", b"\0\0\x0d\1\0\0\0\1abcd"


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\1", SHORT, LONG, FLOAT, b"\0\0\x0c\1\0\0\0\1abc"])
def test_malformed_content_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (some messages are numpy's)
        idx.decode(np.frombuffer(content, np.uint8))


def test_int32_is_big_endian_and_signed() -> None:
    content = np.frombuffer(b"\0\0\x0c\1\0\0\0\2\0\0\1\2\xff\xff\xff\xff", np.uint8)
    assert idx.decode(content).tolist() == [258, -1]


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.arange(5, dtype=np.uint8)])
def test_bytes_are_written_and_read_by_the_format(array: NDArray[np.uint8]) -> None:
    content = idx.encode(array)
    assert content.tobytes() == idx_bytes(array)
    assert np.array_equal(idx.decode(content), array)
