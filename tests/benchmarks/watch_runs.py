"""Small runs for the table of alarms: stable ones of many kinds, and the same with a blow-up planted."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
INPUTS, CLASSES, TOKENS, LENGTH = 16, 8, 16, 12


@dataclass
class Run:
    """A loop under way: what a plant may change between or within its steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: Callable[[torch.Generator], Batch]
    lr: Callable[[int], float]
    generator: torch.Generator
    clip: float | None = None
    loss_of: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    on_batch: Callable[[int, Batch], Batch] = lambda step, batch: batch
    on_loss: Callable[[int, Tensor], Tensor] = lambda step, loss: loss
    on_gradient: Callable[[int], None] = lambda step: None
    lr_times: Callable[[int], float] = lambda step: 1.0
    grad_norms: list[float] = field(default_factory=list)

    def losses(self, steps: int) -> Iterator[float]:
        """The loss of each step, after the step was taken."""
        for step in range(steps):
            x, y = self.on_batch(step, self.batch(self.generator))
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr(step) * self.lr_times(step)
            output = self.model(x).flatten(0, -2)
            loss = self.on_loss(step, self.loss_of(output, y if y.shape == output.shape else y.flatten()))
            self.optimizer.zero_grad()
            loss.backward()
            self.on_gradient(step)
            limit = math.inf if self.clip is None else self.clip
            self.grad_norms.append(float(nn.utils.clip_grad_norm_(self.model.parameters(), limit)))
            self.optimizer.step()
            yield float(loss.detach())


class Conv(nn.Sequential):
    """Two convolutions with batch norm and a linear layer, over 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, CLASSES),
        )


class Decoder(nn.Module):
    """A small pre-norm transformer over tokens, causal."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.position = nn.Parameter(0.1 * torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, TOKENS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position
        return self.head(self.layers(x, mask=self.mask, is_causal=True))


def mlp() -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(nn.Linear(INPUTS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def labelled(size: int, inputs: int = INPUTS, noise: float = 0.0) -> Callable[[torch.Generator], Batch]:
    """Normal inputs labelled by a fixed linear teacher, some at random."""
    teacher = torch.randn(inputs, CLASSES, generator=torch.Generator().manual_seed(7))

    def draw(generator: torch.Generator) -> Batch:
        x = torch.randn(size, inputs, generator=generator)
        y = (x.abs() @ teacher).argmax(1)
        wrong = torch.rand(size, generator=generator) < noise
        return x, torch.where(wrong, torch.randint(CLASSES, (size,), generator=generator), y)

    return draw


def text(size: int) -> Callable[[torch.Generator], Batch]:
    """Sequences of a noisy Markov chain; a step predicts the next token."""
    table = torch.softmax(3.0 * torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(7)), 1)

    def draw(generator: torch.Generator) -> Batch:
        tokens = [torch.randint(TOKENS, (size,), generator=generator)]
        for _ in range(LENGTH):
            tokens.append(torch.multinomial(table[tokens[-1]], 1, generator=generator).flatten())
        whole = torch.stack(tokens, 1)
        return whole[:, :-1], whole[:, 1:]

    return draw


def easy_then_hard(size: int, every: int) -> Callable[[torch.Generator], Batch]:
    """A curriculum: each stage has noisier labels, up to a fourth of them."""
    stages = [labelled(size, noise=share) for share in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)]
    count = 0

    def draw(generator: torch.Generator) -> Batch:
        nonlocal count
        count += 1
        return stages[min(count // every, len(stages) - 1)](generator)

    return draw


def epochs(size: int, examples: int) -> Callable[[torch.Generator], Batch]:
    """The same examples again and again in a new order: the loss steps down at an epoch's edge."""
    x, y = labelled(examples, noise=0.2)(torch.Generator().manual_seed(11))
    order: list[int] = []

    def draw(generator: torch.Generator) -> Batch:
        nonlocal order
        if len(order) < size:
            order = torch.randperm(examples, generator=generator).tolist()
        rows, order = order[:size], order[size:]
        return x[rows], y[rows]

    return draw


def warmed(peak: float, steps: int) -> Callable[[int], float]:
    """A linear warm-up, then constant."""
    return lambda step: peak * min(1.0, (step + 1) / steps)


def restarts(peak: float, cycle: int) -> Callable[[int], float]:
    """Cosine down to 1 % and back up at once, again and again."""
    return lambda step: peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step % cycle) / cycle)))


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters())


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


Maker = Callable[[int], Run]


def maker(
    build: Callable[[], nn.Module],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    batch: Callable[[], Callable[[torch.Generator], Batch]],
    lr: Callable[[int], float],
    clip: float | None = None,
) -> Maker:
    """A run by its seed."""

    def make(seed: int) -> Run:
        torch.manual_seed(seed)
        model = build()
        return Run(model, optimizer(model), batch(), lr, torch.Generator().manual_seed(seed), clip)

    return make


STABLE: dict[str, Maker] = {
    "transformer, warm-up, Adam": maker(Decoder, adam, lambda: text(16), warmed(3e-3, 100)),
    "transformer, cosine restarts": maker(Decoder, adam, lambda: text(16), restarts(5e-3, 500), clip=1.0),
    "conv net, SGD": maker(Conv, sgd, lambda: labelled(32, 64), warmed(0.05, 1)),
    "MLP, 30 % wrong labels": maker(mlp, adam, lambda: labelled(32, noise=0.3), warmed(3e-3, 1)),
    "MLP, batch of 1": maker(mlp, sgd, lambda: labelled(1), warmed(2e-3, 1)),
    "MLP, batch of 2, Adam": maker(mlp, adam, lambda: labelled(2, noise=0.1), warmed(1e-3, 1)),
    "MLP, epochs of 20 steps": maker(mlp, adam, lambda: epochs(32, 640), warmed(1e-3, 1)),
    "MLP, curriculum": maker(mlp, adam, lambda: easy_then_hard(32, 1500), warmed(2e-3, 1)),
}


def synthetic(tail: str, seed: int) -> Iterator[float]:
    """A falling loss with noise: `normal`, `student` (3 degrees of freedom), `pareto` (exponent 2) or `lognormal`."""
    draw = random.Random(seed)
    step = 0
    while True:
        level = 1.0 + 3.0 * math.exp(-step / 300)
        yield level + level * _noise(tail, draw)
        step += 1


def _noise(tail: str, draw: random.Random) -> float:
    if tail == "normal":
        return 0.1 * draw.gauss(0, 1)
    if tail == "student":
        return 0.1 * draw.gauss(0, 1) / math.sqrt(draw.gammavariate(1.5, 2) / 3)
    if tail == "pareto":
        return 0.1 * (draw.paretovariate(2.0) - 2.0)
    return 0.1 * (draw.lognormvariate(0, 1.5) - 3.08)


TAILS = ("normal", "student", "pareto", "lognormal")
