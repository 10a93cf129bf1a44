"""The random state of a stream of batches: its own, so that nothing else that draws numbers changes them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class RandomState:
    """Where the global generators stand, and some of torch's that are not global."""

    torch: Tensor
    numpy: Any
    python: Any
    cuda: list[Tensor]
    own: list[Tensor]

    @classmethod
    def now(cls, own: Sequence[torch.Generator] = ()) -> RandomState:
        """As they stand."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        states = [generator.get_state() for generator in own]
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda, states)

    def put(self, own: Sequence[torch.Generator] = ()) -> None:
        """Let them stand there."""
        torch.set_rng_state(self.torch)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        for generator, state in zip(own, self.own, strict=True):
            generator.set_state(state)


def start_all(seed: int, own: Sequence[torch.Generator] = ()) -> None:
    """Let every generator start from `seed`, as a script does with torch, numpy and Python in turn."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)
    for generator in own:
        generator.manual_seed(seed)


@contextmanager
def put_back(own: Sequence[torch.Generator] = ()) -> Iterator[None]:
    """Afterwards all of them stand where they stood before."""
    before = RandomState.now(own)
    try:
        yield
    finally:
        before.put(own)
