"""What a run has learned, on disk: written whole or not at all, read without running anybody's code."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mnist_exp import files
from mnist_exp.data.batches import TrainingBatches


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and strings in (nested) dicts and lists. Raises OSError; the old file then stays."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files.write(path, buffer.getbuffer())


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save` wrote, its tensors put on `device`."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def everything(model: nn.Module, optimizer: Optimizer, schedule: LRScheduler, train: TrainingBatches) -> dict[str, Any]:
    """The whole state at an epoch's end: from it, training goes on with the same bits."""
    random = {
        "order": train.order.get_state(),
        "augmentation": train.chance.get_state(),
        "dropout": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        random["dropout_cuda"] = torch.cuda.get_rng_state(train.labels.device)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": random,
    }
