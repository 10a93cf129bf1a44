"""Dropout whose masks are a function of the step, the replica, the place and the example alone.

The masks come from a counter (as in Salmon et al. 2011) and not from a generator with a state: a replica draws the
same whoever trains beside it, after a resume, and however its batch is split into micro-batches.
Dimension key: R replica, N all numbers of a replica's examples.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.models.variants import Sublayer
from stresstest.tasks.task import splitmix64

_PLACES: Final = {"embedding": 0, "attention": 1, "cross": 2, "ffn": 3}
_MULTIPLIERS: Final = (0x7FEB352D, 0x846CA68B)  # Wellons 2018, "lowbias32"


class Dropout:
    """The masks of one step: each number is zero with probability `rate`, or else is divided by 1 - rate.

    It stands where the original Transformer has it (Vaswani et al. 2017, Sec. 5.4): on the sum of embeddings and
    positions, and on the output of each sublayer before the residual sum. Attention weights are not dropped.
    `keys_R`: a key of each replica and step; `first`: how many examples of the step come before these.
    """

    def __init__(self, rate: float, keys_R: NDArray[np.uint64], examples: int, first: int = 0) -> None:
        self._rate = rate
        self._keys_R = keys_R
        self._examples = examples
        self._first = first
        self._counters: dict[int, Tensor] = {}

    def __call__(self, layer: int, sublayer: Sublayer, x: Tensor) -> Tensor:
        """The output of a sublayer, [R, ...], with its examples first, as it is handed on."""
        return self._dropped(4 * layer + _PLACES[sublayer], x)

    def of_embedding(self, x: Tensor, stack: int = 0) -> Tensor:
        """The sum of embeddings and positions, [R, ...], of an encoder-decoder's target with `stack` 1."""
        return self._dropped(_PLACES["embedding"] + stack, x)

    def _dropped(self, place: int, x: Tensor) -> Tensor:
        keys_R = splitmix64(self._keys_R + np.uint64(place)) & np.uint64(0xFFFFFFFF)
        drawn_RN = _mixed(self._counted(x) ^ _int32(keys_R, x.device))
        least = min(round(self._rate * 2.0**32), (1 << 32) - 1) - (1 << 31)
        return x * (drawn_RN >= least).view_as(x) * (1.0 / (1.0 - self._rate))

    def _counted(self, x: Tensor) -> Tensor:
        """A number of each number of x, [R, N], mixed once: what all places of the step share."""
        size = x[0].numel()
        if size not in self._counters:
            start = self._first * (size // self._examples)
            count_N = torch.arange(start, start + size, device=x.device).to(torch.int32)
            self._counters[size] = _mixed(count_N + _int32(self._keys_R >> np.uint64(32), x.device))
        return self._counters[size]


def _int32(keys_R: NDArray[np.uint64], device: torch.device) -> Tensor:
    """The lower 32 bits of each key, [R, 1]."""
    return torch.from_numpy(keys_R.astype(np.uint32).view(np.int32)).to(device)[:, None]


def _mixed(x: Tensor) -> Tensor:
    """An avalanche of 32 bits, which wrap around; the upper ones are read, so that a last shift is left out."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x *= _signed(_MULTIPLIERS[0])
    x ^= (x >> 15) & 0x1FFFF
    return x.mul_(_signed(_MULTIPLIERS[1]))


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
