"""Arrays from pickles that data sets are published in, without running code from them."""

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

# Python's own unpickler in Python, which is private: its methods are missing in the type stubs, and may change. The
# public one, in C, would keep all 220 MB of MNIST's floats, and the strings that they came from, until the end.
_PythonUnpickler: Any = pickle._Unpickler


class ArrayUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """An unpickler that builds numpy arrays and nothing else, and turns pixels into bytes as soon as it reads them.

    A pickle may name any function of Python, and the standard unpickler calls it.
    """

    allowed: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # elsewhere in numpy 2
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what the pickle names.

        Raises:
            UnpicklingError: No array needs it.
        """
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"the pickle names {module}.{name}, which no array needs")
        return self.allowed[module, name]

    def load_build(self) -> None:
        """Fill an object with its state, as the base class does, and turn an array of pixel / 256 into bytes."""
        state = self.stack[-1]
        super().load_build()
        array = self.stack[-1]
        if isinstance(array, np.ndarray) and array.dtype == np.float32:
            self.stack[-1] = np.multiply(array, 256, out=np.empty(array.shape, np.uint8), casting="unsafe")
            obsolete = {id(array), id(state), id(state[-1])}
            self.memo: dict[int, Any] = {key: value for key, value in self.memo.items() if id(value) not in obsolete}

    dispatch = _PythonUnpickler.dispatch | {pickle.BUILD[0]: load_build}
