"""How many models there is memory for, and how to hold on to it."""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mnist_exp import build
from mnist_exp.system import resources

SHARE = 0.5  # of the memory that is free: with the holes in malloc's heap, crews took up to 1.2 times the estimate
OBJECTS = 200_000  # bytes of a run's config, modules, generators and tables
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


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
    return max(1, int(SHARE * resources.free_memory(device.type)) // (at_once * of_a_model(cfg)))


def of_a_model(cfg: DictConfig) -> int:
    """Bytes that a crew takes more with one more model: its weights and gradients, what its optimizer remembers and
    what a backward pass needs of a batch, and its own stream of images.

    Found with a step of one model on the CPU.
    """
    data = build.split(cfg, build.cached_source(cfg), torch.device("cpu"))
    model, loss = build.model(cfg, data), build.loss(cfg)
    optimizer = build.optimizer(cfg, model)
    weights, batch = list(model.parameters()), data.train[: cfg.data.batch_size]
    images, labels = batch.prepare(batch.shuffled(), batch.random_numbers(len(batch.labels)))
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


def _bytes(tensors: Sequence[Tensor], but: Sequence[Tensor] = ()) -> int:
    """Of the memory that lies under the tensors, each part of it once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) - sum(storages.get(tensor.untyped_storage().data_ptr(), 0) for tensor in but)
