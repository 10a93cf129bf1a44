"""A LightningModule as it is: its training_step is the loss, its configure_optimizers the optimizer.

    stresstest lr-range --model lightning_model.py:build --optimizer own

No Trainer runs. The learning rate of the optimizer is replaced by those that are tested; schedulers are left out.
"""

import pytorch_lightning as pl
import torch
from torch import nn


class Regression(pl.LightningModule):
    """A small network that learns the length of a vector."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())]
        self.network = nn.Sequential(nn.Linear(2, width), *hidden, nn.Linear(width, 1))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.01)


def build(depth: int = 2, width: int = 32) -> pl.LightningModule:
    """The module to test."""
    return Regression(depth, width)


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What the module's DataLoader gives, as a function of the step: draw from `generator`."""
    x = 2 * torch.rand(batch_size, 2, generator=generator) - 1
    return x, x.norm(dim=1, keepdim=True)
