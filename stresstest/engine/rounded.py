"""Updates of parameters that are kept in less than float32, or in several dtypes: as torch's optimizers round them.

Where torch has the optimizer, its own functions make the update of each row, so that every operation rounds as it
does there. The others compute in float32 and round what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.radam import radam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from stresstest.engine.optimizer import Optimizer, Step


@dataclass(frozen=True)
class Stretch:
    """The columns of one parameter in a population's matrix, its dtype, and whether weight decay applies."""

    start: int
    stop: int
    dtype: torch.dtype
    decays: bool


@dataclass(frozen=True)
class _Row:
    """A stretch of one replica as torch's functions take it, each [P]; they count the step themselves."""

    theta: Tensor
    gradient: Tensor
    state: Mapping[str, Tensor]
    step: Tensor
    lr: float


Options = Mapping[str, Any]


def wide(dtype: torch.dtype) -> torch.dtype:
    """In which numbers of a dtype are added up: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def update(optimizer: Optimizer, options: Options, step: Step, stretches: Sequence[Stretch]) -> None:
    """One update of all rows, in place, each parameter and its state rounded to its own dtype.

    The matrices of `step` may be wider than the dtypes of `stretches`; what they hold is of those.
    """
    chosen = {**optimizer.options, **options}
    torchs = _TORCHS.get(optimizer.name)
    if torchs is None:
        _in_float32(optimizer, options, step, stretches)
        return
    counts = (step.step_R1[:, 0] - 1.0).float().cpu()  # torch's functions take numbers, and count the step
    for row, lr in enumerate(step.lr_R1[:, 0].tolist()):
        for one in stretches:
            decay = float(chosen.get("weight_decay", 0.0)) if one.decays else 0.0
            _one_row(torchs, {**chosen, "weight_decay": decay}, step, row, (counts[row], lr), one)


def _one_row(
    torchs: Callable[[_Row, Options], None],
    options: Options,
    step: Step,
    row: int,
    at: tuple[Tensor, float],
    s: Stretch,
) -> None:
    count, lr = at
    kept = {"": step.theta_RP, **step.state}
    parts = {name: matrix[row, s.start : s.stop] for name, matrix in kept.items()}
    own = {name: part.to(s.dtype) for name, part in parts.items()}
    gradient = step.grad_RP[row, s.start : s.stop].to(s.dtype)
    torchs(_Row(own[""], gradient, {name: own[name] for name in step.state}, count.clone(), lr), options)
    for name, part in parts.items():
        if own[name] is not part:
            part.copy_(own[name])


def _in_float32(optimizer: Optimizer, options: Options, step: Step, stretches: Sequence[Stretch]) -> None:
    dtype = wide(step.theta_RP.dtype)
    theta_RP = step.theta_RP.to(dtype)
    state = {slot: matrix.to(dtype) for slot, matrix in step.state.items()}
    optimizer.update(
        replace(step, theta_RP=theta_RP, grad_RP=step.grad_RP.to(dtype, copy=True), state=state), **options
    )
    for matrix, found in ((step.theta_RP, theta_RP), *((step.state[slot], state[slot]) for slot in state)):
        for s in stretches:
            matrix[:, s.start : s.stop] = found[:, s.start : s.stop].to(s.dtype)


def _sgd(row: _Row, options: Options, momentum: float = 0.0, nesterov: bool = False) -> None:
    sgd(
        [row.theta],
        [row.gradient],
        [row.state["velocity"] if momentum else None],
        weight_decay=options["weight_decay"],
        momentum=momentum,
        lr=row.lr,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
    )


def _adagrad(row: _Row, options: Options) -> None:
    adagrad(
        [row.theta],
        [row.gradient],
        [row.state["sum"]],
        [row.step],
        lr=row.lr,
        weight_decay=options["weight_decay"],
        lr_decay=0.0,
        eps=options["eps"],
        maximize=False,
    )


def _rmsprop(row: _Row, options: Options) -> None:
    rmsprop(
        [row.theta],
        [row.gradient],
        [row.state["square"]],
        [],
        [],
        [row.step],
        lr=row.lr,
        alpha=options["alpha"],
        eps=options["eps"],
        weight_decay=options["weight_decay"],
        momentum=0.0,
        centered=False,
    )


def _adam(row: _Row, options: Options, decoupled: bool = False) -> None:
    adam(
        [row.theta],
        [row.gradient],
        [row.state["mean"]],
        [row.state["square"]],
        [],
        [row.step],
        decoupled_weight_decay=decoupled,
        amsgrad=False,
        beta1=options["beta1"],
        beta2=options["beta2"],
        lr=row.lr,
        weight_decay=options["weight_decay"],
        eps=options["eps"],
        maximize=False,
    )


def _radam(row: _Row, options: Options) -> None:
    radam(
        [row.theta],
        [row.gradient],
        [row.state["mean"]],
        [row.state["square"]],
        [row.step],
        beta1=options["beta1"],
        beta2=options["beta2"],
        lr=row.lr,
        weight_decay=options["weight_decay"],
        eps=options["eps"],
    )


_TORCHS: Mapping[str, Callable[[_Row, Options], None]] = {
    "sgd": _sgd,
    "momentum": lambda row, options: _sgd(row, options, options["beta"]),
    "nesterov": lambda row, options: _sgd(row, options, options["beta"], nesterov=True),
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": lambda row, options: _adam(row, options, decoupled=True),
    "radam": _radam,
}
