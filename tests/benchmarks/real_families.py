"""Real small models of the kinds that were once judged wrongly, each with its best constant predictor written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.user_model.untrainable import Own, zipf

Batch = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Family:
    """A model, its data and loss, and what is known of them beforehand.

    `constant` is the best constant predictor, as a module; without one the model brings something. `lowest`: of the
    loss. `loss` is what the hand loop takes. Learning rates are drawn between two powers of 2.
    """

    own: Own
    loss: Loss
    octaves: tuple[float, float]
    constant: Callable[[], nn.Module]
    brings: bool = False
    lowest: float = 0.0
    steps: int = 80
    rows: int = 4096  # of a fresh batch
    fresh: int = 1  # such batches


class Fixed(nn.Module):
    """The same outputs whatever the input."""

    def __init__(self, values: Tensor, ndim: int = 2) -> None:
        super().__init__()
        self.values, self.ndim = values, ndim

    def forward(self, x: Tensor) -> Tensor:
        """The values, after as many axes of the input as they are not."""
        return self.values.expand(*x.shape[: self.ndim - 1], len(self.values))


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch[0])
    return F.cross_entropy(logits.flatten(0, -2), batch[1].flatten())


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


# A language model whose tokens have Zipf frequencies, from scratch.

TOKENS = 400
NEXT = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(7))


def language(step: int, batch_size: int, generator: torch.Generator, known: float = 0.7) -> Batch:
    x, other = (
        torch.multinomial(zipf(TOKENS), batch_size * 8, replacement=True, generator=generator).view(-1, 8)
        for _ in range(2)
    )
    return x, torch.where(torch.rand(x.shape, generator=generator) < known, NEXT[x], other)


def most_likely_token() -> nn.Module:
    share = 0.3 * zipf(TOKENS)
    share[NEXT] += 0.7 * zipf(TOKENS)
    return Fixed(share.log(), 3)


def language_model() -> nn.Module:
    return nn.Sequential(nn.Embedding(TOKENS, 8), nn.Linear(8, TOKENS))


# A rare class with weights, at batch 8: the loss divides by the weights of each batch.

WEIGHTS = torch.tensor([1.0, 19.0])


def imbalanced(step: int, batch_size: int, generator: torch.Generator) -> Batch:
    y = (torch.rand(batch_size, generator=generator) < 0.05).long()
    x = torch.randn(batch_size, 6, generator=generator)
    x[:, 0] += 3.0 * y
    return x, y


def weighted(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], weight=WEIGHTS)


@lru_cache
def best_weighted_constant() -> nn.Module:
    """By a search over the one number that matters: batches of 8 without the rare class ask for another than both."""
    drawn = [imbalanced(0, 8, torch.Generator().manual_seed(i)) for i in range(2000)]
    x, y = torch.stack([b[0] for b in drawn]), torch.stack([b[1] for b in drawn])

    def loss(rare: float) -> float:
        each = -torch.tensor([0.0, rare]).log_softmax(0)[y] * WEIGHTS[y]
        return float((each.sum(1) / WEIGHTS[y].sum(1)).mean())

    assert len(x) == 2000
    return Fixed(torch.tensor([0.0, min(np.linspace(-5.0, 3.0, 161).tolist(), key=loss)]))


# A forecaster that adds a correction to the last value.


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(12, 6)
        nn.init.normal_(self.step.weight, std=0.01)
        nn.init.zeros_(self.step.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 12] to [B, 6]."""
        last = x[:, -1:]
        out: Tensor = last + self.step(x - last)
        return out


def series(step: int, batch_size: int, generator: torch.Generator) -> Batch:
    level, phase = 5.0 * torch.randn(batch_size, 1, generator=generator), torch.rand(batch_size, 1, generator=generator)
    both = level + 0.5 * torch.sin(2.0 * math.pi * (torch.arange(18.0) / 12.0 + phase))
    return both[:, :12], both[:, 12:]


# Fine-tuning: a small model that was trained on one kind of rows goes on with others, or with the same.


def rows(step: int, batch_size: int, generator: torch.Generator, task: int = 0) -> Batch:
    x = torch.randn(batch_size, 8, generator=generator)
    w = torch.randn(8, 4, generator=torch.Generator().manual_seed(5))
    w = w if task == 0 else w + 0.35 * torch.randn(8, 4, generator=torch.Generator().manual_seed(6))
    return x, (x @ w + 0.5 * torch.randn(batch_size, 4, generator=generator)).argmax(1)


