"""Losses without labels: reconstruction, contrast, similarity, ranking."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def mlp(inputs, outputs, width=24, depth=2):
    """Hidden layers with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, *[width] * depth]
    hidden = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


SHAPES = (torch.rand(5, 32, generator=torch.Generator().manual_seed(21)) < 0.4).float()


def pictures(rows, generator):
    """One of five shapes of 32 pixels, each pixel flipped with 5 percent; and which one it is."""
    which = torch.randint(5, (rows,), generator=generator)
    flipped = (torch.rand(rows, 32, generator=generator) < 0.05).float()
    return (SHAPES[which] - flipped).abs(), which


def autoencoder():
    return mlp(32, 32, 12, 1)


def autoencoder_batch(step, batch_size, generator):
    return pictures(32, generator)


def autoencoder_loss(model, batch):
    image, _label = batch
    return F.binary_cross_entropy_with_logits(model(image), image)


class Variational(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = mlp(32, 8, 24, 1), mlp(4, 32, 24, 1)

    def forward(self, x):
        mean, log_variance = self.encoder(x).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(code), mean, log_variance


def variational():
    return Variational()


def variational_loss(model, batch):
    image, _label = batch
    logits, mean, log_variance = model(image)
    rebuilt = F.binary_cross_entropy_with_logits(logits, image, reduction="none").sum(1).mean()
    return rebuilt + 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean()


def denoiser():
    return mlp(32, 32)


def denoiser_loss(model, batch):
    """Pixels are hidden on the way in, by the loss itself."""
    image, _label = batch
    return F.mse_loss(model(F.dropout(image, 0.3)), image)


def diffusion():
    return mlp(3, 2, 32, 3)


def diffusion_batch(step, batch_size, generator):
    """Points on a ring."""
    angle = 6.2832 * torch.rand(64, 1, generator=generator)
    return torch.cat([angle.cos(), angle.sin()], 1)


def diffusion_loss(model, batch):
    """The noise is drawn in the loss, and is what the model has to tell."""
    level = torch.rand(len(batch), 1)
    noise = torch.randn_like(batch)
    mixed = (1.0 - level).sqrt() * batch + level.sqrt() * noise
    return F.mse_loss(model(torch.cat([mixed, level], 1)), noise)


def views(rows, generator):
    """Two noisy looks at the same thing."""
    thing = torch.randn(rows, 8, generator=generator)
    return tuple(thing + 0.1 * torch.randn(rows, 8, generator=generator) for _ in range(2))


def contrast():
    return mlp(8, 8)


def contrast_batch(step, batch_size, generator):
    return views(16, generator)


def contrast_loss(model, batch):
    """InfoNCE at temperature 0.2: which of 16 is the other view?"""
    a, b = (F.normalize(model(view)) for view in batch)
    return F.cross_entropy(a @ b.t() / 0.2, torch.arange(len(a)))


class Towers(nn.Module):
    """Two encoders with a temperature that is learned, as CLIP has them."""

    def __init__(self):
        super().__init__()
        self.image, self.text = mlp(8, 8, 24, 1), mlp(6, 8, 24, 1)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, image, text):
        logits = F.normalize(self.image(image)) @ F.normalize(self.text(text)).t() * self.log_scale.exp()
        truth = torch.arange(len(logits))
        return 0.5 * (F.cross_entropy(logits, truth) + F.cross_entropy(logits.t(), truth))


def towers():
    return Towers()


def towers_batch(step, batch_size, generator):
    image, text = views(16, generator)
    return image, text[:, :6]


def towers_loss(model, batch):
    return model(*batch)


def triplet():
    return mlp(8, 4, 16, 4)


def triplet_batch(step, batch_size, generator):
    """Anchor and friend share the sign of their first coordinate; the stranger has the other."""
    x = torch.randn(3, 32, 8, generator=generator)
    side = x[0, :, 0].sign()
    for i, sign in ((1, side), (2, -side)):
        x[i, :, 0] = x[i, :, 0].abs() * sign
    return tuple(x)


def triplet_loss(model, batch):
    return F.triplet_margin_loss(*(model(part) for part in batch))


def cosine():
    return mlp(8, 4)


def alike_batch(step, batch_size, generator):
    """Pairs, and 1 where they are of one kind, -1 where not."""
    a, b = torch.randn(2, 32, 8, generator=generator)
    return a, b, torch.where(a[:, 0] * b[:, 0] > 0, 1, -1)


def cosine_loss(model, batch):
    a, b, same = batch
    return F.cosine_embedding_loss(model(a), model(b), same)


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.output = nn.Linear(8, 16), mlp(16, 1, 24, 2)

    def forward(self, a, b):
        return self.output(self.body(a).tanh() * self.body(b).tanh()).squeeze(1)


def siamese():
    return Siamese()


def siamese_loss(model, batch):
    a, b, same = batch
    return F.binary_cross_entropy_with_logits(model(a, b), (same > 0).float())


class Factors(nn.Module):
    def __init__(self, users=24, items=24, width=6):
        super().__init__()
        self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)

    def forward(self, user, item):
        return 3.0 * (self.users(user) * self.items(item)).sum(1)


def factors():
    return Factors()


def factors_batch(step, batch_size, generator):
    """Users like the items of their own kind of four; one in ten pairs is the wrong way round."""
    user, item, other = torch.randint(24, (3, 256), generator=generator)
    liked, not_liked = item // 4 * 4 + user % 4, other // 4 * 4 + (user + 1 + other % 3) % 4
    wrong = torch.rand(256, generator=generator) < 0.1
    return user, torch.where(wrong, not_liked, liked), torch.where(wrong, liked, not_liked)


def factors_loss(model, batch):
    """Bayesian personalised ranking."""
    user, liked, not_liked = batch
    return -F.logsigmoid(model(user, liked) - model(user, not_liked)).mean()


def ranking():
    return mlp(6, 1, 48, 3)


def ranking_batch(step, batch_size, generator):
    x = torch.randn(8, 10, 6, generator=generator)
    return x, x[..., 0] + 0.5 * x[..., 1].abs()


def ranking_loss(model, batch):
    """ListNet: the softmax of the scores against that of the relevance."""
    x, relevance = batch
    return F.cross_entropy(model(x).squeeze(-1), (2.0 * relevance).softmax(-1))


EDGES = (torch.rand(60, 60, generator=torch.Generator().manual_seed(8)) < 0.05).float()
EDGES = ((EDGES + EDGES.t() + torch.eye(60)) > 0).float()
EDGES = EDGES / EDGES.sum(1, keepdim=True)
NODES = torch.randn(60, 8, generator=torch.Generator().manual_seed(9))
KINDS = (EDGES @ NODES)[:, :3].argmax(1)


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(8, 3, 16, 4)

    def forward(self, x):
        return self.net(EDGES @ x)


def graph():
    return Graph()


def graph_batch(step, batch_size, generator):
    """The one graph that there is, at every step."""
    return NODES, KINDS
