"""What a resume without its state costs an optimizer of the user's: its moments, its count of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

_COUNTS = {"step": 0.0, "steps": 0.0, "k": 0.0, "mu_product": 1.0}  # and what they start at; the last is NAdam's
_SECOND = ("sq", "sum", "var", "inf", "diag", "hess")  # in the names of what an update is divided by
_FIRST = ("avg", "momentum", "mean", "buf", "moment")  # in those of what it follows
BOTH = frozenset({"first", "second"})


def lose(optimizer: torch.optim.Optimizer, moments: frozenset[str], count: bool) -> int:
    """Zero these moments, "first" and "second", and the count of steps; how many tensors that were.

    All of them together are the whole state, as of an optimizer that is built anew.
    """
    everything = moments == BOTH and count
    lost = sum(_lose(state, moments, count, everything) for state in optimizer.state.values())
    if everything:
        optimizer.state.clear()
    return lost


def optimizers_in(thing: Any, seen: set[int] | None = None) -> Iterator[torch.optim.Optimizer]:
    """The optimizers that are reached from a thing's attributes, containers and records, and from theirs."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    parts: Iterable[Any] = ()
    if isinstance(thing, torch.optim.Optimizer):
        yield thing
        parts = [value for key, value in vars(thing).items() if key not in ("state", "param_groups")]
    elif isinstance(thing, Mapping):
        parts = thing.values()
    elif isinstance(thing, list | tuple):
        parts = thing
    elif is_dataclass(thing) and not isinstance(thing, type):  # as a loop of Lightning's is kept
        parts = [getattr(thing, field.name) for field in fields(thing)]
    for part in parts:
        yield from optimizers_in(part, seen)


def _lose(state: Any, moments: frozenset[str], count: bool, everything: bool) -> int:
    """How many tensors of a parameter's state are moments that are lost; HeavyBall's lie a level deeper."""
    if not isinstance(state, MutableMapping):
        return 0
    lost = 0
    for name, value in state.items():
        if isinstance(value, Mapping):
            lost += _lose(value, moments, count, everything)
        elif name in _COUNTS:
            if count:
                first = _COUNTS[name]
                state[name] = torch.full_like(value, first) if isinstance(value, Tensor) else type(value)(first)
        elif isinstance(value, Tensor) and value.ndim and (everything or _moment(name) in moments):
            lost += 1
            value.zero_()
    return lost


def _moment(name: str) -> str:
    if any(part in name for part in _SECOND):
        return "second"
    return "first" if any(part in name for part in _FIRST) else ""
