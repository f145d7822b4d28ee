"""Trainings that differ in their seeds alone: a shared optimizer treats their weights as one parameter group."""

import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR

from mnist_exp.training.loop import Training


class OptimizerGroup:
    """G trainings with equal `settings_key`, trained by the first one's optimizer settings and schedule.

    Attributes:
        trainings: The trainings.
        schedule: The schedule of the first training. It changes the settings in `param_group`.
        param_group: The parameter group of the first training's optimizer. During an epoch its `params` are `weights`.
        weights: The stacked trainable weights of the trainings, (G, ...) each: views of the weights of all K models.
    """

    def __init__(self, trainings: Sequence[Training], part: slice, stacked: Sequence[Tensor]) -> None:
        """Group trainings whose models are neighbours in a stack.

        Args:
            trainings: The trainings.
            part: The positions of their models in the stack.
            stacked: The trainable weights of the stack, (K, ...) each.
        """
        self.trainings, self.schedule = trainings, trainings[0].schedule
        [self.param_group] = trainings[0].optimizer.param_groups
        self.weights = [tensor.detach()[part] for tensor in stacked]
        self._params = [training.optimizer.param_groups[0]["params"] for training in trainings]
        self._trainable = [[tensor for tensor in params if tensor.requires_grad] for params in self._params]
        self._state = self._stacked_state()

    def __len__(self) -> int:
        """Return G."""
        return len(self.trainings)

    def is_capturable(self) -> bool:
        """Return whether a CUDA graph can contain the optimizer's step.

        It can if the step is one kernel, and the schedule changes no other setting than the learning rate.
        """
        return (
            isinstance(self.trainings[0].optimizer, Adam | AdamW | SGD)
            and bool(self.param_group["fused"])
            and type(self.schedule).__module__ == "torch.optim.lr_scheduler"
            and not isinstance(self.schedule, SequentialLR | ChainedScheduler)
            and not getattr(self.schedule, "cycle_momentum", False)
        )

    def load_states(self, optimizer: Optimizer) -> None:
        """Load the stacked states of the trainings' optimizers into the shared optimizer."""
        self.param_group["params"] = self.weights
        optimizer.state.update(self._state)
        first = self.trainings[0].optimizer
        first._opt_called = True  # type: ignore[attr-defined]  # the schedule warns if its optimizer did not step

    def store_states(self, optimizer: Optimizer) -> None:
        """Store the shared optimizer's states, settings and schedule in each training's own optimizer and schedule."""
        self._state = {weights: optimizer.state[weights] for weights in self.weights if weights in optimizer.state}
        schedule = self.schedule.state_dict()
        for index, training in enumerate(self.trainings):
            training.optimizer.param_groups[0].update(self.param_group | {"params": self._params[index]})
            training.optimizer.state.clear()
            for weights, own in zip(self.weights, self._trainable[index], strict=True):
                if weights in self._state:
                    training.optimizer.state[own] = {
                        name: value[index] if _is_per_weight(value, weights) else value
                        for name, value in self._state[weights].items()
                    }
            if index > 0:
                training.schedule.load_state_dict(schedule)

    def _stacked_state(self) -> dict[Tensor, dict[str, Any]]:
        """Return the states of the trainings' optimizers, by stacked weights."""
        optimizers = [training.optimizer for training in self.trainings]
        stacked: dict[Tensor, dict[str, Any]] = {}
        for weights, *own in zip(self.weights, *self._trainable, strict=True):
            if own[0] in optimizers[0].state:
                states = [optimizer.state[tensor] for optimizer, tensor in zip(optimizers, own, strict=True)]
                stacked[weights] = {
                    name: torch.stack([state[name] for state in states]) if _is_per_weight(value, own[0]) else value
                    for name, value in states[0].items()
                }
        return stacked


def settings_key(training: Training) -> tuple[str, ...]:
    """Return a key that is equal for trainings with equal losses, whose optimizers and schedules do the same."""
    [param_group] = training.optimizer.param_groups
    settings = {key: value for key, value in param_group.items() if key != "params"}
    schedule = f"{type(training.schedule)} {training.schedule.state_dict()}"
    return loss_key(training), f"{type(training.optimizer)} {settings}", schedule


def loss_key(training: Training) -> str:
    """Return a text that is equal for equal losses."""
    return pickle.dumps(training.loss).hex()


def _is_per_weight(value: Any, weights: Tensor) -> bool:
    """Return whether a value of an optimizer's state has a number for each weight; a step count has not."""
    return isinstance(value, Tensor) and value.shape == weights.shape
