"""The loop that a person would write to look for a learning rate, and nothing of the tool's rules.

A plain `for` loop at a constant learning rate, on the batches and from the weights that the tool has for the same
seed; what it brought is looked at on batches that nothing trained on. `Edge` is where it stops to train.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresstest.engine.train import Batches
from stresstest.tasks import load_task
from stresstest.tasks.task import splitmix64

FOLDER = Path(__file__).parent / "situations"
OCTAVES = range(-14, 4)  # the hand loop's learning rates, as powers of 2
_FRESH = 48  # batches that are looked at
_FRESH_STEP = 10_000  # their steps, which training never reaches

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Looked:
    """Mean loss of the same fresh batches at the start and at the end, and the model at the end."""

    start: float
    end: float
    module: nn.Module
    fresh: Sequence[Any]


Judge = Callable[[Looked], bool]


@dataclass(frozen=True)
class Edge:
    """The largest octave that trained and the first above it that did not; `None` where there is none."""

    low: float | None
    high: float | None
    losses: Mapping[float, float]  # at the end, by learning rate

    def __str__(self) -> str:
        if self.low is None:
            return "trains nowhere"
        return f"{self.low:.2g}..{self.high:.2g}" if self.high is not None else f"> {self.low:.2g}"


@dataclass(frozen=True)
class UserCode:
    """What a situation's file gives to a loop: `build`, `batch`, the loss and the optimizer."""

    build: Callable[..., nn.Module]
    batch: Callable[..., Any] | None
    loss: Loss
    optimizer: Callable[..., torch.optim.Optimizer]
    batch_size: int
    steps: int

    def drawn(self, step: int, key: int, seed: int = 0) -> Any:
        """The batch of a step; `key` seeds its generator."""
        if self.batch is None:
            return built_in_text(step, self.batch_size, seed)
        more = {"split": "train"} if "split" in inspect.signature(self.batch).parameters else {}
        return self.batch(step, self.batch_size, torch.Generator().manual_seed(key), **more)

    def fresh(self) -> list[Any]:
        """Batches that nothing trains on."""
        return [self.drawn(_FRESH_STEP + i, 77_000 + i) for i in range(_FRESH)]


def trained(code: UserCode, judge: Judge, lr: float, seed: int = 0, nudge: int = 0) -> tuple[bool, float]:
    """Whether the loop trains at this learning rate, and the loss of fresh batches at its end.

    nudge: other than 0, weights that start 1e-6 of their size elsewhere: near the edge rounding decides.
    """
    looked = loop(code, lr, seed, nudge)
    if not math.isfinite(looked.end):
        return False, looked.end
    return judge(looked), looked.end


def edge(code: UserCode, judge: Judge, seed: int = 0, octaves: Sequence[int] = OCTAVES) -> Edge:
    """Walk up through the octaves: where does training stop?"""
    losses: dict[float, float] = {}
    low: float | None = None
    for k in octaves:
        lr = 2.0**k
        good, losses[lr] = trained(code, judge, lr, seed)
        if good:
            low = lr
        elif low is not None:
            return Edge(low, lr, losses)
    return Edge(low, None, losses)


def loop(code: UserCode, lr: float, seed: int, nudge: int = 0) -> Looked:
    """Train from the seed's weights on the seed's batches."""
    fresh, start = _start(code, seed)
    module = _built(code, seed)
    if nudge:
        generator = torch.Generator().manual_seed(nudge)
        with torch.no_grad():
            for weights in module.parameters():
                weights.mul_(1.0 + 1e-6 * torch.randn(weights.shape, generator=generator))
    optimizer = code.optimizer(module, lr)
    for step in range(code.steps):
        batch_key, step_key = keys(seed, step)
        data = code.drawn(step, batch_key, seed)
        seed_everything(step_key)
        optimizer.zero_grad()
        loss = code.loss(module, data)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    return Looked(start, _mean_loss(code, module, fresh), module, fresh)


@lru_cache(maxsize=2)
def _start(code: UserCode, seed: int) -> tuple[list[Any], float]:
    """Fresh batches and their mean loss at the seed's weights."""
    fresh = code.fresh()
    return fresh, _mean_loss(code, _built(code, seed), fresh)


def built_in_text(step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """The bytes that the tool feeds a seed."""
    batches = Batches(load_task("language", "synthetic", batch_size, 64), torch.device("cpu"))
    drawn = batches.batch([seed], step)
    return drawn.inputs[0], drawn.targets[0]


def seed_everything(seed: int) -> None:
    """torch's (the CPU's alone: torch.manual_seed takes a millisecond here), numpy's and Python's start from `seed`."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)


def keys(seed: int, step: int) -> tuple[int, int]:
    """What seeds a batch's generator, and all that is drawn in its step, as the tool has it: so both see the same."""
    mixed = splitmix64(splitmix64(np.array([seed], np.uint64)) + np.uint64(step * 4))
    return int(mixed[0] >> np.uint64(1)), int(splitmix64(mixed)[0] >> np.uint64(1))


def _built(code: UserCode, seed: int) -> nn.Module:
    seed_everything(seed)
    return code.build().train()


def _mean_loss(code: UserCode, module: nn.Module, fresh: Sequence[Any]) -> float:
    losses = []
    for i, data in enumerate(fresh):
        seed_everything(i)
        losses.append(float(code.loss(module, data).detach()))
    return float(np.mean(losses))


@lru_cache(maxsize=32)
def file(name: str) -> ModuleType:
    """A file of situations, imported apart from the tool's own import of it."""
    spec = importlib.util.spec_from_file_location(f"by_hand_{name.removesuffix('.py')}", FOLDER / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries that it imports
        spec.loader.exec_module(module)
    return module


# Judges: each says whether a person would call it trained.


def below(level: float) -> Judge:
    """The loss of fresh batches ends below `level`: one that no constant reaches, known from how the data is made."""
    return lambda looked: looked.end < level


def beats(constant: float, share: float = 0.05) -> Judge:
    """The loss of fresh batches ends below that of the best constant predictor, by a share of it."""
    return below(constant * (1.0 - share))


def fell(by: float) -> Judge:
    """The loss of the same fresh batches fell by more than `by` from start to end."""
    return lambda looked: looked.start - looked.end > by


def kept(within: float) -> Judge:
    """The loss of the same fresh batches rose by less than `within`: for a model that had nothing left to learn."""
    return lambda looked: looked.end - looked.start < within
