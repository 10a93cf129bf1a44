"""What the package mup 1.0.0 (Yang et al. 2022) makes of the same models: learning rates, initial std, losses.

Its requirements pull torchvision and seaborn, so that CI reads what this printed, tests/models/mup.json:

    pip install --no-deps mup==1.0.0
    python -m tests.benchmarks.mup_package tests/models/mup.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mup import MuAdam, MuReadout, MuSGD, set_base_shapes
from mup.init import normal_
from torch import Tensor, nn

from stresstest.models.block import Model
from tests.models.mup_models import BASE, DEPTH, EXAMPLES, HEADS, LR, STEPS, WIDTH, mlp, transformer

DRAWS = 200  # for a std within 0.3 %


class Mlp(nn.Module):
    """inputs -> ReLU layer -> Pre-LN blocks x + ReLU(W N(x) + b) -> norm -> readout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(6, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(DEPTH))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(DEPTH))
        self.final = nn.LayerNorm(width)
        self.output = MuReadout(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.input(x))
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x = x + F.relu(block(norm(x)))
        return self.output(self.final(x))

    def ours(self) -> Iterator[tuple[nn.Parameter, str, int]]:
        """Each parameter with its kind and layer in stresstest."""
        yield from ((self.input.weight, "input.weight", 0), (self.input.bias, "input.bias", 0))
        for layer, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True), 1):
            yield from ((block.weight, "weight", layer), (block.bias, "bias", layer))
            yield from ((norm.weight, "mlp.pre.gain", layer), (norm.bias, "mlp.pre.bias", layer))
        yield from ((self.final.weight, "final.norm.gain", 0), (self.final.bias, "final.norm.bias", 0))
        yield from ((self.output.weight, "output.weight", 0), (self.output.bias, "output.bias", 0))


class Block(nn.Module):
    """A Pre-LN block, its attention by hand: logits over d, times the root of the base model's d."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.scale = (BASE // HEADS) ** 0.5 / (width // HEADS)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        h = self.norms[0](x)
        q, k, v = (f(h).view(batch, time, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        hidden = torch.ones(time, time, dtype=torch.bool).triu(1)
        weights = (q @ k.mT * self.scale).masked_fill(hidden, -torch.inf).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).reshape(batch, time, width))
        return x + self.fc2(F.gelu(self.fc1(self.norms[1](x))))


class Transformer(nn.Module):
    """A decoder with sinusoidal positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(DEPTH))
        self.final = nn.LayerNorm(width)
        self.output = MuReadout(width, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * BASE**0.5  # as the base model in sp
        time, width = x.shape[1:]
        angles = torch.arange(time)[:, None] * 10_000.0 ** (-torch.arange(0, width, 2) / width)
        x = x + torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        for block in self.blocks:
            x = block(x)
        return self.output(self.final(x)).flatten(0, 1)

    def ours(self) -> Iterator[tuple[nn.Parameter, str, int]]:
        """Each parameter with its kind and layer in stresstest; of queries, keys and values the first."""
        yield self.embedding.weight, "embedding", 0
        for layer, block in enumerate(self.blocks, 1):
            for module, kind in ((block.q, "qkv"), (block.o, "output"), (block.fc1, "fc1"), (block.fc2, "fc2")):
                yield from ((module.weight, f"{kind}.weight", layer), (module.bias, f"{kind}.bias", layer))
            for norm, kind in zip(block.norms, ("attention", "ffn"), strict=True):
                yield from ((norm.weight, f"{kind}.pre.gain", layer), (norm.bias, f"{kind}.pre.bias", layer))
        yield from ((self.final.weight, "final.norm.gain", 0), (self.final.bias, "final.norm.bias", 0))
        yield self.output.weight, "unembedding", 0


Kind = type[Mlp] | type[Transformer]


def main(path: str) -> None:
    """Measure both models and write what is found."""
    found = {"mlp": measured(Mlp, mlp()), "transformer": measured(Transformer, transformer())}
    Path(path).write_text(json.dumps(found, indent=1) + "\n")


def measured(kind: Kind, ours: Model) -> dict[str, Any]:
    """Learning rates in units of LR, std in units of the base model's, and the losses of some steps."""
    inputs, targets = EXAMPLES["mlp" if kind is Mlp else "transformer"]
    answer: dict[str, Any] = {"std": std_ratios(kind)}
    for name, make in (("adam", MuAdam), ("sgd", MuSGD)):
        model = based(kind, WIDTH)
        load(model, ours)
        options = {"eps": 1e-12} if name == "adam" else {}
        optimizer = make(model.parameters(), lr=LR[name], **options)
        lrs = {id(p): group["lr"] / LR[name] for group in optimizer.param_groups for p in group["params"]}
        answer[name] = {"lr": {kind: lrs[id(p)] for p, kind, _ in model.ours()}, "loss": []}
        for _ in range(STEPS):
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            answer[name]["loss"].append(float(loss.detach()))
    return answer


def based(kind: Kind, width: int) -> Any:
    """A model that knows the shapes of the base model."""
    model = kind(width).double()
    return set_base_shapes(model, kind(BASE), delta=kind(2 * BASE))


def std_ratios(kind: Kind) -> dict[str, float]:
    """The initial std of each matrix by the package's own function, for that of the base model."""
    torch.manual_seed(0)
    base, wide = (based(kind, width) for width in (BASE, WIDTH))
    pairs = zip(base.ours(), wide.ours(), strict=True)
    return {name: std(there) / std(here) for (here, name, _), (there, _, _) in pairs if here.dim() > 1}


def std(parameter: nn.Parameter) -> float:
    """Over many draws of a tensor."""
    with torch.no_grad():
        return float(torch.stack([normal_(parameter).square().mean() for _ in range(DRAWS)]).mean().sqrt())


def load(model: Any, ours: Model) -> None:
    """Give a model the weights of stresstest's: Table 8 multiplies by other numbers than Table 9."""
    parameters = ours.layout.unbind(ours.layout.views(ours.initial_row(0)[None]))
    with torch.no_grad():
        for p, kind, layer in model.ours():
            value = parameters[kind, layer][0]
            p.copy_(value[0] if value.dim() > p.dim() else value)
        model.output.weight.mul_((WIDTH / BASE) ** 0.5)
        if isinstance(model, Transformer):
            model.embedding.weight.mul_((WIDTH / BASE) ** 0.5)
            for layer, block in enumerate(model.blocks, 1):
                for place, module in enumerate((block.q, block.k, block.v)):
                    module.weight.copy_(parameters["qkv.weight", layer][0, place])
                    module.bias.copy_(parameters["qkv.bias", layer][0, place])


if __name__ == "__main__":
    main(sys.argv[1])
