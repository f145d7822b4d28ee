"""A run by itself. (With others: mnist_exp.fused.)"""

import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

if TYPE_CHECKING:  # it imports torch, and --help does not wait for that
    from mnist_exp.loop import Row, Training

# What a run is until it is driven: it yields its parts and the number of an epoch, and is sent the epoch's row.
Steps = Generator[tuple["Training", int], "Row", float]


class TrainedAlone:
    """Makes of `main`, which yields wherever it wants an epoch trained, a function that trains each at once."""

    def __init__(self, main: Callable[[DictConfig], Steps]) -> None:
        functools.update_wrapper(self, main)
        self.__code__: Any = main.__code__  # Hydra looks for conf/ beside its file

    def __call__(self, cfg: DictConfig) -> float:
        """Do the run and return its value. What goes wrong in an epoch is raised in `main`, where it was asked for."""
        steps: Steps = self.__wrapped__(cfg)  # type: ignore[attr-defined]
        try:
            wanted = next(steps)
            while True:
                wanted = _train(steps, *wanted)
        except StopIteration as end:
            value: float = end.value
            return value


def _train(steps: Steps, training: "Training", number: int) -> tuple["Training", int]:
    from mnist_exp.loop import train_and_validate

    try:
        row = train_and_validate(training, number)
    except BaseException as error:
        return steps.throw(error)
    return steps.send(row)
