"""Several GPUs on one machine: jobs that run at once each get one, whichever is the least busy when they begin.

A job's process sees its GPU alone, so it is `cuda:0` there, and nothing depends on which one it was.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_exp.system import files
from mnist_exp.system.fork import CAN_FORK, run_in_subprocess

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held = ExitStack()  # the lock of this process's GPU, which it holds until it ends


def on_its_own(cfg: DictConfig, function: Callable[[], Any]) -> Callable[[], Any]:
    """Return what calls `function` on one GPU, in a process that has not used CUDA and ends afterwards.

    Args:
        cfg: The config of a job. If it names a GPU, or there are not several, `function` itself is returned.
        function: Runs the job, or a fused group.
    """
    if cfg.device not in ("auto", "cuda") or not CAN_FORK:
        return function
    several = visible()
    return partial(_call_on_one, several, function) if len(several) > 1 else function


def visible() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    number = run_in_subprocess(torch.cuda.device_count)  # a process that has asked CUDA can't fork
    names = os.environ.get(VISIBLE, ",".join(map(str, range(number)))).split(",")
    return [name.strip() for name in names[:number]]


def take(names: Sequence[str]) -> str:
    """Return the GPU with the fewest jobs of this user that were given one, and count as one of them from now on."""
    folder = Path(tempfile.gettempdir(), f"mnist_exp-{os.getuid()}")  # of this machine, as the GPUs are
    folder.mkdir(mode=0o700, exist_ok=True)
    for place in count():
        for name in names:
            with suppress(BlockingIOError):
                _held.enter_context(files.locked(folder / f"gpu-{name.replace('/', '_')}.{place}"))
                return name
    raise AssertionError


def _call_on_one(names: Sequence[str], function: Callable[[], Any]) -> Any:
    os.environ[VISIBLE] = take(names)
    return function()
