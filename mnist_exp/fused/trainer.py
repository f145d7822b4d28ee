"""Runs whose epochs are trained as one, each with its own weights, rates and random numbers, as if it were alone."""

import copy
import math
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR
from tqdm import tqdm

from mnist_exp.data.augment import to_device
from mnist_exp.data.batches import Batches, TrainingBatches, chunk_size
from mnist_exp.fused.cuda_graph import Recorded, side_by_side
from mnist_exp.fused.stack import Stack, structure
from mnist_exp.losses import CrossEntropy
from mnist_exp.store.metrics import Row
from mnist_exp.training.loop import ADVICE, Loss, Training

T = TypeVar("T")
ROWS = 16_384  # of activations at a time, in validation


class FusedTrainer:
    """Trainings with the same data, batches and number of epochs behind them, an epoch at a time.

    After each epoch the parts of every training (its model, optimizer, schedule, random streams) are as if it had been
    trained alone, to rounding; dropout's masks come from torch's global stream, one for all.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        leaders = dict[Hashable, TrainingBatches]()
        for it in trainings:
            leaders.setdefault(_stream(it.train), it.train)
        self.streams = sorted(leaders.values(), key=_augmentation)
        self.stream = [self.streams.index(leaders[_stream(it.train)]) for it in trainings]
        alike = defaultdict[str, list[int]](list)
        for place, it in enumerate(trainings):
            alike[structure(it.model)].append(place)
        self.trainers = [
            Trainer([trainings[place] for place in same], [self.stream[place] for place in same])
            for same in alike.values()
        ]

    def train_epoch(self, number: int) -> list[Row | FloatingPointError]:
        """Train all for an epoch; a row for each training, in their order, or the error of one that ran away.

        Seconds are a training's share of the time that all took.
        """
        start = time.perf_counter()
        rates = [it.optimizer.param_groups[0]["lr"] for it in self.trainings]
        for trainer in self.trainers:
            trainer.begin(len(self.streams[0]))
        progress = tqdm(
            batches(self.streams),
            desc=f"epoch {number} of {len(self.trainings)} models",
            total=len(self.streams[0]),
            unit="batch",
            leave=False,
            disable=None,
        )
        for images, labels in progress:
            for trainer in self.trainers:
                trainer.step(images, labels)
        for it, place in zip(self.trainings, self.stream, strict=True):
            it.train.order_rng.set_state(self.streams[place].order_rng.get_state())
            it.train.augment_rng.set_state(self.streams[place].augment_rng.get_state())
        told = {id(it): result for trainer in self.trainers for it, result in trainer.end(number)}
        seconds = (time.perf_counter() - start) / len(self.trainings)
        results = [told[id(it)] for it in self.trainings]
        return [
            Row(number, *it, rate, seconds) if isinstance(it, tuple) else it
            for it, rate in zip(results, rates, strict=True)
        ]


class Trainer:
    """Trains those whose models make a stack."""

    def __init__(self, trainings: Sequence[Training], streams: Sequence[int]) -> None:
        order = sorted(range(len(trainings)), key=lambda place: (_spelled(trainings[place]), streams[place]))
        self.trainings = [trainings[place] for place in order]
        self.streams = [streams[place] for place in order]
        self.stack = Stack([it.model for it in self.trainings], self.streams)
        self.learned = [weights for weights in self.stack.weights if weights.requires_grad]
        self.arms = [Arm(self.trainings[part], part, self.learned) for part in _runs(self.trainings, _spelled)]
        self.captain = copy.copy(self.trainings[0].optimizer)  # steps for all of them, arm by arm
        self.losses = [(self.trainings[part.start].loss, part) for part in _runs(self.trainings, _loss)]
        self.hits = torch.zeros(len(self.stack), dtype=torch.int64, device=self.learned[0].device)
        self.rates, self.lrs = list[float](), torch.zeros(len(self.arms), device=self.hits.device)
        self.recorded = self.hits.is_cuda and all(arm.is_recordable() for arm in self.arms)
        self.learn: Callable[[Tensor, Tensor], Tensor] = Recorded(self._learn) if self.recorded else self._learn

    def begin(self, steps: int) -> None:
        """Get ready for an epoch of so many steps."""
        self.stack.training = True
        # In tables: what each step leaves behind by itself would lie between the large tensors, and keep holes open.
        self.values = self.learned[0].new_zeros(steps, len(self.stack))
        self.hits.zero_()
        self.sizes = list[int]()
        self.captain.state = defaultdict(dict)
        for arm in self.arms:
            arm.lend(self.captain)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step of each model, on its stream's batch: images (S, N, C, H, W), labels (S, N)."""
        if self.recorded:
            self._send_rates()
        self.values[len(self.sizes)] = self.learn(images, labels)
        for arm in self.arms:
            arm.leader.schedule.step()
        self.sizes.append(labels.shape[1])

    def _send_rates(self) -> None:
        """Put the learning rates where the recorded step finds them."""
        rates = [arm.group["lr"] for arm in self.arms]
        if rates != self.rates:
            self.lrs.copy_(to_device(torch.tensor(rates), self.lrs.device))
            self.rates = rates

    def _learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """The step itself; each model's loss before it, (K,)."""
        labels, logits = self.stack.own(labels), self.stack(images)
        losses = self.loss(logits, labels)
        gradients = torch.autograd.grad(losses.sum(), self.learned)
        # Contiguous, or a fused kernel would take one for another.
        parts = zip(
            *(gradient.contiguous().split([arm.size for arm in self.arms]) for gradient in gradients), strict=True
        )
        for arm, own in zip(self.arms, parts, strict=True):
            for weights, gradient in zip(arm.weights, own, strict=True):
                weights.grad = gradient
        self._update()
        for arm in self.arms:
            for weights in arm.weights:
                weights.grad = None  # or there would be two of each in the next step
        self.hits += (logits.max(dim=2).indices == labels).sum(dim=1)
        return losses.detach()

    def _update(self) -> None:
        """The optimizers' step."""
        groups = [arm.group for arm in self.arms]
        if not self.recorded:
            self.captain.param_groups = groups
            self.captain.step()
            return
        given = {"capturable": torch.cuda.is_current_stream_capturing()}
        for group, lr in side_by_side(list(zip(groups, self.lrs, strict=True)), self.lrs.device):
            self.captain.param_groups = [group | given | {"lr": lr}]
            self.captain.step()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Each model's own loss, (K,)."""
        labels = labels.expand(len(logits), -1)
        return torch.cat([_each_loss(loss, logits[part], labels[part]) for loss, part in self.losses])

    def end(self, epoch: int) -> Iterator[tuple[Training, tuple[float, float, float, float] | FloatingPointError]]:
        """Each training with the losses and accuracies of its row, or with what went wrong."""
        for arm in self.arms:
            arm.take_back(self.captain)
        values = self.values.cpu().double()  # (steps, K)
        sizes = torch.tensor(self.sizes, dtype=torch.double)
        losses = (sizes @ values / sizes.sum()).tolist()
        accuracies = (self.hits.cpu() / sizes.sum()).tolist()
        val_losses, val_accuracies = self.evaluate(self.trainings[0].val)
        for place, it in enumerate(self.trainings):
            lost = (~values[:, place].isfinite()).nonzero()
            if len(lost):
                step = int(lost[0])
                said = f"the loss became {values[step, place]:.4g} at epoch {epoch}, step {step + 1}"
            elif not math.isfinite(val_losses[place]):
                said = f"the validation loss became {val_losses[place]} after epoch {epoch}"
            else:
                yield it, (losses[place], accuracies[place], val_losses[place], val_accuracies[place])
                continue
            yield it, FloatingPointError(f"{said}: {ADVICE}")

    @torch.inference_mode()
    def evaluate(self, data: Batches) -> tuple[list[float], list[float]]:
        """Losses and accuracies over all images, each counted once."""
        self.stack.training = False
        few = Batches(data.images, data.labels, max(1, ROWS // len(self.stack)), data.normalize)
        losses, errors = list[Tensor](), list[Tensor]()
        for images, labels in few:
            logits = self.stack(images.unsqueeze(0))
            losses.append(self.loss(logits, labels.unsqueeze(0)) * len(labels))
            errors.append((logits.max(dim=2).indices != labels).sum(dim=1))
        loss, share = (torch.stack(each).cpu().double().sum(dim=0) / len(data.labels) for each in (losses, errors))
        return loss.tolist(), (1 - share).tolist()


class Arm:
    """Trainings that differ in seeds alone: the first one's schedule, and settings of its optimizer, are for all."""

    def __init__(self, members: Sequence[Training], part: slice, weights: Sequence[Tensor]) -> None:
        """`part` is theirs of the stack's learned weights."""
        self.members, self.leader, self.size = members, members[0], len(members)
        [self.group] = self.leader.optimizer.param_groups
        self.weights = [tensor.detach()[part] for tensor in weights]
        self.params = [it.optimizer.param_groups[0]["params"] for it in members]
        self.own = [[ours for ours in params if ours.requires_grad] for params in self.params]
        self.state = self._joined()

    def is_recordable(self) -> bool:
        """Whether a CUDA graph can do the optimizer's step: it is one kernel, and of its settings only lr changes."""
        schedule = self.leader.schedule
        return (
            isinstance(self.leader.optimizer, Adam | AdamW | SGD)
            and bool(self.group["fused"])
            and type(schedule).__module__ == "torch.optim.lr_scheduler"
            and not isinstance(schedule, SequentialLR | ChainedScheduler)
            and not getattr(schedule, "cycle_momentum", False)
        )

    def lend(self, captain: Optimizer) -> None:
        """Have the captain step for all members, with the leader's settings."""
        self.group["params"] = self.weights
        captain.state.update(self.state)
        self.leader.optimizer._opt_called = True  # type: ignore[attr-defined]  # or its schedule would warn

    def take_back(self, captain: Optimizer) -> None:
        """Give every member's optimizer and schedule what is theirs."""
        self.state = {weights: captain.state[weights] for weights in self.weights if weights in captain.state}
        course = self.leader.schedule.state_dict()
        for place, (it, params, own) in enumerate(zip(self.members, self.params, self.own, strict=True)):
            it.optimizer.param_groups[0].update(self.group | {"params": params})
            it.optimizer.state.clear()
            for weights, ours in zip(self.weights, own, strict=True):
                if weights in self.state:
                    it.optimizer.state[ours] = {
                        name: value[place] if _is_like(value, weights) else value
                        for name, value in self.state[weights].items()
                    }
            if it is not self.leader:
                it.schedule.load_state_dict(course)

    def _joined(self) -> dict[Tensor, dict[str, Any]]:
        """What the members' optimizers remember, of all weights together."""
        states = [
            [it.optimizer.state.get(ours) for ours in own] for it, own in zip(self.members, self.own, strict=True)
        ]
        return {
            weights: {
                name: torch.stack([state[name] for state in each]) if _is_like(value, ours) else value
                for name, value in each[0].items()
            }
            for weights, ours, *each in zip(self.weights, self.own[0], *states, strict=True)
            if each[0] is not None
        }


def batches(streams: Sequence[TrainingBatches]) -> Iterator[tuple[Tensor, Tensor]]:
    """The next batch of each stream, together: images (S, N, C, H, W) and labels (S, N).

    Streams in a row with the same augmentation are made ready in one go, as many as there is room for. What is handed
    out is overwritten by what comes next.
    """
    size, most = streams[0].batch_size, chunk_size(streams[0].images.device)
    parts = _runs(streams, _augmentation)
    ahead = max(1, most // (size * min(part.stop - part.start for part in parts)))  # batches of a stream at a time
    room = max(1, most // (size * ahead))
    parts = [slice(at, min(at + room, part.stop)) for part in parts for at in range(part.start, part.stop, room)]
    data = streams[0].images
    orders = torch.empty(len(streams), len(data), dtype=torch.int32, device=data.device)  # half of what int64 takes
    for order, stream in zip(orders, streams, strict=True):
        order.copy_(stream.shuffled())
    images = labels = orders[:0]
    for rows in orders.split(ahead * size, dim=1):
        for part in parts:
            numbers = torch.cat([stream.random_numbers(rows.shape[1]) for stream in streams[part]])
            made, classes = streams[part.start].prepare(rows[part].flatten(), numbers)
            if images.shape[:2] != rows.shape:
                images, labels = made.new_empty(*rows.shape, *made.shape[1:]), classes.new_empty(rows.shape)
            images[part], labels[part] = made.view_as(images[part]), classes.view_as(labels[part])
        yield from zip(images.split(size, dim=1), labels.split(size, dim=1), strict=True)


def _stream(train: TrainingBatches) -> Hashable:
    """Equal for batches that come out equal."""
    chance = train.order_rng.get_state(), train.augment_rng.get_state()
    images = train.images.data_ptr(), len(train.images), train.batch_size
    return *images, _augmentation(train), *(state.numpy().tobytes() for state in chance)


def _augmentation(train: TrainingBatches) -> bytes:
    """Equal for equal augmentations."""
    return pickle.dumps(train.augment)


def _each_loss(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each model by itself: (K, N, classes) and (K, N) to (K,)."""
    if type(loss) is not CrossEntropy:
        losses: Tensor = vmap(loss)(logits, labels)
        return losses
    each = F.cross_entropy(  # as vmap does it, in half the time
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=loss.label_smoothing
    )
    return each.view(labels.shape).mean(dim=1)


def _loss(it: Training) -> str:
    """Equal for equal losses."""
    return pickle.dumps(it.loss).hex()


def _spelled(it: Training) -> tuple[str, ...]:
    """Equal for trainings whose losses are equal, and whose optimizers and schedules do the same."""
    [group] = it.optimizer.param_groups
    settings = {key: value for key, value in group.items() if key != "params"}
    return _loss(it), f"{type(it.optimizer)} {settings}", f"{type(it.schedule)} {it.schedule.state_dict()}"


def _runs(items: Sequence[T], key: Callable[[T], Hashable]) -> list[slice]:
    """The slices of items in a row with equal keys."""
    ends = accumulate(len(list(group)) for _, group in groupby(items, key))
    return [slice(*pair) for pair in pairwise([0, *ends])]


def _is_like(value: Any, weights: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weights.shape
