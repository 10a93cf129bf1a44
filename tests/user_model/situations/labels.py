"""Classes: many of them, skewed ones, smoothed, weighted, one logit, several labels, pixels, teachers."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

MANY = 1000
TAIL = torch.full((MANY,), 0.03 / (MANY - 20))
TAIL[:20] = 0.97 / 20
CODES = torch.randn(MANY, 24, generator=torch.Generator().manual_seed(5))


def mlp(inputs, outputs, width=48, depth=3):
    """Hidden layers with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, *[width] * depth]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def points(rows, generator, classes=4):
    """Points whose largest of the first coordinates is their class."""
    x = torch.randn(rows, 8, generator=generator)
    return x, x[:, :classes].argmax(1)


def thousand():
    return mlp(24, MANY, 24, 2)


def thousand_batch(step, batch_size, generator):
    """Twenty frequent classes and a tail of 980; 8 examples a step, each a noisy copy of its class's code."""
    y = torch.multinomial(TAIL, 8, replacement=True, generator=generator)
    return CODES[y] + 0.1 * torch.randn(8, 24, generator=generator), y


class OneBias(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x):
        return self.bias.expand(len(x), -1)


def class_bias():
    return OneBias(MANY)


def class_bias_batch(step, batch_size, generator):
    return thousand_batch(step, batch_size, generator)


def random_thousand():
    return mlp(24, MANY, 24, 2)


def random_thousand_batch(step, batch_size, generator):
    return torch.randn(8, 24, generator=generator), torch.randint(MANY, (8,), generator=generator)


def random_skewed():
    return mlp(8, 10)


def random_skewed_batch(step, batch_size, generator):
    """Ten classes from rare to frequent, and inputs that say nothing about them."""
    shares = torch.arange(1.0, 11.0)
    return torch.randn(16, 8, generator=generator), torch.multinomial(shares, 16, True, generator=generator)


COSTS = torch.tensor([1.0, 12.0, 4.0])


def weighted():
    return mlp(6, 3, 24, 4)


def weighted_batch(step, batch_size, generator):
    """Classes of 90, 4 and 6 percent."""
    y = torch.multinomial(torch.tensor([0.90, 0.04, 0.06]), 32, replacement=True, generator=generator)
    x = torch.randn(32, 6, generator=generator)
    x[:, :3] += 3.0 * F.one_hot(y, 3)
    return x, y


def weighted_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, weight=COSTS)


def smoothed():
    return mlp(8, 6, 24, 3)


def smoothed_batch(step, batch_size, generator):
    return points(32, generator, 6)


def smoothed_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, label_smoothing=0.3)


def focal():
    return mlp(6, 3, 24, 2)


def focal_loss(model, batch):
    x, y = batch
    logs = F.log_softmax(model(x), -1).gather(1, y[:, None]).squeeze(1)
    return -((1.0 - logs.exp()) ** 2 * logs).mean()


def is_inside(x):
    return (x[:, :2].square().sum(1) < 2.0).long()


def one_logit():
    return mlp(2, 1, 24, 4)


def one_logit_batch(step, batch_size, generator):
    """Inside a circle or outside: 0 or 1, and one logit for it."""
    x = 1.5 * torch.randn(32, 2, generator=generator)
    return x, is_inside(x)


def one_logit_column_batch(step, batch_size, generator):
    x, y = one_logit_batch(step, batch_size, generator)
    return x, y[:, None]


def one_logit_loss(model, batch):
    x, y = batch
    return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y.float())


def labels_many():
    return mlp(12, 12, 48, 2)


def labels_many_batch(step, batch_size, generator):
    """Twelve labels, each true now and then, seen through noise."""
    y = (torch.rand(32, 12, generator=generator) < 0.2).float()
    return 2.0 * y + 0.5 * torch.randn(32, 12, generator=generator), y


def labels_whole():
    return labels_many()


def labels_whole_batch(step, batch_size, generator):
    """The same, as the whole numbers that a table has."""
    x, y = labels_many_batch(step, batch_size, generator)
    return x, y.long()


def labels_many_loss(model, batch):
    x, y = batch
    return F.binary_cross_entropy_with_logits(model(x), y)


