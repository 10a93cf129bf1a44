"""A model that spans devices: one replica over all processes that torchrun starts, with torch's fully_shard.

    torchrun --nproc-per-node 2 -m stresstest lr-range --model sharded_model.py:build --batch-size 16 --parallel fsdp

The factory is an ordinary one: the repeated parts of its lists and sequences are sharded one by one. Where other parts
should be, apply `fully_shard` in the factory. The batch is drawn whole on every process, which takes its share of it.
"""

import torch
from torch import nn

NUM_TOKENS = 64


class Block(nn.Module):
    """A residual block with a LayerNorm before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Model(nn.Module):
    """Token by token: an embedding, blocks, a linear layer."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_TOKENS, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, NUM_TOKENS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def build(depth: int = 2, width: int = 32) -> nn.Module:
    """The model of this depth and width."""
    return Model(depth, width)


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A rule from token to token that one in five targets breaks."""
    x, other = torch.randint(NUM_TOKENS, (2, batch_size, 8), generator=generator)
    breaks = torch.rand(x.shape, generator=generator) < 0.2
    return x, torch.where(breaks, other, (5 * x + 3) % NUM_TOKENS)
