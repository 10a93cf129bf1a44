"""A step as one CUDA graph: captured once for a shape, then replayed, so that its launches cost the host nothing.

What is captured repeats with the same memory: inputs are copied to where the graph reads them, and everything that
training changes is changed in place. Python does not run again, so that a step may read nothing of the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Work = Callable[..., Sequence[Tensor]]
Captured = tuple[Callable[[], None], Sequence[Tensor]]  # what runs it again, and where its results then are
Capture = Callable[[Callable[[], Sequence[Tensor]]], Captured]
FIRST_REPLAY = 2  # step of a shape; those before it run as they are, for what libraries make at first use


class StepGraph:
    """The steps of one population: as they are at first, then by a graph; anew where the inputs' shapes change."""

    def __init__(self, work: Work, capture: Capture | None = None) -> None:
        self._work = work
        self._capture = capture or _cuda_graph
        self._shapes: list[tuple[torch.Size, torch.dtype]] = []
        self._eager = 0
        self._inputs: list[Tensor] = []
        self._captured: Captured | None = None

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """What the work gives for these inputs."""
        shapes = [(tensor.shape, tensor.dtype) for tensor in inputs]
        if shapes != self._shapes:
            self._shapes, self._eager, self._captured = shapes, 0, None
        if self._captured is None:
            if self._eager < FIRST_REPLAY:
                self._eager += 1
                return _beside(self._work, inputs)
            self._inputs = [tensor.clone() for tensor in inputs]
            self._captured = self._capture(lambda: self._work(*self._inputs))
        replay, outputs = self._captured
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)
        replay()
        return [output.clone() for output in outputs]


def _cuda_graph(work: Callable[[], Sequence[Tensor]]) -> Captured:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = work()
    return graph.replay, outputs


def _beside(work: Work, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """On a stream of its own, as torch asks of what runs before a capture."""
    if inputs[0].device.type != "cuda":
        return work(*inputs)
    own = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
    current = torch.cuda.current_stream()
    own.wait_stream(current)
    with torch.cuda.stream(own):
        outputs = work(*inputs)
    current.wait_stream(own)
    return outputs
