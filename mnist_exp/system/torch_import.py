"""Makes `import torch` shorter: its libraries are loaded beside what comes before, and nothing looks for garbage."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from mnist_exp.system import signals

LIBRARIES = ("libtorch_global_deps.so", "libtorch.so")  # in torch's own order; neither needs Python
_is_command = False  # whether the process is ours, and not that of a program that uses this package


def preload() -> None:
    """Load torch's libraries in a thread, which is a sixth of the import and needs no lock of Python's.

    A fork waits for it. A command with a flag, such as --help, does without. On other systems than Linux the libraries
    have other names, and the import loads them as ever.
    """
    global _is_command
    _is_command, torch = True, find_spec("torch")
    has_flags = any(word.startswith("-") for word in sys.argv[1:])
    if sys.platform == "linux" and torch and torch.origin and not has_flags:
        thread = threading.Thread(target=_load, args=(Path(torch.origin).parent / "lib",), daemon=True)
        thread.start()
        os.register_at_fork(before=thread.join)  # a copy of the process would wait for the loader forever


def _load(folder: Path) -> None:
    with suppress(OSError):  # the import says what is wrong, or finds them elsewhere
        for name in LIBRARIES:
            ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL if name == LIBRARIES[0] else ctypes.DEFAULT_MODE)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Import torch in the block.

    Signals are delivered after it, because an exception in the middle ends the process. Python's collector does not
    look for garbage meanwhile; nor later, in a command that has called `preload`, among the hundreds of thousands of
    objects that torch leaves.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with signals.deferred():
            yield
    finally:
        if _is_command and not gc.get_freeze_count():  # once, because what is garbage by now stays
            gc.freeze()
        if collects:
            gc.enable()
