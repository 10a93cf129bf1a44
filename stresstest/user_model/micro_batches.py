"""Micro-batches: a batch in parts, whose losses and gradients are added up by their shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError, user_code

_DRAWS = 8
_SURE, _CLOSE = 5.0, 1e-3  # standard errors, and a share of the loss, by which a sum of parts may be off

LossOf = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class MicroBatches:
    """The parts of a batch, each a batch as the user's code takes it, and their shares of its loss, which sum to 1."""

    parts: tuple[Any, ...]
    shares: tuple[float, ...]

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        """Each part and its share."""
        return iter(zip(self.parts, self.shares, strict=True))

    def __len__(self) -> int:
        """How many parts."""
        return len(self.parts)


def parts_of(data: Any) -> MicroBatches:
    """A batch as it is: the one part of itself, or the parts in which its source gives it."""
    return data if isinstance(data, MicroBatches) else MicroBatches((data,), (1.0,))


@dataclass(frozen=True)
class Split:
    """Cuts a batch along the first axis of its tensors into parts of `size` examples, the last of what is left.

    `weight` says what a part counts in the mean of its losses; off: its examples.
    """

    size: int
    weight: Callable[[Any], float] | None = None

    def __call__(self, data: Any) -> MicroBatches:
        """The parts, but those that count nothing; a `UserCodeError` where there is no common first axis."""
        if isinstance(data, MicroBatches):
            return data
        length = num_examples(data)
        if length <= self.size:
            return parts_of(data)
        starts = range(0, length, self.size)
        parts = [_cut(data, slice(start, start + self.size), length) for start in starts]
        weights = [float(min(self.size, length - start)) for start in starts]
        if self.weight is not None and sum(counted := [self.weight(part) for part in parts]) > 0.0:
            weights = counted
        total = sum(weights)
        kept = [(part, weight / total) for part, weight in zip(parts, weights, strict=True) if weight]
        return MicroBatches(*zip(*kept, strict=True))


def num_examples(data: Any) -> int:
    """The length that the first axes of a batch's tensors have in common; a `UserCodeError` where they have none."""
    lengths = sorted(set(_lengths(data)))
    if len(lengths) == 1:
        return lengths[0]
    why = f"first axes of {' and '.join(map(str, lengths))}" if lengths else "no axis"
    raise UserCodeError(
        f"a batch cannot be split into micro-batches: its tensors have {why}, where one axis of examples is needed; "
        "leave out --accumulate, or give batches whose tensors all have the examples first"
    )


def differentiated(
    loss_of: LossOf,
    module: nn.Module,
    parts: MicroBatches,
    scale: float = 1.0,
    forward: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """The loss of a batch, detached; its gradient, times `scale`, is added to `.grad`, a part after the other."""
    losses = []
    for part, share in parts:
        with forward():
            loss = _shared(loss_of(module, part), share)
        if not loss.requires_grad:
            raise UserCodeError("the loss has no gradient; is it detached, or computed under no_grad()?")
        with user_code("loss.backward()"):
            (loss if scale == 1.0 else loss * scale).backward()  # type: ignore[no-untyped-call]  # torch's
        losses.append(loss.detach())
    return _sum(losses)


def evaluated(loss_of: LossOf, module: nn.Module, data: Any) -> Tensor:
    """The loss of a batch, or of its parts."""
    return _sum([_shared(loss_of(module, part), share) for part, share in parts_of(data)])


def no_mean(loss_of: LossOf, module: nn.Module, whole: Any, parts: MicroBatches, seeded: Any) -> str:
    """Words for losses of parts that do not make that of the whole batch, in the module's mode; or nothing.

    A loss that draws numbers draws others in parts: it is compared over some draws.
    """
    with torch.no_grad():
        pairs = []
        for draw in range(_DRAWS):
            both = []
            for data in (whole, parts):
                with seeded(draw):
                    both.append(float(evaluated(loss_of, module, data)))
            pairs.append(both)
    off = torch.tensor([part - one for one, part in pairs], dtype=torch.float64)
    mean, summed = (sum(each) / _DRAWS for each in zip(*pairs, strict=True))
    margin = _CLOSE * abs(mean) + _SURE * float(off.std()) / math.sqrt(_DRAWS)
    if abs(float(off.mean())) <= margin:
        return ""
    return f"the loss of {len(parts)} micro-batches is {summed:.4g} together, that of the whole batch {mean:.4g}"


def _shared(loss: Tensor, share: float) -> Tensor:
    return loss if share == 1.0 else loss * share


def _sum(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _lengths(data: Any) -> Iterator[int]:
    if isinstance(data, Tensor):
        if data.is_nested:
            raise UserCodeError("a nested tensor cannot be split into micro-batches; leave out --accumulate, or pad it")
        if data.ndim:
            yield data.shape[0]
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _lengths(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _lengths(value)
    elif is_dataclass(data) and not isinstance(data, type):
        for field in fields(data):
            yield from _lengths(getattr(data, field.name))
    elif any(isinstance(value, Tensor) for value in getattr(data, "__dict__", {}).values()):
        raise UserCodeError(
            f"a {type(data).__name__} cannot be split into micro-batches; leave out --accumulate, or give tensors with "
            "the examples first, in a tuple, dict or dataclass"
        )


def _cut(data: Any, part: slice, length: int) -> Any:
    if isinstance(data, Tensor):
        return data[part] if data.ndim else data
    if isinstance(data, Mapping):
        return {key: _cut(value, part, length) for key, value in data.items()}
    if isinstance(data, list | tuple):
        if len(data) == length and not any(True for _ in _lengths(data)):
            return data[part]  # a name, a path or a number of each example
        cut = [_cut(value, part, length) for value in data]
        return type(data)(*cut) if hasattr(data, "_fields") else type(data)(cut)
    if is_dataclass(data) and not isinstance(data, type):
        held = {field.name: getattr(data, field.name) for field in fields(data) if field.init}
        return replace(data, **{name: _cut(value, part, length) for name, value in held.items()})
    return data
