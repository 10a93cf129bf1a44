"""Outputs of other shapes: pixels, several heads, a teacher beside the model."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def mlp(inputs, outputs, width=48, depth=3):
    """Hidden layers with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, *[width] * depth]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def points(rows, generator, classes=4):
    """Points whose largest of the first coordinates is their class."""
    x = torch.randn(rows, 8, generator=generator)
    return x, x[:, :classes].argmax(1)


def pixels():
    """Each pixel's class, [B, C, H, W]."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 1), nn.ReLU(), nn.Conv2d(12, 3, 1)
    )


def pixels_batch(step, batch_size, generator):
    """The class of a pixel is the band that its brightness is in; most pixels are dark."""
    x = torch.rand(4, 1, 8, 8, generator=generator) ** 2
    return 4.0 * x - 1.0, (x[:, 0] * 3).long().clamp(max=2)


def unlabelled_batch(step, batch_size, generator):
    """A quarter of the pixels has no label: 255."""
    x, y = pixels_batch(step, batch_size, generator)
    return x, y.masked_fill(torch.rand(y.shape, generator=generator) < 0.25, 255)


def unlabelled_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, ignore_index=255)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp(8, 24)
        self.kind, self.size = nn.Linear(24, 4), nn.Linear(24, 1)

    def forward(self, x):
        h = F.relu(self.body(x))
        return self.kind(h), self.size(h)


def heads():
    return TwoHeads()


def heads_batch(step, batch_size, generator):
    x, y = points(32, generator)
    return x, y, x[:, :2].sum(1, keepdim=True)


def heads_loss(model, batch):
    x, kind, size = batch
    logits, number = model(x)
    return F.cross_entropy(logits, kind) + 0.5 * F.mse_loss(number, size)


def tuples():
    """The same model, but only the first of its outputs has a target."""
    return TwoHeads()


class Student(nn.Module):
    """Learns from a frozen teacher's answers at temperature 2."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1234)
            self.teacher = nn.Linear(8, 5).requires_grad_(False)
            self.teacher.weight.mul_(8.0)
        self.student = mlp(8, 5, 24, 2)

    def forward(self, x):
        return self.student(x)


def student():
    return Student()


def student_batch(step, batch_size, generator):
    return torch.randn(32, 8, generator=generator)


def student_loss(model, batch):
    soft = F.softmax(model.teacher(batch) / 2.0, -1)
    return 4.0 * F.kl_div(F.log_softmax(model(batch) / 2.0, -1), soft, reduction="batchmean")


def dice():
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()),
        *(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1)),
    )


def dice_batch(step, batch_size, generator):
    x = torch.rand(4, 1, 8, 8, generator=generator) ** 2
    return 4.0 * x - 1.0, (x > 0.5).float()


def dice_loss(model, batch):
    x, y = batch
    p = model(x).sigmoid()
    return 1.0 - (2.0 * (p * y).sum() + 1.0) / (p.sum() + y.sum() + 1.0)


def normed():
    """BatchNorm and dropout, as in any small image model."""
    return nn.Sequential(
        nn.Conv2d(1, 9, 3), nn.BatchNorm2d(9), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(9 * 36, 2)
    )


def normed_batch(step, batch_size, generator):
    """Stripes that lie or stand, one in ten with the wrong label."""
    y = torch.randint(2, (32,), generator=generator)
    stripes = (torch.arange(8) % 2).float().expand(32, 1, 8, 8)
    x = torch.where(y[:, None, None, None] == 1, stripes, stripes.transpose(2, 3))
    wrong = (torch.rand(32, generator=generator) < 0.1).long()
    return x + 0.5 * torch.randn(x.shape, generator=generator), (y + wrong) % 2


def tuples_batch(step, batch_size, generator):
    return points(32, generator)
