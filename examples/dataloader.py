"""A DataLoader as it is: which learning rate does the model take on it?

    stresstest lr-range --model dataloader.py:build

`batch` may be the loader, as here, `from_dataloader(loader, validation=held_out)`, or a function that returns either.
The batches of seed s are those of a script that calls torch.manual_seed(s) right before its loop.
"""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stresstest import from_dataloader

NUM_FEATURES, NUM_CLASSES = 16, 4
TEACHER = torch.randn(NUM_FEATURES, NUM_CLASSES, generator=torch.Generator().manual_seed(0))


class Examples(Dataset):
    """Examples in memory; half of them are mirrored when they are read."""

    def __init__(self, size: int, seed: int) -> None:
        self.x = torch.randn(size, NUM_FEATURES, generator=torch.Generator().manual_seed(seed))
        self.y = (self.x.abs() @ TEACHER).argmax(dim=1)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.x[i] if random.random() < 0.5 else -self.x[i]), self.y[i]


def build(width: int = 32) -> nn.Module:
    """The model to test, freshly initialised."""
    return nn.Sequential(nn.Linear(NUM_FEATURES, width), nn.ReLU(), nn.Linear(width, NUM_CLASSES))


def optimizer(params, lr: float) -> torch.optim.Optimizer:
    """The optimizer of the script."""
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


train_loader = DataLoader(Examples(2048, seed=1), batch_size=32, shuffle=True, drop_last=True)
test_loader = DataLoader(Examples(512, seed=2), batch_size=64)
batch = from_dataloader(train_loader, validation=test_loader)
