"""How much memory training needs, how much there is, and what to do when the estimate was wrong."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from stresstest.engine.machine import forget_peak, free_memory, peak_memory, resident_memory
from stresstest.engine.replicas import Training
from stresstest.models.block import Model

Row = TypeVar("Row")
Answer = TypeVar("Answer")

# On a CPU a step of a wider population costs a transformer some 0.9 times as much a replica.
_CPU_REPLICAS = 8
_USABLE_SHARE = 0.8
_GIB = 1 << 30


class OutOfMemoryError(Exception):
    """A single replica does not fit: never an instability. `text` is the traceback."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


@dataclass(frozen=True)
class Need:
    """Bytes that one replica needs, by estimate."""

    parameters: int
    gradients: int
    optimizer_state: int
    activations: int

    def __add__(self, other: Need) -> Need:
        """What both need at the same time."""
        return Need(
            self.parameters + other.parameters,
            self.gradients + other.gradients,
            self.optimizer_state + other.optimizer_state,
            self.activations + other.activations,
        )

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer_state + self.activations

    def __str__(self) -> str:
        return (
            f"{gib(self.total)} (parameters {gib(self.parameters)}, gradients {gib(self.gradients)}, "
            f"optimizer state {gib(self.optimizer_state)}, activations {gib(self.activations)})"
        )


def gib(size: float) -> str:
    """Bytes in GiB or MiB, as printed."""
    return f"{size / _GIB:.3g} GiB" if size >= _GIB else f"{size / (1 << 20):.3g} MiB"


def training_need(num_parameters: int, num_slots: int, activation_bytes: int, accumulates: bool = False) -> Need:
    """Of one replica in training: float32 parameters, gradients, `num_slots` matrices of optimizer state.

    One that `accumulates` has a second matrix of gradients, of the micro-batch.
    """
    size = 4 * num_parameters
    return Need(size, (1 + accumulates) * size, num_slots * size, activation_bytes)


def probe_need(num_parameters: int, activation_bytes: int) -> Need:
    """Of one replica while its signal is measured: parameters in float32 and float64, the rest in float64.

    Gradients are kept twice, to be averaged over batches.
    """
    size = 4 * num_parameters
    return Need(3 * size, 4 * size, 0, 2 * activation_bytes)


def replicas_that_fit(model: Model, training: Training, batch_size: int, share: float = 1.0) -> int:
    """How many replicas a population may have that may take a share of what is free, by estimate (at least 1)."""
    slots = len(training.optimizer.slots)
    micro = batch_size if training.micro_batch is None else min(batch_size, training.micro_batch)
    activations = model.activation_bytes(micro, training.dtype != torch.float32)
    need = training_need(model.layout.num_parameters, slots, activations, micro < batch_size)
    fit = max(1, int(share * _USABLE_SHARE * free_bytes(training.device)) // need.total)
    return fit if training.device.type == "cuda" else min(fit, _CPU_REPLICAS)


def free_bytes(device: torch.device) -> int:
    """Bytes that this process may still take on the device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_memory()


def in_halves(rows: Sequence[Row], capacity: int, work: Callable[[Sequence[Row]], list[Answer]]) -> list[Answer]:
    """Do `work` on at most `capacity` rows at once; what does not fit is halved and tried again."""
    if len(rows) > capacity:
        return [
            answer
            for start in range(0, len(rows), capacity)
            for answer in in_halves(rows[start : start + capacity], capacity, work)
        ]
    try:
        return work(rows)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).splitlines()[0] if str(error) else "out of memory"
        text = traceback.format_exc()  # not the error, which would keep what the frames hold
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(rows) == 1:
        raise OutOfMemoryError(message, text)
    half = len(rows) // 2
    return in_halves(rows[:half], half, work) + in_halves(rows[half:], len(rows) - half, work)


class PeakMemory:
    """Bytes taken at most since it was started, beyond those in use then; `None` where that is not known."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start: int | None = torch.cuda.memory_allocated(device)
        else:
            self._start = resident_memory() if forget_peak() else None

    def read(self) -> int | None:
        """The peak so far."""
        if self._start is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._start
        peak = peak_memory()
        return None if peak is None else peak - self._start


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory did not suffice, in whichever words."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
