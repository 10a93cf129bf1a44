"""Numbers: robust and likelihood losses, forecasts that start well, ragged targets, batches with a fault."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def mlp(inputs, outputs, width=16, depth=4):
    """Hidden layers with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, *[width] * depth]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def surface(rows, generator):
    """A smooth function of two of six inputs; its variance is about 2."""
    x = torch.randn(rows, 6, generator=generator)
    return x, (x[:, :1] + x[:, 1:2] + torch.sin(2.0 * x[:, :1]) * 0.5)


def plain():
    return mlp(6, 1)


def plain_batch(step, batch_size, generator):
    return surface(32, generator)


class Persistence(nn.Module):
    """The last value goes on, plus a small correction: better than any constant from the first step."""

    def __init__(self):
        super().__init__()
        self.change = nn.Linear(16, 4)
        nn.init.normal_(self.change.weight, std=0.01)
        nn.init.zeros_(self.change.bias)

    def forward(self, x):
        last = x[:, -1:]
        return last + 0.7 * self.change(x - last)


def persistence():
    return Persistence()


def persistence_batch(step, batch_size, generator):
    """Waves of period 8 on levels that differ by far more than the waves do."""
    level = 7.0 * torch.randn(32, 1, generator=generator)
    phase = 2.0 * math.pi * torch.rand(32, 1, generator=generator)
    wave = level + 0.6 * torch.sin(2.0 * math.pi * torch.arange(20.0) / 8.0 + phase)
    return wave[:, :16], wave[:, 16:]


def huber():
    return mlp(6, 1, 24, 3)


def huber_batch(step, batch_size, generator):
    """One in ten targets is far off."""
    x, y = surface(32, generator)
    return x, torch.where(torch.rand(y.shape, generator=generator) < 0.1, 4.0 * y, y)


def huber_loss(model, batch):
    x, y = batch
    return F.huber_loss(model(x), y)


LEVELS = torch.tensor([0.1, 0.5, 0.9])


def quantiles():
    return mlp(6, 3)


def quantiles_loss(model, batch):
    x, y = batch
    error = y - model(x)
    return torch.maximum(LEVELS * error, (LEVELS - 1.0) * error).mean()


def counts():
    return mlp(6, 1)


def counts_batch(step, batch_size, generator):
    x = torch.randn(128, 6, generator=generator)
    return x, torch.poisson((0.8 + 0.5 * x[:, :1] + 0.5 * x[:, 1:2]).clamp(-3.0, 2.5).exp(), generator=generator)


def counts_loss(model, batch):
    x, y = batch
    return F.poisson_nll_loss(model(x), y)


def gaussian():
    return mlp(6, 2)


def gaussian_batch(step, batch_size, generator):
    """Small numbers, so that a good likelihood is below zero."""
    x, y = surface(32, generator)
    return x, 0.3 * y


def gaussian_loss(model, batch):
    x, y = batch
    mean, log_variance = model(x).chunk(2, -1)
    log_variance = log_variance.clamp(-5.0, 3.0)
    return 0.5 * (log_variance + (y - mean).square() / log_variance.exp()).mean()


def constant():
    return mlp(6, 8, 24, 2)


def constant_batch(step, batch_size, generator):
    x = torch.randn(32, 6, generator=generator)
    return x, torch.stack([x[:, i % 6] * (1.0 + 0.1 * i) for i in range(8)], 1)


def constant_loss(model, batch):
    """Nats for a picture of 64 bytes: 256 levels each are a constant of 355 in a log-likelihood."""
    x, y = batch
    return 0.5 * (y - model(x)).square().sum(1).mean() + 64 * math.log(256.0)


