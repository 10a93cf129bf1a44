"""What a resume without its state costs an optimizer of the user's: its moments, its count of steps."""

from __future__ import annotations

import torch
from torch import Tensor

_COUNTS = frozenset({"step", "steps", "k"})
_SECOND = ("sq", "sum", "var", "inf", "diag", "hess")  # in the names of what an update is divided by
BOTH = frozenset({"first", "second"})


def lose(optimizer: torch.optim.Optimizer, moments: frozenset[str], count: bool) -> int:
    """Zero these moments, "first" and "second", and the count of steps; how many tensors that were.

    All of them together are the whole state, as of an optimizer that is built anew.
    """
    if moments == BOTH and count:
        lost = sum(isinstance(value, Tensor) for state in optimizer.state.values() for value in state.values())
        optimizer.state.clear()
        return lost
    lost = 0
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name in _COUNTS:
                if count:
                    state[name] = torch.zeros_like(value) if isinstance(value, Tensor) else 0
            elif isinstance(value, Tensor) and value.shape == parameter.shape and _moment(name) in moments:
                value.zero_()
                lost += 1
    return lost


def _moment(name: str) -> str:
    return "second" if any(part in name for part in _SECOND) else "first"
