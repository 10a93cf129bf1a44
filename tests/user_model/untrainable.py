"""What no learning rate trains, as nothing of the target follows from the input; and what is a constant predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.measurements.course import hold
from stresstest.measurements.replica import ReplicaRun
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.factory import register_callable

CLASSES = (2, 3, 5, 10, 30, 100, 300, 1000, 3000, 10_000)
BATCH_SIZES = (2, 4, 8, 16, 32, 64)
OCTAVES = range(-14, 5)  # of the learning rate
_INPUTS = 8
_HIDDEN = 16


@dataclass(frozen=True)
class Own:
    """The user's model and what stands beside it, ready to be held at learning rates."""

    build: Callable[[], nn.Module]
    batch: Callable[..., Any]
    loss_fn: Callable[..., Tensor] | None = None
    batch_size: int = 8
    optimizer: str = "adam"
    baseline_loss: float | None = None

    def hold(self, trials: Sequence[tuple[int, float]], steps: int) -> list[ReplicaRun]:
        """Train each (seed, lr) for so many steps, judged as ever."""
        beside = {"batch": self.batch, "loss_fn": self.loss_fn, "baseline_loss": self.baseline_loss}
        with register_callable(self.build, {}, **beside) as name:
            asked = LrRangeSpec(
                model=name, probes="off", batch_size=self.batch_size, optimizer=self.optimizer, seeds=(0,)
            )
            spec = resolve_user_model(asked, False)
            bench = user_bench(spec, spec.variant[0], spec.depth, spec.optimizers[0], "cpu")
            return hold(bench, trials, steps)


class Constant(nn.Module):
    """One bias for each output, whatever the input."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The biases, [B, outputs]."""
        return self.bias.expand(len(x), -1)


def linear(outputs: int) -> nn.Module:
    """One matrix."""
    return nn.Linear(_INPUTS, outputs)


def mlp(outputs: int) -> nn.Module:
    """Two."""
    return nn.Sequential(nn.Linear(_INPUTS, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, outputs))


def zipf(classes: int) -> Tensor:
    """Shares that fall with the rank, as those of tokens."""
    share = 1.0 / torch.arange(1, classes + 1)
    return share / share.sum()


def labels(
    step: int, batch_size: int, generator: torch.Generator, *, classes: int, skewed: bool
) -> tuple[Tensor, Tensor]:
    """Classes that have nothing to do with their inputs."""
    x = torch.randn(batch_size, _INPUTS, generator=generator)
    if skewed:
        return x, torch.multinomial(zipf(classes), batch_size, replacement=True, generator=generator)
    return x, torch.randint(classes, (batch_size,), generator=generator)


def numbers(step: int, batch_size: int, generator: torch.Generator, *, rare: bool = False) -> tuple[Tensor, Tensor]:
    """Numbers that have nothing to do with their inputs; a few `rare` ones are large."""
    x, y = (torch.randn(batch_size, size, generator=generator) for size in (_INPUTS, 1))
    if rare:
        y = y * torch.where(torch.rand(batch_size, 1, generator=generator) < 0.03, 10.0, 1.0)
    return x, y + 1.0


def smoothed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A loss whose constant predictor has to be found by minimising."""
    return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)


def random_labels() -> Iterator[tuple[str, Own]]:
    """Models of random labels, without end: every number of classes with every size of batch in turn, and the rest."""
    kinds = cycle([(linear, "adam"), (mlp, "adam"), (linear, "sgd"), (mlp, "adam"), (mlp, "sgd")])
    losses, skews = cycle([None, None, None, smoothed]), cycle([True, False, True])
    while True:
        for batch_size in BATCH_SIZES:
            for classes in CLASSES:
                (build, optimizer), skewed, loss_fn = next(kinds), next(skews), next(losses)
                if classes > 300:
                    loss_fn = None  # of so many the search for a constant takes most of the time
                name = f"{build.__name__}, {optimizer}, {_named(classes, skewed)}, {batch_size} a step"
                batch = partial(labels, classes=classes, skewed=skewed)
                own = Own(partial(build, classes), batch, loss_fn, batch_size, optimizer)
                yield name + (", smoothed" if loss_fn else ""), own


def _named(classes: int, skewed: bool) -> str:
    return f"{classes} {'Zipf' if skewed else 'even'} classes"


def constants() -> Iterator[tuple[str, Own]]:
    """Models that are a constant predictor."""
    for classes in (2, 10, 300, 4096):
        for batch_size in (2, 8, 64):
            for skewed in (False, True):
                batch = partial(labels, classes=classes, skewed=skewed)
                name = f"one bias for each of {_named(classes, skewed)}, {batch_size} a step"
                yield name, Own(partial(Constant, classes), batch, batch_size=batch_size)
    for batch_size in (2, 8, 64):
        for rare in (False, True):
            name = f"one bias for {'rare large' if rare else 'normal'} numbers, {batch_size} a step"
            yield name, Own(partial(Constant, 1), partial(numbers, rare=rare), batch_size=batch_size)


def random_numbers() -> Iterator[tuple[str, Own]]:
    """Models of random numbers."""
    for build in (linear, mlp):
        for batch_size in (2, 8, 64):
            for rare in (False, True):
                name = f"{build.__name__}, {'rare large' if rare else 'normal'} numbers, {batch_size} a step"
                yield name, Own(partial(build, 1), partial(numbers, rare=rare), batch_size=batch_size)
