"""Tiny models of a user's own, each with one thing that a branch may lose: a counter, buffers, what steps leave."""

from __future__ import annotations

import threading
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

V = 12


class Counting(nn.Module):
    """BatchNorm, dropout, and plain Python numbers that its forward reads; it keeps what it has seen, graph and all."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        self.embedding, self.norm, self.out = nn.Embedding(V, 8), nn.BatchNorm1d(8), nn.Linear(8, V)
        self.keeps, self.seen, self.last = keeps, 0, []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        h = self.norm(self.embedding(x).flatten(0, 1)) * (1.0 + 0.5 / (1 + self.seen // 3))
        h = F.dropout(h, 0.1, self.training)
        self.last = [h] if self.keeps else []
        return self.out(h).view(*x.shape, V)


def build() -> nn.Module:
    return nn.Sequential(nn.Embedding(V, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, V))


def locked() -> nn.Module:
    model = build()
    model.lock = threading.Lock()
    return model


class Large(nn.Module):
    """Its hidden numbers are larger than float16 has them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build()

    def forward(self, x: Tensor) -> Tensor:
        return self.body[3](self.body[:3](x) * 1e6) / 1e6


def large() -> nn.Module:
    return Large()


def counting() -> nn.Module:
    return Counting(keeps=True)


def patched() -> nn.Module:
    """Its last layer has the older weight_norm, whose weight has a graph, and a forward that closes over it."""
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        last = nn.utils.weight_norm(model[3])
    original = last.forward
    last.forward = lambda x: 1.5 * original(x)
    return model


def counted() -> nn.Module:
    return Counting(keeps=False)


def half() -> nn.Module:
    return build().to(torch.bfloat16)


def mixed() -> nn.Module:
    """Weights in bfloat16, the last layer in float32."""
    return Mixed()


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Embedding(V, 8), nn.Linear(8, 8)).to(torch.bfloat16), nn.Linear(8, V)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().float())


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A rule that three targets in ten break."""
    x, other = torch.randint(V, (2, batch_size, 4), generator=generator)
    broken = torch.rand(batch_size, 4, generator=generator) < 0.3
    return x, torch.where(broken, other, (3 * x + 1) % V)


def adam(params, lr):  # type: ignore[no-untyped-def]  # as people write it
    return torch.optim.Adam(params, lr=lr)


def sgd(params, lr):  # type: ignore[no-untyped-def]
    return torch.optim.SGD(params, lr=lr)


def lbfgs(params, lr):  # type: ignore[no-untyped-def]
    return torch.optim.LBFGS(params, lr=lr, max_iter=3, history_size=4)


class Remembers(torch.optim.SGD):
    """Its step is larger by what it has counted in an attribute, which no state_dict has."""

    taken = 0

    def step(self, closure=None):  # type: ignore[no-untyped-def,override]
        self.taken += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(1.0 + 0.1 * self.taken)
        return super().step(closure)


def remembers(params, lr):  # type: ignore[no-untyped-def]
    return Remembers(params, lr=lr, momentum=0.9)


def schedule_free(params, lr):  # type: ignore[no-untyped-def]
    import schedulefree

    return schedulefree.AdamWScheduleFree(params, lr=lr)


def sharpness_aware(params, lr):  # type: ignore[no-untyped-def]
    import pytorch_optimizer

    return pytorch_optimizer.SAM(params, torch.optim.SGD, lr=lr, momentum=0.9)


def whole_step(model, batch, lr):  # type: ignore[no-untyped-def]
    """A whole step: its optimizer hangs on the model."""
    if not hasattr(model, "opt"):
        model.opt = torch.optim.AdamW(model.parameters(), lr=lr)
    for group in model.opt.param_groups:
        group["lr"] = lr
    x, y = batch
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    model.opt.zero_grad()
    loss.backward()
    model.opt.step()
    return loss.item()


def loader():  # type: ignore[no-untyped-def]
    """A DataLoader that shuffles."""
    x = torch.arange(240).view(60, 4) * 7 % V
    data = torch.utils.data.TensorDataset(x, (3 * x + 1) % V)
    return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)


loaded = loader()


def tripled() -> nn.Module:
    return Tripled()


class Tripled(nn.Module):
    """Its batch has three parts, and only its loss knows what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 4)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        x, y, weight = batch
        return (weight * (self.out(x) - y).square()).mean()


def triple(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch_size, 4, generator=generator)
    return x, x.roll(1, dims=1), torch.ones(batch_size, 1)


def per_example() -> nn.Module:
    """BatchNorm over examples alone, which one example has no variance of."""
    return nn.Sequential(
        nn.Embedding(V, 8), nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 4 * V), nn.Unflatten(1, (4, V))
    )
