"""Training and evaluation: the loop over the batches of an epoch, and a pass over a part of the data."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from mnist_exp.data.batches import Batches, TrainingBatches
from mnist_exp.store.metrics import Row
from mnist_exp.system import streams

ADVICE = "a smaller optimizer.lr usually helps"
READ_EVERY = 50  # steps: a GPU waits whenever a loss is read, and showing it costs as much as a layer of the model


class Loss(Protocol):
    """A loss, which also knows how the model's logits become probabilities."""

    def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor:
        """Return the mean over the N images of logits (N, C) and labels (N,)."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the predicted probability of each class, (N, C)."""


class Evaluation(NamedTuple):
    """The result of a model on a part of the data."""

    loss: float
    accuracy: float
    errors: int
    predicted: Tensor  # the class of each image, int64 (N,)
    probabilities: Tensor  # of each class, (N, C)


class Training(NamedTuple):
    """The parts of a run that an epoch trains."""

    model: nn.Module
    loss: Loss
    optimizer: Optimizer
    schedule: LRScheduler
    train: TrainingBatches
    val: Batches


def train_and_validate(training: Training, epoch: int) -> Row:
    """Train for one epoch, validate, and return the row of metrics.csv.

    Raises:
        FloatingPointError: A loss is not finite.
    """
    start, lr = time.perf_counter(), training.optimizer.param_groups[0]["lr"]
    train_loss, train_accuracy = train_epoch(training, epoch)
    result = evaluate(training.model, training.loss, training.val)
    if not math.isfinite(result.loss):
        raise FloatingPointError(f"the validation loss became {result.loss} after epoch {epoch}: {ADVICE}")
    seconds = time.perf_counter() - start
    return Row(epoch, train_loss, train_accuracy, result.loss, result.accuracy, lr, seconds)


def train_epoch(training: Training, epoch: int) -> tuple[float, float]:
    """Take one optimizer step per batch.

    Returns:
        The mean loss and the accuracy over all augmented images, each as the model was when it saw the image.

    Raises:
        FloatingPointError: A loss is not finite. The epoch stops within 50 steps.
    """
    model, loss, optimizer, schedule, train, _ = training
    model.train()
    weights = list(model.parameters())
    losses: list[Tensor] = []  # of each step; like the hits, they stay on the device until they are read
    hits: list[Tensor] = []
    quiet = not streams.shows_progress()
    progress = tqdm(train, desc=f"epoch {epoch}", unit="batch", leave=False, disable=quiet)
    for step, (images, labels) in enumerate(progress, start=1):
        logits = model(images)
        batch_loss = loss(logits, labels)
        for tensor in weights:  # as optimizer.zero_grad(), which takes 3 % of a small model's step
            tensor.grad = None
        batch_loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(batch_loss.detach())
        hits.append(logits.argmax(dim=1) == labels)
        if step % READ_EVERY == 0:
            values = read_finite(losses[-READ_EVERY:], step, epoch)
            progress.set_postfix_str(f"loss {values[-1]:.3f}", refresh=False)
    values = read_finite(losses, len(losses), epoch)
    loss_sum = sum(value * len(hit) for value, hit in zip(values, hits, strict=True))
    return loss_sum / len(train.labels), int(torch.cat(hits).sum()) / len(train.labels)


def read_finite(losses: Sequence[Tensor], last: int, epoch: int) -> list[float]:
    """Read the losses of consecutive steps from the device.

    Args:
        losses: One per step, of no dimensions.
        last: The number of the last of these steps.
        epoch: Their epoch.

    Raises:
        FloatingPointError: A loss is not finite.
    """
    values: list[float] = torch.stack(list(losses)).tolist()
    for step, value in enumerate(values, start=last - len(values) + 1):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at epoch {epoch}, step {step}: {ADVICE}")
    return values


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean, over the classes that there are, of the accuracy on the images of a class.

    Args:
        predicted: int64 (N,).
        labels: int64 (N,).
    """
    images = labels.bincount()
    hits = labels[predicted == labels].bincount(minlength=len(images))
    return float((hits.double() / images)[images > 0].mean())


@torch.inference_mode()
def evaluate(model: nn.Module, loss: Loss, data: Batches) -> Evaluation:
    """Return the result over all images. Each image counts once, whatever the batch size."""
    model.eval()
    logits = torch.cat([model(images) for images, _ in data])
    predicted = logits.argmax(dim=1)
    errors = int((predicted != data.labels).sum())
    accuracy = 1 - errors / len(data.labels)
    return Evaluation(loss(logits, data.labels).item(), accuracy, errors, predicted, loss.probabilities(logits))
