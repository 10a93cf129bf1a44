"""Benches of tiny models of every kind, and what an ordinary training makes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stresstest.engine.replicas import Replicas
from stresstest.engine.train import train
from stresstest.experiments.plan import canonical
from stresstest.experiments.shock.line import Array, Line
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench

OWN, ON_TEXT = (Path(__file__).with_name(name) for name in ("own.py", "on_text.py"))
AFTER, TOTAL, SEED = 6, 14, 1
SMALL: dict[str, Any] = {"variant": "pre-ln", "depth": 2, "width": 8, "heads": 2, "seq_len": 6, "batch_size": 4}


def spec_of(**settings: Any) -> ShockSpec:
    """Settings of a tiny model, resolved; `own` is a factory of `own.py`."""
    spec: ShockSpec = canonical(asked(**settings))
    return spec


def asked(**settings: Any) -> ShockSpec:
    """Settings as a user gives them."""
    own = settings.pop("own", "")
    if own:
        settings = {"model": own if ":" in own else f"{OWN}:{own}", "batch_size": 8, **settings}
        for name in ("optimizer_fn", "step_fn", "batch_fn"):
            if name in settings:
                settings[name] = f"{OWN}:{settings[name]}"
    elif settings.get("model") in (None, "transformer"):
        settings = SMALL | settings
    elif settings["model"] in ("mlp", "resnet"):
        settings = {"depth": 3, "width": 8, "batch_size": 8, "data": "digits"} | settings
    return ShockSpec(**settings)


def bench_of(spec: ShockSpec) -> Bench:
    return make_bench(spec, spec.variant[0], spec.depth, spec.optimizer, "cpu")


def trained(bench: Bench, lr_N: Array, seed: int = SEED) -> tuple[list[float], Replicas[Any]]:
    """Losses and population of an undisturbed training, by the training loop itself."""
    population = bench.populate([seed], [float(lr_N.max())])
    bench.starts(population, [seed])
    losses = [loss for block in train(population, bench.batches, [seed], lr_N[:, None]) for loss in block.loss[:, 0]]
    return losses, population


def base(bench: Bench, lr_N: Array, seed: int = SEED, after: int = AFTER) -> Line:
    """A replica in training up to the step of a shock."""
    line = Line.fresh(bench, seed, lr_N)
    line.go(after)
    return line


def schedule_of(lr: float, total: int = TOTAL) -> Array:
    """A linear decay, so that no step is like another."""
    return np.linspace(lr, lr / 2, total)


def bits(value: Any) -> Any:
    """All numbers of a state as bytes, whatever holds them."""
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {str(key): bits(part) for key, part in value.items()}
    return [bits(part) for part in value] if isinstance(value, list | tuple) else value
