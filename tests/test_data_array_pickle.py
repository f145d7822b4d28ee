"""A pickle of arrays is read, and any other name in it is refused."""

import io
import pickle

import numpy as np
import pytest
from helpers.data_files import python2_pickle

from mnist_exp.data.array_pickle import ArrayUnpickler


@pytest.mark.parametrize(
    "name", [b"builtins\neval", b"numpy\nload", b"numpy\ndtypes", b"numpy.core.multiarray\nfromfile"]
)
def test_the_unpickler_allows_no_other_name(name: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="which no array needs"):
        ArrayUnpickler(io.BytesIO(b"c" + name + b"\n.")).load()


def test_arrays_of_python_2_are_read() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = python2_pickle({"data": array, "labels": [3, 1, 2], "batch_label": "batch 1 of 5"})
    expected = pickle.loads(content, encoding="bytes")
    ours = ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    assert ours.keys() == expected.keys() == {b"data", b"labels", b"batch_label"}
    assert np.array_equal(ours[b"data"], array)
    assert ours[b"labels"] == [3, 1, 2]
