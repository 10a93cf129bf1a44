"""The models and examples on which our muP is held against the package mup."""

from __future__ import annotations

import torch
from torch import Tensor

from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.transformer import Transformer
from stresstest.specs.base import ModelSpec

BASE, WIDTH, DEPTH, HEADS = 8, 32, 2, 2
LR = {"adam": 0.01, "sgd": 0.1}
STEPS = 4

_SHAPE = {"parametrization": "mup", "base_width": BASE, "width": WIDTH, "depth": DEPTH}
_TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7], [2, 7, 1, 8, 2, 8, 1]])

# Inputs and targets of one replica.
EXAMPLES: dict[str, tuple[Tensor, Tensor]] = {
    "mlp": (torch.linspace(-1.0, 1.0, 30, dtype=torch.float64).sin().view(5, 6), torch.tensor([0, 1, 2, 1, 0])),
    "transformer": (_TOKENS[:, :-1], _TOKENS[:, 1:].flatten()),
}


def mlp() -> ResidualMlp:
    """A Pre-LN MLP of six inputs and three classes."""
    spec = ModelSpec.model_validate(_SHAPE | {"model": "mlp"})
    return ResidualMlp(spec, "pre-ln", {}, num_inputs=6, num_classes=3)


def transformer() -> Transformer:
    """A Pre-LN decoder over eleven tokens."""
    return Transformer(ModelSpec.model_validate(_SHAPE | {"heads": HEADS, "seq_len": 6}), "pre-ln", {}, 11)
