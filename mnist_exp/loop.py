"""Learning and judging: `train_and_validate` makes a row of an epoch, `evaluate` reads a part of the data once."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from mnist_exp.data.batches import Batches, TrainingBatches

ADVICE = "a smaller optimizer.lr usually helps"
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), labels (N,) -> the mean over the N images


class Row(NamedTuple):
    """One epoch. Accuracies are fractions; training figures are means over the epoch's steps, on augmented images."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float  # at the epoch's first step
    seconds: float  # training and validation


class Evaluation(NamedTuple):
    """What a model makes of a part of the data."""

    loss: float
    accuracy: float
    errors: int
    logits: Tensor  # (N, C)


class Training(NamedTuple):
    """The parts of a run that an epoch needs, and changes."""

    model: nn.Module
    loss: Loss
    optimizer: Optimizer
    schedule: LRScheduler
    train: TrainingBatches
    val: Batches


def train_and_validate(parts: Training, epoch: int) -> Row:
    """Train for an epoch, and judge it. Raises FloatingPointError as soon as a loss is not finite."""
    start, lr = time.perf_counter(), parts.optimizer.param_groups[0]["lr"]
    train_loss, train_accuracy = train_epoch(parts, epoch)
    result = evaluate(parts.model, parts.loss, parts.val)
    if not math.isfinite(result.loss):
        raise FloatingPointError(f"the validation loss became {result.loss} after epoch {epoch}: {ADVICE}")
    seconds = time.perf_counter() - start
    return Row(epoch, train_loss, train_accuracy, result.loss, result.accuracy, lr, seconds)


def train_epoch(parts: Training, epoch: int) -> tuple[float, float]:
    """One step a batch; the mean loss and the accuracy over all images as the model met them."""
    model, loss, optimizer, schedule, train, _ = parts
    model.train()
    weights, loss_sum, hits = list(model.parameters()), 0.0, list[Tensor]()
    progress = tqdm(train, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None)  # None: quiet in a file
    for step, (images, labels) in enumerate(progress, start=1):
        logits = model(images)
        batch_loss = loss(logits, labels)
        for tensor in weights:  # as optimizer.zero_grad(), which takes 3 % of a small model's step
            tensor.grad = None
        batch_loss.backward()
        optimizer.step()
        schedule.step()
        value = batch_loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at epoch {epoch}, step {step}: {ADVICE}")
        loss_sum += value * len(labels)
        hits.append(logits.argmax(dim=1) == labels)
        if step % 50 == 1:  # writing it costs as much as a layer of the model
            progress.set_postfix_str(f"loss {value:.3f}", refresh=False)
    return loss_sum / len(train.labels), int(torch.cat(hits).sum()) / len(train.labels)


@torch.inference_mode()
def evaluate(model: nn.Module, loss: Loss, data: Batches) -> Evaluation:
    """Loss, accuracy and logits over all images, each counted once, whatever the size of a batch."""
    model.eval()
    logits = torch.cat([model(images) for images, _ in data])
    errors = int((logits.argmax(dim=1) != data.labels).sum())
    return Evaluation(loss(logits, data.labels).item(), 1 - errors / len(data.labels), errors, logits)
