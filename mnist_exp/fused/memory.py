"""How many models there is memory for, and how to hold on to it."""

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mnist_exp import build

SHARE = 0.5  # of the memory that is free: with the holes in malloc's heap, crews took up to 1.2 times the estimate
OBJECTS = 200_000  # bytes of a run's config, modules, generators and tables
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
UNKNOWN = 2**60  # as good as no limit
CGROUP, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def hold() -> None:
    """Have this process keep the memory that it frees, for its next step, and not give it back to the system.

    The gradients of a large crew are tens of megabytes; having them anew from the system, page by page, took more time
    than computing them. (glibc's malloc; others are left as they are.)
    """
    with suppress(AttributeError):  # another libc
        if sys.platform == "linux":
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def trim() -> None:
    """Give the system back what lies free between other things, as the weights do that were joined to others'."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def most_models(cfg: DictConfig, device: torch.device, at_once: int) -> int:
    """How many models like that of `cfg` a crew can have, where so many crews run at once: 1 or more."""
    return max(1, int(SHARE * free(device)) // (at_once * of_a_model(cfg)))


def of_a_model(cfg: DictConfig) -> int:
    """Bytes that a crew takes more with one more model: its weights and gradients, what its optimizer remembers and
    what a backward pass needs of a batch, and its own stream of images.

    Found with a step of one model on the CPU.
    """
    data = build.split(cfg, build.keep(cfg), torch.device("cpu"))
    model, loss = build.model(cfg, data, len(data.classes)), build.loss(cfg)
    optimizer = build.optimizer(cfg, model)
    weights, batch = list(model.parameters()), data.train[: cfg.data.batch_size]
    images, labels = batch.ready(batch.shuffled(), batch.numbers(len(batch.labels)))
    kept = list[Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.detach())
        return kept[-1]

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(model(images), labels)
    for tensor in weights:
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    state = [value for own in optimizer.state.values() for value in own.values() if isinstance(value, Tensor)]
    # Gradients of what was kept take as much again.
    stream = images.nbytes + 4 * len(data.train.labels)
    return OBJECTS + 2 * _bytes(weights) + _bytes(state) + 2 * _bytes(kept, but=weights) + stream


def free(device: torch.device) -> int:
    """Bytes that are free on the device, by the system's word: a torch that asked CUDA could not fork any more."""
    if device.type == "cuda":
        command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        with suppress(OSError, ValueError, subprocess.SubprocessError):
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
            return min(map(int, said.split())) * 2**20
        return UNKNOWN
    return min(_free_on_the_machine(), _free_in_the_container())


def _free_on_the_machine() -> int:
    try:
        table = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # not Linux
        return UNKNOWN


def _free_in_the_container() -> int:
    """What Docker, Kubernetes or Slurm leave this process, by Linux's control groups (version 2)."""
    try:
        group = CGROUP / OWN_GROUP.read_text().partition("0::/")[2].splitlines()[0]
        table = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        return limit - used + int(table["inactive_file"])  # a cache of files is given up for whoever wants it
    except (OSError, ValueError, KeyError, IndexError):  # no limit ("max"), or no such groups
        return UNKNOWN


def _bytes(tensors: Sequence[Tensor], but: Sequence[Tensor] = ()) -> int:
    """Of the memory that lies under the tensors, each part of it once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) - sum(storages.get(tensor.untyped_storage().data_ptr(), 0) for tensor in but)
