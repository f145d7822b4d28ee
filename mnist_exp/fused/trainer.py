"""Train several runs as one fused group, each with its own weights, learning rate and random numbers."""

import copy
import math
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap
from tqdm import tqdm

from mnist_exp.data.augment import to_device
from mnist_exp.data.batches import Batches, TrainingBatches, chunk_size
from mnist_exp.fused.cuda_graph import CapturedStep, on_parallel_streams
from mnist_exp.fused.optimizer_group import OptimizerGroup, loss_key, settings_key
from mnist_exp.fused.stack import Stack, stack_key
from mnist_exp.losses import CrossEntropy
from mnist_exp.store.metrics import Row
from mnist_exp.training.loop import ADVICE, Loss, Training

T = TypeVar("T")
Metrics = tuple[float, float, float, float]  # train loss and accuracy, val loss and accuracy
MAX_ROWS = 16_384  # images times models in one forward pass of the validation


class FusedTrainer:
    """Trains K trainings together, an epoch at a time.

    The trainings must share their data, batch size and number of finished epochs. After each epoch all parts of every
    training (model, optimizer, schedule, random generators) are, up to rounding, as if it had been trained alone.
    Dropout is the exception: its masks come from torch's global generator, which all trainings share.

    Attributes:
        trainings: The trainings.
        streams: The different streams of batches among the trainings. Trainings with equal seeds share one.
        trainers: One trainer for each set of trainings whose models can be stacked.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        """Stack the models. The weights of each become views of the stacked weights."""
        self.trainings = trainings
        first_with: dict[Hashable, TrainingBatches] = {}
        for training in trainings:
            first_with.setdefault(_stream_key(training.train), training.train)
        self.streams = sorted(first_with.values(), key=_augmentation_key)
        self._stream_of = [self.streams.index(first_with[_stream_key(training.train)]) for training in trainings]
        stackable: defaultdict[str, list[int]] = defaultdict(list)
        for index, training in enumerate(trainings):
            stackable[stack_key(training.model)].append(index)
        for indices in stackable.values():  # neighbours share an optimizer group, or have neighbouring streams
            indices.sort(key=lambda index: (settings_key(trainings[index]), self._stream_of[index]))
        self._order = [index for indices in stackable.values() for index in indices]
        self.trainers = [
            StackTrainer([trainings[index] for index in indices], [self._stream_of[index] for index in indices])
            for indices in stackable.values()
        ]

    def train_epoch(self, epoch: int) -> list[Row | FloatingPointError]:
        """Train and validate all trainings for one epoch.

        Args:
            epoch: The number of the epoch; the first is 1.

        Returns:
            One result per training: its row of metrics.csv, or the error if a loss is not finite. The seconds of a row
            are the training's share of the time that all took.
        """
        start = time.perf_counter()
        lrs = [training.optimizer.param_groups[0]["lr"] for training in self.trainings]
        for trainer in self.trainers:
            trainer.begin_epoch(len(self.streams[0]))
        progress = tqdm(
            batches(self.streams),
            desc=f"epoch {epoch} of {len(self.trainings)} models",
            total=len(self.streams[0]),
            unit="batch",
            leave=False,
            disable=None,
        )
        for images, labels in progress:
            for trainer in self.trainers:
                trainer.step(images, labels)
        for training, stream in zip(self.trainings, self._stream_of, strict=True):
            training.train.order_rng.set_state(self.streams[stream].order_rng.get_state())
            training.train.augment_rng.set_state(self.streams[stream].augment_rng.get_state())
        ended = (result for trainer in self.trainers for result in trainer.end_epoch(epoch))
        results = dict(zip(self._order, ended, strict=True))
        seconds = (time.perf_counter() - start) / len(self.trainings)
        rows: list[Row | FloatingPointError] = []
        for index, lr in enumerate(lrs):
            result = results[index]
            rows.append(result if isinstance(result, FloatingPointError) else Row(epoch, *result, lr, seconds))
        return rows


class StackTrainer:
    """Trains K trainings whose models are stacked.

    Attributes:
        stack: The models.
        groups: The trainings by the settings of their optimizers; a training's position is that of its model.
        optimizer: The shared optimizer, which takes the steps of all groups.
        is_captured: Whether a CUDA graph takes the steps.
        compute_step: What a step computes; see `_compute_step`.
        batch_sizes: The sizes of the epoch's batches so far.
    """

    def __init__(self, trainings: Sequence[Training], streams: Sequence[int]) -> None:
        """Stack the models.

        Args:
            trainings: The trainings. Those with equal settings should be neighbours: they form one group.
            streams: For each training, the index of its stream of batches.
        """
        self.stack = Stack([training.model for training in trainings], streams)
        self._weights = [tensor for tensor in self.stack.weights if tensor.requires_grad]
        self.groups = [
            OptimizerGroup(trainings[part], part, self._weights) for part in _equal_parts(trainings, settings_key)
        ]
        self.optimizer = copy.copy(trainings[0].optimizer)
        self._losses = [(trainings[part.start].loss, part) for part in _equal_parts(trainings, loss_key)]
        self._val = trainings[0].val
        self._hits = torch.zeros(len(self.stack), dtype=torch.int64, device=self._weights[0].device)
        self._lrs: list[float] = []
        self._device_lrs = torch.zeros(len(self.groups), device=self._hits.device)  # where a CUDA graph reads them
        self.is_captured = self._hits.is_cuda and all(group.is_capturable() for group in self.groups)
        self.compute_step: Callable[[Tensor, Tensor], Tensor] = self._compute_step
        if self.is_captured:
            self.compute_step = CapturedStep(self._compute_step)

    def begin_epoch(self, num_steps: int) -> None:
        """Prepare for an epoch of `num_steps` steps."""
        self.stack.training = True
        # One table for all steps: small tensors that outlive a step would fragment the heap between the large ones.
        self._step_losses = self._weights[0].new_zeros(num_steps, len(self.stack))
        self._hits.zero_()
        self.batch_sizes: list[int] = []
        self.optimizer.state = defaultdict(dict)
        for group in self.groups:
            group.load_states(self.optimizer)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one optimizer step per model, each on the batch of its stream.

        Args:
            images: Normalized images, (S, N, C, H, W).
            labels: Labels, (S, N) int64.
        """
        if self.is_captured:
            self._send_lrs()
        self._step_losses[len(self.batch_sizes)] = self.compute_step(images, labels)
        for group in self.groups:
            group.schedule.step()
        self.batch_sizes.append(labels.shape[1])

    def _send_lrs(self) -> None:
        """Copy the learning rates to the device, if they have changed."""
        lrs = [group.param_group["lr"] for group in self.groups]
        if lrs != self._lrs:
            self._device_lrs.copy_(to_device(torch.tensor(lrs), self._device_lrs.device))
            self._lrs = lrs

    def _compute_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute one step of all models, and return their losses before it, (K,)."""
        labels, logits = self.stack.per_model(labels), self.stack(images)
        losses = self._loss(logits, labels)
        gradients = torch.autograd.grad(losses.sum(), self._weights)
        sizes = [len(group) for group in self.groups]
        # A fused kernel misreads gradients that are not contiguous.
        by_group = zip(*(gradient.contiguous().split(sizes) for gradient in gradients), strict=True)
        for group, group_gradients in zip(self.groups, by_group, strict=True):
            for tensor, gradient in zip(group.weights, group_gradients, strict=True):
                tensor.grad = gradient
        self._step_optimizer()
        for group in self.groups:
            for tensor in group.weights:
                tensor.grad = None  # frees the memory before the next step needs it
        self._hits += (logits.max(dim=2).indices == labels).sum(dim=1)
        return losses.detach()

    def _step_optimizer(self) -> None:
        param_groups = [group.param_group for group in self.groups]
        if not self.is_captured:
            self.optimizer.param_groups = param_groups
            self.optimizer.step()
            return
        capturable = torch.cuda.is_current_stream_capturing()
        on_streams = on_parallel_streams(
            list(zip(param_groups, self._device_lrs, strict=True)), self._device_lrs.device
        )
        for param_group, lr in on_streams:
            self.optimizer.param_groups = [param_group | {"capturable": capturable, "lr": lr}]
            self.optimizer.step()

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each model, (K,), for logits (K, N, classes) and labels (K, N) or (1, N)."""
        labels = labels.expand(len(logits), -1)
        return torch.cat([_loss_per_model(loss, logits[part], labels[part]) for loss, part in self._losses])

    def end_epoch(self, epoch: int) -> list[Metrics | FloatingPointError]:
        """Give each training its state back, and validate.

        Args:
            epoch: The number of the epoch, for the error.

        Returns:
            One result per training: its losses and accuracies, or the error if a loss is not finite.
        """
        for group in self.groups:
            group.store_states(self.optimizer)
        step_losses = self._step_losses.cpu().double()  # (steps, K)
        sizes = torch.tensor(self.batch_sizes, dtype=torch.double)
        losses = (sizes @ step_losses / sizes.sum()).tolist()
        accuracies = (self._hits.cpu() / sizes.sum()).tolist()
        val_losses, val_accuracies = self._validate()
        results: list[Metrics | FloatingPointError] = []
        for index, metrics in enumerate(zip(losses, accuracies, val_losses, val_accuracies, strict=True)):
            not_finite = (~step_losses[:, index].isfinite()).nonzero()
            if len(not_finite):
                step = int(not_finite[0])
                message = f"the loss became {step_losses[step, index]:.4g} at epoch {epoch}, step {step + 1}"
                results.append(FloatingPointError(f"{message}: {ADVICE}"))
            elif not math.isfinite(val_losses[index]):
                message = f"the validation loss became {val_losses[index]} after epoch {epoch}"
                results.append(FloatingPointError(f"{message}: {ADVICE}"))
            else:
                results.append(metrics)
        return results

    @torch.inference_mode()
    def _validate(self) -> tuple[list[float], list[float]]:
        """Return each model's loss and accuracy over all validation images; each image counts once."""
        self.stack.training = False
        val = self._val
        losses: list[Tensor] = []
        errors: list[Tensor] = []
        for images, labels in Batches(val.images, val.labels, max(1, MAX_ROWS // len(self.stack)), val.normalize):
            logits = self.stack(images.unsqueeze(0))
            losses.append(self._loss(logits, labels.unsqueeze(0)) * len(labels))
            errors.append((logits.max(dim=2).indices != labels).sum(dim=1))
        loss, error = (torch.stack(sums).cpu().double().sum(dim=0) / len(val.labels) for sums in (losses, errors))
        return loss.tolist(), (1 - error).tolist()


def batches(streams: Sequence[TrainingBatches]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the next batch of all streams: images (S, N, C, H, W) and labels (S, N).

    Neighbouring streams with the same augmentation are augmented together, as many as a chunk has room for. The next
    chunk overwrites the batches of the one before.
    """
    size, chunk = streams[0].batch_size, chunk_size(streams[0].images)
    parts = _equal_parts(streams, _augmentation_key)
    ahead = max(1, chunk // (size * min(part.stop - part.start for part in parts)))  # batches per stream and chunk
    room = max(1, chunk // (size * ahead))  # streams per chunk
    parts = [
        slice(start, min(start + room, part.stop)) for part in parts for start in range(part.start, part.stop, room)
    ]
    data = streams[0].images
    orders = torch.empty(len(streams), len(data), dtype=torch.int32, device=data.device)  # half the memory of int64
    for order, stream in zip(orders, streams, strict=True):
        order.copy_(stream.shuffled())
    images = labels = orders[:0]
    for rows in orders.split(ahead * size, dim=1):
        for part in parts:
            numbers = torch.cat([stream.random_numbers(rows.shape[1]) for stream in streams[part]])
            part_images, part_labels = streams[part.start].prepare(rows[part].flatten(), numbers)
            if images.shape[:2] != rows.shape:
                images = part_images.new_empty(*rows.shape, *part_images.shape[1:])
                labels = part_labels.new_empty(rows.shape)
            images[part], labels[part] = part_images.view_as(images[part]), part_labels.view_as(labels[part])
        yield from zip(images.split(size, dim=1), labels.split(size, dim=1), strict=True)


def _stream_key(train: TrainingBatches) -> Hashable:
    """Return a key that is equal for streams that yield equal batches."""
    images = train.images.data_ptr(), len(train.images), train.batch_size
    states = train.order_rng.get_state(), train.augment_rng.get_state()
    return *images, _augmentation_key(train), *(state.numpy().tobytes() for state in states)


def _augmentation_key(train: TrainingBatches) -> bytes:
    """Return a key that is equal for equal augmentations."""
    return pickle.dumps(train.augment)


def _loss_per_model(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each model: (K, N, classes) and (K, N) to (K,)."""
    if type(loss) is not CrossEntropy:
        losses: Tensor = vmap(loss)(logits, labels)
        return losses
    per_image = F.cross_entropy(  # takes half the time of vmap
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=loss.label_smoothing
    )
    return per_image.view(labels.shape).mean(dim=1)


def _equal_parts(items: Sequence[T], key: Callable[[T], Hashable]) -> list[slice]:
    """Return the slices of neighbouring items with equal keys."""
    ends = accumulate(len(list(group)) for _, group in groupby(items, key))
    return [slice(*pair) for pair in pairwise([0, *ends])]