def log_softmax():
    return nn.Sequential(mlp(8, 4, 32, 4), nn.LogSoftmax(-1))


def log_softmax_batch(step, batch_size, generator):
    return points(32, generator)


def log_softmax_loss(model, batch):
    x, y = batch
    return F.nll_loss(model(x), y)


def sigmoid():
    return nn.Sequential(mlp(2, 1, 24, 3), nn.Sigmoid(), nn.Flatten(0))


def sigmoid_loss(model, batch):
    x, y = batch
    return nn.BCELoss()(model(x), y.float())


class Criterion(nn.Module):
    """A model that carries its loss about, with its weights in a buffer."""

    def __init__(self):
        super().__init__()
        self.net = mlp(6, 3, 24, 4)
        self.criterion = nn.CrossEntropyLoss(weight=COSTS, label_smoothing=0.1)

    def forward(self, x):
        return self.net(x)


def criterion():
    return Criterion()


def criterion_loss(model, batch):
    x, y = batch
    return model.criterion(model(x), y)


def mixed():
    return mlp(8, 4)


def mixed_batch(step, batch_size, generator):
    """Mixup: two examples in one, and the share of each as the target."""
    x, y = points(64, generator)
    share = 0.7 + 0.3 * torch.rand(64, 1, generator=generator)
    soft = F.one_hot(y, 4).float()
    return share * x + (1 - share) * x.flip(0), share * soft + (1 - share) * soft.flip(0)


def mixed_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


class Ordinal(nn.Module):
    """One number and four rising thresholds (CORAL)."""

    def __init__(self):
        super().__init__()
        self.score = mlp(6, 1, 16, 4)
        self.thresholds = nn.Parameter(torch.tensor([1.5, 0.5, -0.5, -1.5]))

    def forward(self, x):
        return self.score(x) + self.thresholds


def ordinal():
    return Ordinal()


def ordinal_batch(step, batch_size, generator):
    x = torch.randn(32, 6, generator=generator)
    return x, torch.bucketize(x[:, 0] + x[:, 1], torch.tensor([-2.0, -0.7, 0.7, 2.0]))


def ordinal_loss(model, batch):
    x, y = batch
    return F.binary_cross_entropy_with_logits(model(x), (y[:, None] > torch.arange(4)).float())


def clicks():
    return mlp(6, 1, 48, 2)


def clicks_batch(step, batch_size, generator):
    """One in twenty is a click."""
    y = (torch.rand(64, 1, generator=generator) < 0.05).float()
    return torch.randn(64, 6, generator=generator) + 2.5 * y, y


def clicks_loss(model, batch):
    x, y = batch
    return F.binary_cross_entropy_with_logits(model(x), y, pos_weight=torch.tensor(19.0))


def hinge():
    return mlp(8, 4, 16, 4)


def hinge_loss(model, batch):
    x, y = batch
    return F.multi_margin_loss(model(x), y)


def from_one_batch(step, batch_size, generator):
    """Classes that are counted from 1, as R and MATLAB do."""
    x, y = points(32, generator)
    return x, y + 1


def summed():
    return mlp(8, 4, 24, 4)


def summed_loss(model, batch):
    """The sum over the batch, as older code has it."""
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="sum")


def percent():
    return mlp(8, 4, 24, 4)


def percent_loss(model, batch):
    x, y = batch
    return 100.0 * F.cross_entropy(model(x), y)


def sounds():
    """Frames to letters by CTC: 5 letters and the blank."""
    return mlp(6, 6, 24, 3)


def sounds_batch(step, batch_size, generator):
    """Each of three letters sounds for two frames."""
    letters = torch.randint(1, 6, (16, 3), generator=generator)
    frames = F.one_hot(letters.repeat_interleave(2, 1), 6).float()
    return frames + 0.2 * torch.randn(frames.shape, generator=generator), letters


def sounds_loss(model, batch):
    frames, letters = batch
    logs = F.log_softmax(model(frames), -1).transpose(0, 1)
    return F.ctc_loss(logs, letters, torch.full((16,), 6), torch.full((16,), 3))
