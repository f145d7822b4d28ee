"""How many models fit into memory, and how a process keeps the memory that it needs again."""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from mnist_exp.data.batches import TrainingBatches
from mnist_exp.system import resources
from mnist_exp.training.loop import Loss

SHARE = 0.5  # of the free memory: with a fragmented heap, fused groups took up to 1.2 times the estimate
OBJECTS = 200_000  # bytes per run for its config, modules, generators and tables
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> None:
    """Keep freed memory in this process instead of returning it to the system, if the C library is glibc.

    The gradients of a large group take tens of megabytes in each step. Getting them from the system page by page took
    longer than computing them.
    """
    with suppress(AttributeError):  # another C library
        if sys.platform == "linux":
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def trim() -> None:
    """Return to the system what is free now: stacking the weights leaves holes where each model's weights were."""
    with suppress(AttributeError):
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


def max_models(bytes_per_model: int, device: torch.device, num_groups: int) -> int:
    """Return how many models each of `num_groups` fused groups can have if all train at once: 1 or more."""
    return max(1, int(SHARE * resources.free_memory(device.type)) // (num_groups * bytes_per_model))


def bytes_per_model(
    model: nn.Module, loss: Loss, optimizer: Optimizer, train: TrainingBatches, checkpoints: int
) -> int:
    """Return the bytes that one more model adds to a fused group.

    These are its weights and gradients, the optimizer's state, copies of it and of the weights for checkpoints, what a
    backward pass keeps of a batch, and a stream of images of its own. They are measured in a training step, which
    changes the weights.

    Args:
        model: The model, on the CPU.
        loss: Its loss.
        optimizer: Its optimizer, before the first step.
        train: The training images.
        checkpoints: The copies for checkpoints.
    """
    weights, batch = list(model.parameters()), train[: train.batch_size]
    images, labels = batch.prepare(batch.shuffled(), batch.random_numbers(len(batch.labels)))
    saved: list[Tensor] = []

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor.detach())
        return saved[-1]

    with saved_tensors_hooks(save, lambda tensor: tensor):
        loss(model(images), labels)
    for tensor in weights:
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    activations = _num_bytes(saved, without=weights)  # their gradients take as much again
    stream = images.nbytes + 4 * len(train.labels)
    trained = (2 + checkpoints) * _num_bytes(weights) + (1 + checkpoints) * _num_bytes(state)
    return OBJECTS + trained + 2 * activations + stream


def _num_bytes(tensors: Sequence[Tensor], without: Sequence[Tensor] = ()) -> int:
    """Return the size of the storages of the tensors; a storage that several tensors share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values()) - sum(storages.get(tensor.untyped_storage().data_ptr(), 0) for tensor in without)
