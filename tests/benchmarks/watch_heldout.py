"""Runs that no constant of the alarm was tuned on: other models, data and seeds than those of watch_runs.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from watch_plants import (
    Kind,
    corrupt_batch,
    float16_overflow,
    inf_gradient,
    labels_shuffled,
    lost_moments,
    lr_jumps,
    lr_ramps,
    nan_loss,
    no_clipping,
    sign_flipped,
    weights_scaled,
)
from watch_runs import Batch, Maker, Run, maker, restarts, warmed

FIRST_SEED = 1000
SIZE, WORDS, LENGTH, COLUMNS = 12, 20, 16, 10  # of an image, a vocabulary, a sentence, a table
Draw = Callable[[torch.Generator], Batch]


class Gru(nn.Module):
    """A recurrent language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 24)
        self.gru = nn.GRU(24, 48, batch_first=True)
        self.head = nn.Linear(48, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.gru(self.embedding(tokens))[0])


class Vit(nn.Module):
    """A transformer over the nine patches of an image; mean pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(9, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(images).flatten(2).transpose(1, 2) + self.position).mean(1))


class ReZero(nn.Module):
    """Twenty residual blocks whose branches begin at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(COLUMNS, 32)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(20))
        self.scales = nn.Parameter(torch.zeros(20))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, scale in zip(self.blocks, self.scales.unbind(), strict=True):
            x = x + scale * torch.relu(block(x))
        return self.head(x)


def conv() -> nn.Module:
    """Three convolutions with group norm and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.GroupNorm(3, 12),
        nn.SiLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.GroupNorm(4, 24),
        nn.SiLU(),
        nn.Conv2d(24, 24, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(216, 6),
    )


def tabular() -> nn.Module:
    """A wide and a narrow hidden layer."""
    return nn.Sequential(nn.Linear(COLUMNS, 96), nn.GELU(), nn.Linear(96, 24), nn.GELU(), nn.Linear(24, 5))


def autoencoder() -> nn.Module:
    """Images through eight numbers."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(144, 48), nn.ELU(), nn.Linear(48, 8), nn.Linear(8, 48), nn.ELU(), nn.Linear(48, 144)
    )


def gratings(size: int, noise: float = 0.4) -> Draw:
    """Stripes in one of six directions, at any phase."""
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")

    def draw(generator: torch.Generator) -> Batch:
        y = torch.randint(6, (size,), generator=generator)
        angle, phase = y * math.pi / 6, 2 * math.pi * torch.rand(size, generator=generator)
        along = angle.cos()[:, None, None] * rows + angle.sin()[:, None, None] * columns
        images = (1.3 * along + phase[:, None, None]).sin()
        return (images + noise * torch.randn(images.shape, generator=generator))[:, None], y

    return draw


def pictures(size: int) -> Draw:
    """Gratings to be drawn again."""
    images = gratings(size, 0.1)

    def draw(generator: torch.Generator) -> Batch:
        x, _ = images(generator)
        return x, x.flatten(1)

    return draw


def sentences(size: int) -> Draw:
    """Each word is the sum of the two before, or any word, one time in five."""

    def draw(generator: torch.Generator) -> Batch:
        words = torch.randint(WORDS, (size, LENGTH + 1), generator=generator)
        lost = torch.rand(size, LENGTH + 1, generator=generator) < 0.2
        for i in range(2, LENGTH + 1):
            words[:, i] = torch.where(lost[:, i], words[:, i], (words[:, i - 1] + words[:, i - 2]) % WORDS)
        return words[:, :-1], words[:, 1:]

    return draw


def table(size: int, wrong: float = 0.05) -> Draw:
    """Skewed columns; the class is a count of thresholds passed, some of them wrong."""

    def draw(generator: torch.Generator) -> Batch:
        x = (0.7 * torch.randn(size, COLUMNS, generator=generator)).exp()
        y = (x[:, :4] * x[:, 4:8] > 1.0).sum(1)
        other = torch.rand(size, generator=generator) < wrong
        return x - 1.0, torch.where(other, torch.randint(5, (size,), generator=generator), y)

    return draw


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), weight_decay=0.05)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), betas=(0.9, 0.95))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def plain_sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def squares(make: Maker) -> Maker:
    """The same run with the mean squared error."""

    def made(seed: int) -> Run:
        run = make(seed)
        run.loss_of = F.mse_loss
        return run

    return made


