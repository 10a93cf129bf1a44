"""A population and a plain loop on the same batches from the same weights, and what a preflight says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import Training
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.tasks import load_task
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.bench import resolve_user_model
from stresstest.user_model.contract import contract
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation
from stresstest.user_model.preflight import preflight

CPU = torch.device("cpu")
STEPS = 12
LR = 2.0**-6  # exact in every dtype

Build = Callable[[], nn.Module]
Setting = tuple[UserModel, UserBatches, Training]


def in_dtype(dtype: torch.dtype) -> Build:
    return lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3)).to(dtype)


def drawn(dtype: torch.dtype) -> Callable[..., tuple[Tensor, Tensor]]:
    def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(batch_size, 8, generator=generator)
        return x.to(dtype), x[:, :3].argmax(1)

    return batch


def setting(
    build: Build,
    optimizer: str | Callable[..., Any] = "sgd",
    dtype: torch.dtype = torch.float32,
    options: dict[str, Any] | None = None,
    batch: Callable[..., Any] | None = None,
    **training: Any,
) -> Setting:
    users = optimizer if callable(optimizer) else None
    factory = Factory("net", build, {}, {}, "", batch=batch or drawn(dtype), optimizer=users)
    module = factory.make(0, "as-built", 1, 1)
    batches = UserBatches(factory, load_task("language", "synthetic", 4, 8), CPU, module, batch_size=16)
    found = contract(factory, module, batches.batch([0], 0)[0].data)
    chosen = USER_OPTIMIZER if users is not None else OPTIMIZERS[str(optimizer)]
    return UserModel(factory, found, "as-built", 1, 1), batches, Training(chosen, options or {}, CPU, **training)


def populated(made: Setting, seeds: tuple[int, ...] = (3,), steps: int = STEPS) -> tuple[UserPopulation, list[float]]:
    model, batches, training = made
    population, losses = UserPopulation(model, seeds, training, [LR] * len(seeds)), []
    for step in range(steps):
        readings = population.step(batches.batch(seeds, step), torch.full((len(seeds),), LR))
        losses.append(float(readings.loss_R[0]))
    return population, losses


def by_hand(
    made: Setting, optimizer: Callable[[nn.Module], torch.optim.Optimizer], steps: int = STEPS
) -> tuple[nn.Module, list[float]]:
    """A plain loop on a module of its own, on the same batches."""
    model, batches, training = made
    with seeded(3):
        module = model.factory.build()
    users, losses = optimizer(module), []
    for step in range(steps):
        one = batches.batch([3], step)[0]
        users.zero_grad()
        with seeded(one.seed):
            logits = module(one.data[0])
            loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), one.data[1])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), training.clip_norm)
        users.step()
        losses.append(float(loss.detach()))
    return module, losses


def assert_same(population: UserPopulation, module: nn.Module) -> None:
    """Every parameter bit for bit, in its dtype."""
    for (name, ours), theirs in zip(population.modules[0].named_parameters(), module.parameters(), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs), f"{name}: {(ours - theirs).abs().max()}"


def decayed(kind: Any, **options: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """An optimizer of torch's that decays matrices alone, as the built-in ones do."""
    decay = options.pop("weight_decay", 0.0)

    def made(module: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": [p], "weight_decay": decay if p.ndim > 1 else 0.0}
            for p in module.parameters()
            if p.requires_grad
        ]
        return kind(groups, lr=LR, **options)  # type: ignore[no-any-return]

    return made


def said(name: str, text: str, **settings: Any) -> str:
    """What the preflight prints of a file's `build`."""
    Path(f"{name}.py").write_text(text)
    spec = resolve_user_model(LrRangeSpec(model=f"{name}.py:build", probes="off", **settings), sweeps_depth=False)
    return "\n".join(preflight(spec, [1], "cpu").notes)


FILE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))

def batch(step, batch_size, generator):
    x = torch.randn(batch_size, 8, generator=generator)
    return x, x[:, :3].argmax(1)

def build():
"""
