"""A model of your own after muP: does any layer move more in a wider model?

    stresstest scale --model mup_model.py:build --widths 32,64,128,256 --coords --start-lr 1e-3

For Adam, muP asks for an LR of 1 / width for each matrix from width to width, and for an output that is divided by the
width (Yang et al. 2022, Table 8). With `--set forgets=fc3` one layer keeps its LR, and the check names it.
"""

import torch
from torch import nn

NUM_FEATURES, NUM_CLASSES, BASE_WIDTH = 16, 8, 32


class MLP(nn.Module):
    """Three layers and an output; `lr_scale` of a weight is what muP multiplies its LR by."""

    def __init__(self, width: int, forgets: str) -> None:
        super().__init__()
        self.shrink = BASE_WIDTH / width
        self.fc1 = nn.Linear(NUM_FEATURES, width)
        self.fc2 = nn.Linear(width, width, bias=False)
        self.fc3 = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, NUM_CLASSES, bias=False)
        nn.init.zeros_(self.out.weight)
        for name in {"fc2", "fc3"} - {forgets}:
            self.get_parameter(f"{name}.weight").lr_scale = self.shrink

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc3(self.fc2(self.fc1(x).relu()).relu()).relu()
        return self.out(x * self.shrink)


def build(width: int = 32, forgets: str = "") -> nn.Module:
    """The model to check, freshly initialised; `forgets` names a layer that keeps the LR of all widths."""
    return MLP(width, forgets)


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step: which of the first features is the largest."""
    x = torch.randn(8 * batch_size, NUM_FEATURES, generator=generator)
    return x, x[:, :NUM_CLASSES].argmax(dim=1)


def optimizer(params: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam, each parameter at its own share of the LR."""
    return torch.optim.Adam([{"params": [p], "lr": lr * getattr(p, "lr_scale", 1.0)} for p in params], lr=lr)
