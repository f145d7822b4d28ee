"""CUDA graphs: a GPU is told a whole step's work in one call, where the calls one by one take longer than the work."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)
T = TypeVar("T")
WARM = 2  # calls before the recording, in which libraries set up what they keep
STREAMS = 32  # of work at a time: one model's optimizer fills a few of a GPU's hundred and more processors


class Recorded:
    """A function of tensors on a GPU, whose work is recorded at the third call and replayed at those that follow.

    It must find what it works on, but for its arguments, in the same place at every call; what it returns is
    overwritten by the next one. Arguments of other shapes, and work that can't be recorded, are done as ever.
    """

    def __init__(self, work: Callable[..., Tensor]) -> None:
        self.work, self.calls = work, 0
        self.places, self.result = list[Tensor](), torch.empty(0)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *given: Tensor) -> Tensor:
        self.places = self.places or [tensor.clone() for tensor in given]
        if [tensor.shape for tensor in given] != [place.shape for place in self.places]:
            return self.work(*given)
        for place, tensor in zip(self.places, given, strict=True):
            place.copy_(tensor)
        if self.calls == WARM:
            self._record()
        self.calls += 1
        if self.graph is None:
            return self.work(*self.places)
        self.graph.replay()
        return self.result

    def _record(self) -> None:
        """Record the work, which does none of it."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.places[0].device)
        torch.cuda.synchronize(stream.device)
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin()
                try:
                    self.result = self.work(*self.places)
                finally:
                    graph.capture_end()
            self.graph = graph
        except RuntimeError as error:  # the work looks at numbers on the way, say
            log.debug("not recorded as a CUDA graph: %s", error)
            random = torch.cuda.default_generators[stream.device.index]
            random.graphsafe_set_state(random.clone_state())  # or it would take all that follows for a recording
        torch.cuda.synchronize(stream.device)


def side_by_side(items: Sequence[T], device: torch.device) -> Iterator[T]:
    """The items, each to be worked on by the GPU beside the others, for one by itself leaves most of it idle."""
    here, streams = torch.cuda.current_stream(device), _streams(device)[: len(items)]
    for number, item in enumerate(items):
        stream = streams[number % len(streams)]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            yield item
    for stream in streams:
        here.wait_stream(stream)


@cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(STREAMS)]