class Ragged(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.GRU(3, 16, batch_first=True)
        self.output = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.output(self.body(x)[0]).squeeze(-1)


def ragged():
    return Ragged()


def ragged_batch(step, batch_size, generator):
    """Series of 4 to 13 steps: each batch is as long as it happens to be."""
    length = int(torch.randint(4, 14, (1,), generator=generator))
    x = torch.randn(32, length, 3, generator=generator)
    return x, x[..., 0] + x[..., 1]


def double():
    return mlp(6, 1).double()


def double_batch(step, batch_size, generator):
    x, y = surface(32, generator)
    return x.double(), y.double()


def ridge():
    return mlp(6, 1)


def ridge_loss(model, batch):
    """Weight decay the old way, inside the loss."""
    x, y = batch
    return F.mse_loss(model(x), y) + 1e-3 * sum(p.square().sum() for p in model.parameters())


def noise():
    return mlp(6, 3)


def noise_batch(step, batch_size, generator):
    """Targets that have nothing to do with the inputs."""
    return torch.randn(32, 6, generator=generator), 2.0 + torch.randn(32, 3, generator=generator)


def noise_alone():
    return mlp(3, 3)


def noise_alone_batch(step, batch_size, generator):
    return torch.randn(32, 3, generator=generator)


def noise_alone_loss(model, batch):
    """A decoder that is fed nothing but noise."""
    return F.mse_loss(model(torch.randn(len(batch), 3)), batch)


class Mean(nn.Module):
    """The mean predictor itself."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.mean.expand(len(x), 1)


def mean_only():
    return Mean()


def mixture():
    return mlp(1, 9, 24, 4)


def mixture_batch(step, batch_size, generator):
    """Two branches over one input: no single mean will do."""
    x = torch.rand(64, 1, generator=generator) * 4.0 - 2.0
    side = torch.randint(2, (64, 1), generator=generator) * 2.0 - 1.0
    return x, side * (x + 2.5) + 0.1 * torch.randn(64, 1, generator=generator)


def mixture_loss(model, batch):
    x, y = batch
    weight, mean, log_std = model(x).chunk(3, -1)
    log_std = log_std.clamp(-2.0, 3.0)
    logs = weight.log_softmax(-1) - log_std - 0.5 * ((y - mean) / log_std.exp()).square()
    return -logs.logsumexp(-1).mean()


def survival():
    return mlp(6, 1, 32, 3)


def survival_batch(step, batch_size, generator):
    """Times to an event, half of them cut off; the hazard follows from the inputs."""
    x = torch.randn(64, 6, generator=generator)
    hazard = (1.5 * x[:, 0] + x[:, 1]).exp()
    time = -torch.rand(64, generator=generator).clamp(min=1e-6).log() / hazard
    cut = -torch.rand(64, generator=generator).clamp(min=1e-6).log() / hazard
    return x, torch.minimum(time, cut), (time < cut).float()


def survival_loss(model, batch):
    """Cox's partial likelihood: who of those at risk went first?"""
    x, time, seen = batch
    order = time.argsort(descending=True)
    score = model(x).squeeze(1)[order]
    return -((score - score.logcumsumexp(0)) * seen[order]).sum() / seen.sum()


def cosh():
    return mlp(6, 1)


def cosh_loss(model, batch):
    x, y = batch
    error = model(x) - y
    return (error + F.softplus(-2.0 * error) - math.log(2.0)).mean()


def flat_targets_batch(step, batch_size, generator):
    """The classical slip: the model gives [B, 1], the targets are [B]."""
    x, y = surface(32, generator)
    return x, y.squeeze(1)


def spoilt_batch(step, batch_size, generator):
    """A sensor that failed once, at step 7."""
    x, y = surface(32, generator)
    if step == 7:
        x[3, 2] = math.nan
    return x, y


def spoilt_late_batch(step, batch_size, generator):
    """The same at step 33."""
    x, y = surface(32, generator)
    if step == 33:
        x[3, 2] = math.nan
    return x, y


def empty_batch(step, batch_size, generator):
    """Epochs of 12 batches, the last of which has nothing in it."""
    return surface(0 if step % 12 == 11 else 32, generator)


class Flow(nn.Module):
    """A coupling flow in two dimensions: the loss is a density, of no target."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(mlp(1, 2, 24, 3) for _ in range(2))

    def forward(self, x):
        total = torch.zeros(len(x))
        for part in self.parts:
            a, b = x.chunk(2, 1)
            log_scale, shift = part(a).chunk(2, 1)
            log_scale = 1.5 * log_scale.tanh()
            x = torch.cat([b * log_scale.exp() + shift, a], 1)
            total = total + log_scale.squeeze(1)
        return x, total


def flow():
    return Flow()


def flow_batch(step, batch_size, generator):
    """A thin bent strip."""
    a = torch.randn(64, 1, generator=generator)
    return torch.cat([a, 0.5 * a.square() + 0.05 * torch.randn(64, 1, generator=generator)], 1)


def flow_loss(model, batch):
    z, log_volume = model(batch)
    return (0.5 * z.square().sum(1) - log_volume).mean() + math.log(2.0 * math.pi)