def half_cosine(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """A warm-up and a cosine to zero, which stays."""
    return lambda step: peak * min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))


def in_tens(losses: Iterator[float]) -> Iterator[float]:
    """Means of ten, as a loop that logs every ten steps has them."""
    while len(ten := list(itertools.islice(losses, 10))) == 10:
        yield sum(ten) / 10


STABLE: dict[str, Maker] = {
    "GRU, AdamW, batch of 16": maker(Gru, adamw, lambda: sentences(16), warmed(3e-3, 100), clip=1.0),
    "GRU, Adam, batch of 2": maker(Gru, adam, lambda: sentences(2), warmed(2e-3, 1)),
    "conv net with dropout, SGD, batch of 8": maker(conv, sgd, lambda: gratings(8), warmed(0.02, 20)),
    "conv net, AdamW, restarts": maker(conv, adamw, lambda: gratings(32, 1.2), restarts(3e-3, 400)),
    "ViT, AdamW, warm-up and cosine": maker(Vit, adamw, lambda: gratings(32), half_cosine(2e-3, 200, 4000)),
    "table, SGD with momentum, batch of 256": maker(tabular, sgd, lambda: table(256), warmed(0.05, 1)),
    "table, SGD, batch of 1": maker(tabular, plain_sgd, lambda: table(1), warmed(5e-3, 1)),
    "table, AdamW, batch of 4, a fifth wrong": maker(tabular, adamw, lambda: table(4, 0.2), warmed(1e-3, 1)),
    "autoencoder, Adam, batch of 16": squares(maker(autoencoder, adam, lambda: pictures(16), warmed(2e-3, 1))),
    "autoencoder, SGD, batch of 1": squares(maker(autoencoder, sgd, lambda: pictures(1), warmed(0.05, 50))),
    "ReZero of 20 layers, Adam, batch of 64": maker(ReZero, adam, lambda: table(64), warmed(2e-3, 1)),
}
IN_TENS: dict[str, Maker] = {
    "table, Adam, batch of 8, means of 10": maker(tabular, adam, lambda: table(8), warmed(1e-3, 1)),
}

BASES: dict[str, Maker] = {
    "GRU, AdamW": maker(Gru, adamw, lambda: sentences(32), warmed(5e-3, 20)),
    "conv net, SGD": maker(conv, sgd, lambda: gratings(64), warmed(0.05, 20), clip=1.0),
    "ViT, AdamW": maker(Vit, adamw, lambda: gratings(64), warmed(2e-3, 50)),
    "table, SGD": maker(tabular, sgd, lambda: table(256), warmed(0.1, 1)),
    "autoencoder, Adam": squares(maker(autoencoder, adam, lambda: pictures(32), warmed(3e-3, 1))),
    "ReZero, Adam": maker(ReZero, adam, lambda: table(128), warmed(3e-3, 1)),
}
ADAMS = tuple(name for name in BASES if "Adam" in name)
NUMBERS = tuple(name for name in BASES if "GRU" not in name)
KINDS: dict[str, Kind] = {
    "LR times 60": Kind(lr_jumps, tuple(BASES)),
    "LR ramp": Kind(lr_ramps, tuple(BASES)),
    "NaN loss": Kind(nan_loss, tuple(BASES)),
    "infinite gradient": Kind(inf_gradient, tuple(name for name in BASES if "conv" not in name)),
    "corrupt batch": Kind(corrupt_batch, NUMBERS),
    "optimizer's moments lost": Kind(lost_moments, ADAMS),
    "weights scaled": Kind(weights_scaled, tuple(BASES)),
    "float16 overflow": Kind(float16_overflow, tuple(BASES)),
    "labels shuffled": Kind(labels_shuffled, tuple(BASES)),
    "explosion without clipping": Kind(no_clipping, tuple(BASES)),
    "slow divergence": Kind(sign_flipped, tuple(BASES)),
}
