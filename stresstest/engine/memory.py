"""How many replicas fit, and what to do when the estimate was wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from stresstest.engine.population import Training
from stresstest.models.transformer import VOCABULARY, Transformer

Row = TypeVar("Row")
Answer = TypeVar("Answer")

# On a CPU a step of a wider population costs a transformer some 0.9 times as much a replica.
_CPU_REPLICAS = 8
_USABLE_SHARE = 0.8
_ACTIVATIONS_PER_BLOCK = 40  # tensors of one width kept for the backward pass, about


class OutOfMemoryError(Exception):
    """A single replica does not fit: never an instability."""


def replicas_that_fit(model: Transformer, training: Training, batch_size: int) -> int:
    """An estimate from parameters, gradients, optimizer state and activations (at least 1)."""
    if training.device.type != "cuda":
        return _CPU_REPLICAS
    spec = model.spec
    states = model.layout.num_parameters * (4 + len(training.optimizer.slots))
    tokens = batch_size * spec.seq_len
    activations = tokens * (spec.depth * spec.width * _ACTIVATIONS_PER_BLOCK + 4 * VOCABULARY)
    free, _ = torch.cuda.mem_get_info(training.device)
    return max(1, int(_USABLE_SHARE * free) // (4 * (states + activations)))


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
        if not _is_out_of_memory(error):
            raise
        message = str(error).splitlines()[0] if str(error) else "out of memory"
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(rows) == 1:
        raise OutOfMemoryError(message)
    half = len(rows) // 2
    return in_halves(rows[:half], half, work) + in_halves(rows[half:], len(rows) - half, work)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
