"""Going on from weights that have learned something: all of them, a few, or with nothing left to learn."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

TOKENS = 24
RULES = [
    torch.randint(TOKENS, (TOKENS,), generator=torch.Generator().manual_seed(1)),
    torch.randint(TOKENS, (TOKENS,), generator=torch.Generator().manual_seed(2)),
]
RULES[1] = torch.where(torch.arange(TOKENS) % 3 == 0, RULES[1], RULES[0])  # every third token follows another rule


class Small(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.output = nn.Linear(width, TOKENS)

    def forward(self, x):
        return self.output(F.relu(self.second(F.relu(self.first(self.embedding(x))))))


def tokens(rule, generator, rows=32):
    """One in ten next tokens is any; the others follow the rule."""
    x, anew = torch.randint(TOKENS, (2, rows, 16), generator=generator)
    return x, torch.where(torch.rand(x.shape, generator=generator) < 0.1, anew, RULES[rule][x])


@cache
def weights():
    """Those of a model that has learned the first rule; a user has them in a file."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        model = Small()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.004)
        for step in range(300):
            if step == 200:
                optimizer.param_groups[0]["lr"] = 0.0005
            x, y = tokens(0, generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
            optimizer.step()
    return model.state_dict()


def pretrained():
    model = Small()
    model.load_state_dict(weights())
    return model


def plain_sgd(params, lr):
    return torch.optim.SGD(params, lr=lr)


def same_batch(step, batch_size, generator):
    return tokens(0, generator, rows=96)


def other_batch(step, batch_size, generator):
    return tokens(1, generator)


class Adapter(nn.Module):
    """A frozen linear layer and a low-rank change beside it (LoRA)."""

    def __init__(self, inner, rank=4):
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, inner.in_features) / inner.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x):
        return self.inner(x) + 2.0 * (x @ self.down.t()) @ self.up.t()


def lora():
    model = pretrained().requires_grad_(False)
    model.first, model.second = Adapter(model.first), Adapter(model.second)
    model.output = Adapter(model.output)
    return model


def head_only():
    model = pretrained().requires_grad_(False)
    hidden = [nn.Sequential(nn.Linear(24, 24), nn.ReLU()) for _ in range(3)]
    model.output = nn.Sequential(*hidden, nn.Linear(24, TOKENS))
    return model
