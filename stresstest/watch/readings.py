"""Numbers on their way from the device to the host, without a wait for the step under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class _Reading:
    step: int
    names: list[str]
    values: Tensor  # of `names`, on the host once `arrived`
    known: dict[str, float]
    arrived: torch.cuda.Event | None


class Readings:
    """Takes a step's numbers, and gives them back as floats: at once from a CPU, a step later from a GPU."""

    def __init__(self) -> None:
        self._pending: deque[_Reading] = deque()

    def put(self, step: int, numbers: Mapping[str, float | Tensor]) -> None:
        """Take scalars; tensors of one element may be on any device."""
        tensors = {name: value.detach().reshape(()) for name, value in numbers.items() if isinstance(value, Tensor)}
        known = {name: float(value) for name, value in numbers.items() if not isinstance(value, Tensor)}
        if not tensors:
            self._pending.append(_Reading(step, [], torch.empty(0), known, None))
            return
        device = next(iter(tensors.values())).device
        wide = torch.float32 if device.type == "mps" else torch.float64
        values = torch.stack([value.to(device, wide) for value in tensors.values()])
        arrived = None
        if device.type == "cuda":
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(torch.cuda.current_stream(device))
            values = host
        self._pending.append(_Reading(step, list(tensors), values, known, arrived))

    def take(self, everything: bool = False) -> list[tuple[int, dict[str, float]]]:
        """The steps whose numbers have arrived; all but the newest are waited for, or all of them."""
        done = []
        while self._pending:
            first = self._pending[0]
            waits = first.arrived is not None and not first.arrived.query()  # type: ignore[no-untyped-call]
            if waits and len(self._pending) == 1 and not everything:
                break
            if waits and first.arrived is not None:
                first.arrived.synchronize()
            self._pending.popleft()
            done.append((first.step, dict(zip(first.names, first.values.tolist(), strict=True)) | first.known))
        return done
