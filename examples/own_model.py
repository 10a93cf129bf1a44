"""A model, data and loss of your own: which learning rate does each variant take?

    stresstest lr-range --model own_model.py:build --variant plain,pre-norm

`build` is all that is needed. Its parameters depth, width and variant are what an experiment varies, each only if it is
there. Without `batch` the model trains on built-in bytes, without `loss_fn` by cross-entropy of model(x) against y.
"""

import torch
from torch import nn

NUM_FEATURES, NUM_CLASSES = 16, 4
TEACHER = torch.randn(NUM_FEATURES, NUM_CLASSES, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block, with or without a LayerNorm before it."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Model(nn.Module):
    """Residual blocks between two linear layers."""

    def __init__(self, depth: int, width: int, norm: bool) -> None:
        super().__init__()
        self.first = nn.Linear(NUM_FEATURES, width)
        self.blocks = nn.Sequential(*(Block(width, norm) for _ in range(depth)))
        self.last = nn.Linear(width, NUM_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.first(x)))


def build(depth: int = 4, width: int = 32, variant: str = "pre-norm") -> nn.Module:
    """The model to test, freshly initialised."""
    return Model(depth, width, norm=variant == "pre-norm")


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step: it depends on the arguments alone, so draw from `generator`."""
    x = torch.randn(batch_size, NUM_FEATURES, generator=generator)
    return x, (x @ TEACHER).argmax(dim=1)


def loss_fn(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The loss to train on; this one has label smoothing."""
    x, y = batch
    return nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
