"""What a batch of the user's asks a model to predict, where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # torch's ignore_index
TARGET_NAMES = ("targets", "target", "labels", "label", "y")


@dataclass(frozen=True)
class Targets:
    """Where the targets of a batch are: `place` is an index or a key; `shifted` leaves out the first of each row."""

    place: int | str
    shifted: bool = False

    def __call__(self, data: Any) -> Tensor:
        """The targets of a batch; of batches that are accumulated, all in one row."""
        if _accumulates(data):
            return torch.cat([self(part).flatten() for part in data])
        found: Tensor = data[self.place]
        return found[:, 1:] if self.shifted else found


def classes_of(data: Any) -> list[Targets]:
    """Where a batch may hold classes to predict: whole numbers, as they are and without the first of each row."""
    if _accumulates(data):
        return classes_of(data[0])
    if isinstance(data, Mapping):
        places: list[int | str] = [key for key, value in data.items() if _whole(value)]
    elif isinstance(data, Sequence) and not isinstance(data, str):
        places = [index for index, value in enumerate(data) if _whole(value)]
    else:
        return []
    found = [Targets(place) for place in reversed(places)]
    return found + [Targets(t.place, shifted=True) for t in found if data[t.place].ndim == 2]


def _accumulates(data: Any) -> bool:
    """Whether it is a step's batches, each a mapping."""
    return isinstance(data, list | tuple) and len(data) > 0 and all(isinstance(part, Mapping) for part in data)


def _whole(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and not value.is_floating_point() and not value.is_complex()
