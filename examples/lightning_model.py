"""A LightningModule and its data module as they are.

    stresstest lr-range --model lightning_model.py:build

Lightning's own loop takes the steps. Its optimizer gets the learning rates that are tested; schedulers are off. Add a
Trainer to what `build` returns, and its clipping, accumulation and precision are followed.
"""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(pl.LightningModule):
    """A small network that learns the length of a vector."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())]
        self.network = nn.Sequential(nn.Linear(2, width), *hidden, nn.Linear(width, 1))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.mse_loss(self.network(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.01)


class Vectors(pl.LightningDataModule):
    """Points in the plane; a fifth is held out."""

    def setup(self, stage: str) -> None:
        x = 2 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) - 1
        y = x.norm(dim=1, keepdim=True)
        self.train, self.held_out = TensorDataset(x[200:], y[200:]), TensorDataset(x[:200], y[:200])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.held_out, batch_size=16)


def build(depth: int = 2, width: int = 32) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """What to test: called anew for each seed, with fresh weights."""
    return Regression(depth, width), Vectors()
