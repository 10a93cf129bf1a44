"""The random state of a stream of batches: its own, so that nothing else that draws numbers changes them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor


@dataclass
class RandomState:
    """Where the global generators stand, and some of torch's that are not global."""

    cpu: Tensor
    numpy: Any
    python: Any
    cuda: list[Tensor]
    own: list[Tensor]

    @classmethod
    def now(cls, own: Sequence[Generator] = ()) -> RandomState:
        """As they stand."""
        cuda = torch.cuda.get_rng_state_all() if _on_cuda() else []
        states = [generator.get_state() for generator in own]
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate(), cuda, states)

    def put(self, own: Sequence[Generator] = ()) -> None:
        """Let them stand there."""
        torch.set_rng_state(self.cpu)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        for generator, state in zip(own, self.own, strict=True):
            generator.set_state(state)


def start_all(seed: int, own: Sequence[Generator] = ()) -> None:
    """Let every generator start from `seed`, as a script does with torch, numpy and Python in turn."""
    torch.default_generator.manual_seed(seed)
    if _on_cuda():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)
    for generator in own:
        generator.manual_seed(seed)


@contextmanager
def put_back(own: Sequence[Generator] = ()) -> Iterator[None]:
    """Afterwards all of them stand where they stood before."""
    before = RandomState.now(own)
    try:
        yield
    finally:
        before.put(own)


def _on_cuda() -> bool:
    """Whether anything has been done on a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch's
