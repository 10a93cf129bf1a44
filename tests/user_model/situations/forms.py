"""The same small classifier in the forms that frameworks and habits give it, and forms that cannot be judged."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytorch_lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


def mlp(inputs, outputs, width=48, depth=3):
    """Hidden layers with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, *[width] * depth]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def points(rows, generator, classes=4):
    x = torch.randn(rows, 8, generator=generator)
    return x, x[:, :classes].argmax(1)


def points_batch(step, batch_size, generator):
    """32 examples, whatever is asked for."""
    return points(32, generator)


class Lit(pytorch_lightning.LightningModule):
    """AdamW with a warm-up that begins at 0."""

    def __init__(self):
        super().__init__()
        self.net = mlp(8, 4, 32, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        return {"loss": loss, "accuracy": (self.net(x).argmax(1) == y).float().mean()}

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-4, weight_decay=0.0)
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 50))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}


class Detector(nn.Module):
    """The total of the losses and its parts in one dict; the parts are for the log."""

    def __init__(self):
        super().__init__()
        self.body, self.kind, self.box = mlp(8, 24), nn.Linear(24, 4), nn.Linear(24, 2)

    def training_step(self, batch, batch_idx):
        h = F.relu(self.body(batch["x"]))
        cls_loss = F.cross_entropy(self.kind(h), batch["kind"])
        box_loss = F.mse_loss(self.box(h), batch["box"])
        return {"total_loss": cls_loss + 0.01 * box_loss, "cls_loss": cls_loss, "box_loss": box_loss}


def detector():
    return Detector()


def detector_batch(step, batch_size, generator):
    x, y = points(32, generator)
    return {"x": x, "kind": y, "box": 20.0 * x[:, :2]}


class Parts(Detector):
    """Two losses and no total: torchvision's detectors return such a dict."""

    def training_step(self, batch, batch_idx):
        found = super().training_step(batch, batch_idx)
        return {"cls_loss": found["cls_loss"], "box_loss": 0.01 * found["box_loss"]}


def parts():
    return Parts()


class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator, self.critic = mlp(4, 2), mlp(2, 1)

    def training_step(self, batch, batch_idx):
        made = self.generator(torch.randn(len(batch), 4))
        ones = torch.ones(len(batch), 1)
        bce = F.binary_cross_entropy_with_logits
        told_apart = bce(self.critic(batch), ones) + bce(self.critic(made.detach()), 0.0 * ones)
        return told_apart + bce(self.critic(made), ones)

    def configure_optimizers(self):
        optimizers = [torch.optim.Adam(part.parameters(), lr=2e-4) for part in (self.generator, self.critic)]
        return optimizers, []


def gan():
    """A function, so that only what it builds tells of its optimizers."""
    return Gan()


def gan_batch(step, batch_size, generator):
    return 1.0 + 0.5 * torch.randn(32, 2, generator=generator)


def policy():
    return mlp(4, 3)


def policy_batch(step, batch_size, generator):
    return torch.randn(32, 4, generator=generator)


def policy_loss(model, batch):
    """REINFORCE with a baseline: the value says nothing about how well the policy does."""
    chosen = torch.distributions.Categorical(logits=model(batch))
    action = chosen.sample()
    reward = (action == batch[:, :3].argmax(1)).float()
    return -(chosen.log_prob(action) * (reward - reward.mean())).mean()


def detached_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y).detach()


def numbers_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y).item()


def each_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y, reduction="none")


def plain():
    return mlp(8, 4, 32, 4)


def on_meta():
    with torch.device("meta"):
        return mlp(8, 4)


class Spectrum(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(5, dtype=torch.cfloat))
        self.output = mlp(8, 4)

    def forward(self, x):
        return self.output(torch.fft.irfft(torch.fft.rfft(x) * self.filter))


def spectrum():
    return Spectrum()


class Checkpointed(nn.Module):
    """Re-entrant activation checkpointing."""

    def __init__(self):
        super().__init__()
        self.first, self.output = nn.Linear(8, 24), nn.Linear(24, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 24), nn.ReLU()) for _ in range(2))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=True)
        return self.output(x)


def checkpointed():
    return Checkpointed()


def deeper():
    return mlp(8, 4, 48, 4)


STORED = points(256, torch.Generator().manual_seed(3))


def stored_batch(step, batch_size, generator):
    """A data set of 256 examples, in order."""
    rows = (torch.arange(32) + 32 * step) % 256
    return STORED[0][rows], STORED[1][rows]


def ends_batch(step, batch_size, generator):
    """A loader that was written out to 45 batches."""
    if step >= 45:
        raise StopIteration
    return points(32, generator)


class Example(NamedTuple):
    features: torch.Tensor
    kind: torch.Tensor


def named_batch(step, batch_size, generator):
    return Example(*points(32, generator))


def named_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def accumulated_loss(model, batch):
    """Four micro-batches, as one would have them for want of memory."""
    x, y = batch
    chunks = zip(x.chunk(4), y.chunk(4), strict=True)
    return sum(F.cross_entropy(model(a), b) for a, b in chunks) / 4


def images_batch(step, batch_size, generator):
    """Bytes, as an image loader without a transform gives them."""
    x = torch.randint(0, 256, (32, 8), generator=generator, dtype=torch.uint8)
    return x, x[:, :4].long().argmax(1)


def arrays_batch(step, batch_size, generator):
    """numpy gives float64, the model has float32."""
    x, y = points(32, generator)
    return x.double().numpy(), y.numpy()
