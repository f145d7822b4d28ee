"""CUDA graph capture: launch all kernels of a training step with one call.

A small model's kernels take less time than launching them one by one.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)
T = TypeVar("T")
WARMUP_CALLS = 2  # eager calls before the capture, in which libraries allocate their workspaces
NUM_STREAMS = 32  # one model's optimizer occupies few of a GPU's 100 or more multiprocessors


class CapturedStep:
    """A function of CUDA tensors that is captured as a CUDA graph at the third call, and replayed from then on.

    Apart from its arguments, the function must find its tensors at the same addresses in every call. Each call
    overwrites the result of the one before. Arguments of other shapes, and functions that can't be captured (they read
    a value back, for example), fall back to eager execution.

    Attributes:
        graph: The captured graph; None before the capture, and if it failed.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        """Wrap a function, which takes tensors on one device and returns one."""
        self.graph: torch.cuda.CUDAGraph | None = None
        self._function, self._calls = function, 0
        self._inputs: list[Tensor] = []  # where the graph reads its arguments
        self._result = torch.empty(0)

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Call the function, or replay its graph."""
        self._inputs = self._inputs or [tensor.clone() for tensor in arguments]
        if [tensor.shape for tensor in arguments] != [tensor.shape for tensor in self._inputs]:
            return self._function(*arguments)
        for tensor, argument in zip(self._inputs, arguments, strict=True):
            tensor.copy_(argument)
        if self._calls == WARMUP_CALLS:
            self._capture()
        self._calls += 1
        if self.graph is None:
            return self._function(*self._inputs)
        self.graph.replay()
        return self._result

    def _capture(self) -> None:
        """Capture the function, which executes none of its kernels."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(self._inputs[0].device)
        torch.cuda.synchronize(stream.device)
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin()
                try:
                    self._result = self._function(*self._inputs)
                finally:
                    graph.capture_end()
            self.graph = graph
        except RuntimeError as error:
            log.debug("can't be captured as a CUDA graph: %s", error)
            generator = torch.cuda.default_generators[stream.device.index]
            generator.graphsafe_set_state(generator.clone_state())  # the old state still takes part in the capture
        torch.cuda.synchronize(stream.device)


def on_parallel_streams(items: Sequence[T], device: torch.device) -> Iterator[T]:
    """Yield each item while a CUDA stream of its own is current, so that the kernels of different items overlap.

    The streams wait for the work before the loop, and the work after the loop waits for the streams.
    """
    current, streams = torch.cuda.current_stream(device), _streams(device)[: len(items)]
    for index, item in enumerate(items):
        stream = streams[index % len(streams)]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            yield item
    for stream in streams:
        current.wait_stream(stream)


@cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(NUM_STREAMS)]
