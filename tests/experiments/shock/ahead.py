"""A forecast that starts far below the constant predictor: the value before, and a small drift to learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DRIFT = 0.5


class Ahead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drift = nn.Linear(1, 1)
        nn.init.zeros_(self.drift.weight)
        nn.init.zeros_(self.drift.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drift(x / 10.0)


def build() -> nn.Module:
    return Ahead()


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, noise = torch.randn(2, batch_size, 1, generator=generator)
    return 10.0 * x, 10.0 * x + DRIFT + 0.2 * noise
