"""Losses that differentiate the model itself."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def mlp(inputs, outputs, width=16, depth=2):
    sizes = [inputs, *[width] * depth]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def slope(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def cooling():
    return mlp(1, 1, 16, 4)


def cooling_batch(step, batch_size, generator):
    return 3.0 * torch.rand(32, 1, generator=generator)


def cooling_loss(model, batch):
    """u' = -2 u, u(0) = 3."""
    t = batch.clone().requires_grad_()
    u = model(t)
    return (slope(u, t) + 2.0 * u).square().mean() + (model(torch.zeros(1, 1)) - 3.0).square().mean()


class Penalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(4, 1, 16, 3)

    def forward(self, x):
        return self.net(x)


def penalised():
    return Penalised()


def penalised_batch(step, batch_size, generator):
    x = torch.randn(32, 4, generator=generator)
    return x, (x[:, :1] + x[:, 1:2])


def penalised_loss(model, batch):
    """A regression whose slope in its inputs should be no steeper than 2."""
    x, y = batch
    x = x.clone().requires_grad_()
    out = model(x)
    steep = (slope(out, x).norm(dim=1) - 2.0).clamp(min=0.0)
    return (out - y).square().mean() + 0.1 * steep.square().mean()


def pendulum():
    return mlp(2, 1, 16, 3)


def pendulum_batch(step, batch_size, generator):
    """Angle and momentum, and how they change."""
    q, p = 2.0 * torch.randn(2, 128, 1, generator=generator)
    return torch.cat([q, p], 1), torch.cat([p, -torch.sin(q)], 1)


def pendulum_loss(model, batch):
    """A Hamiltonian network: the flow is the slope of a learned energy."""
    x, flow = batch
    x = x.clone().requires_grad_()
    dq, dp = slope(model(x), x).chunk(2, 1)
    return (torch.cat([dp, -dq], 1) - flow).square().mean()