@lru_cache
def pretrained() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    for lr in (1e-2, 1e-3, 1e-4):
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        for step in range(500):
            optimizer.zero_grad()
            cross_entropy(model, rows(step, 64, torch.Generator().manual_seed(step))).backward()
            optimizer.step()
    return model


# An autoencoder that does not look at its labels; noisy and rarely large targets; a likelihood; smoothed labels.

IMAGES = torch.rand(4, 24, generator=torch.Generator().manual_seed(3))


def images(step: int, batch_size: int, generator: torch.Generator) -> Batch:
    k = torch.randint(0, 4, (batch_size,), generator=generator)
    return torch.bernoulli(0.05 + 0.9 * (IMAGES[k] > 0.5), generator=generator), (k == 0).long()


def reconstruction(model: nn.Module, batch: Batch) -> Tensor:
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[0])


def noisy_numbers(step: int, batch_size: int, generator: torch.Generator, tail: float = 0.0) -> Batch:
    x, noise = torch.randn(batch_size, 6, generator=generator), torch.randn(batch_size, 1, generator=generator)
    noise = noise * torch.where(torch.rand(batch_size, 1, generator=generator) < tail, 5.0, 1.0)
    return x, x.sum(1, keepdim=True) / math.sqrt(6.0) + 0.7 * noise


def likelihood(model: nn.Module, batch: Batch) -> Tensor:
    mean, log_var = model(batch[0]).chunk(2, -1)
    return 0.5 * (log_var + (batch[1] - mean).square() * (-log_var).exp()).mean()


def narrow(step: int, batch_size: int, generator: torch.Generator) -> Batch:
    x, noise = torch.randn(batch_size, 6, generator=generator), torch.randn(batch_size, 1, generator=generator)
    return x, 0.02 * (x.sum(1, keepdim=True) / math.sqrt(6.0) + 0.3 * noise)


def smoothed(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.2)


SMOOTH_LOWEST = -(0.85 * math.log(0.85) + 3 * 0.05 * math.log(0.05))  # of 4 classes: the entropy of a smoothed label


def two_layers(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


def zeros(outputs: int) -> Callable[[], nn.Module]:
    return lambda: Fixed(torch.zeros(outputs))


def families() -> dict[str, Family]:
    """The kinds of models and losses that were once judged wrongly."""
    other = partial(rows, task=1)
    mean_image = torch.logit(0.05 + 0.9 * (IMAGES > 0.5).float().mean(0))
    spread = torch.tensor([0.0, math.log(0.0004 * 1.09)])
    tail = partial(noisy_numbers, tail=0.05)
    tuned = partial(Family, brings=True, octaves=(-12.0, 1.0))
    return {
        "Zipf language model": Family(
            Own(language_model, language), cross_entropy, (-9.0, 3.0), most_likely_token, rows=2000
        ),
        "class weights, batch 8": Family(
            Own(two_layers(6, 2), imbalanced, weighted),
            weighted,
            (-11.0, 5.0),
            best_weighted_constant,
            rows=8,
            fresh=8000,
        ),
        "residual forecaster": tuned(Own(Residual, series, batch_size=32), squared, constant=zeros(6)),
        "fine-tuning, other rows": tuned(
            Own(lambda: deepcopy(pretrained()), other, batch_size=16), cross_entropy, constant=zeros(4)
        ),
        "fine-tuning, the same rows": tuned(
            Own(lambda: deepcopy(pretrained()), rows, batch_size=16), cross_entropy, constant=zeros(4)
        ),
        "autoencoder, unused labels": Family(
            Own(two_layers(24, 24), images, reconstruction),
            reconstruction,
            (-11.0, 4.0),
            lambda: Fixed(mean_image),
        ),
        "noisy numbers, batch 4": Family(
            Own(two_layers(6, 1), noisy_numbers, batch_size=4), squared, (-11.0, 3.0), zeros(1)
        ),
        "rare large numbers, batch 8": Family(Own(two_layers(6, 1), tail), squared, (-11.0, 3.0), zeros(1)),
        "a likelihood below 0": Family(
            Own(two_layers(6, 2), narrow, likelihood, 32),
            likelihood,
            (-10.0, 3.0),
            lambda: Fixed(spread),
            lowest=0.5 * (math.log(0.0004 * 0.09) + 1.0),
            steps=150,
        ),
        "label smoothing": Family(
            Own(two_layers(8, 4), rows, smoothed), smoothed, (-11.0, 4.0), zeros(4), lowest=SMOOTH_LOWEST
        ),
    }
