"""What theory says beside ramp and hold: one step's critical LR, and that which the curvature allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stresstest.engine.curvature import (
    Eigenvalue,
    FirstStep,
    Loss,
    NoSecondDerivativeError,
    Sum,
    critical_lr,
    first_step,
    gradient,
    hessian_product,
    largest_eigenvalue,
)
from stresstest.engine.memory import in_halves
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.measurements.base import Bench, Measurement
from stresstest.models.scales import Scales
from stresstest.results.bracket import Bracket, finite
from stresstest.user_code import UserCodeError, user_code

_TOLERANCE = 1e-2  # of the residual; the error of the eigenvalue itself goes with its square
_BASIS_BYTES = 1 << 30  # of the vectors that Lanczos keeps


def measure_theory(bench: Bench, seeds: Sequence[int]) -> list[Measurement]:
    """Of each seed at initialisation on one batch; nothing where the optimizer is none of ours."""
    if bench.training.optimizer.name not in OPTIMIZERS:
        return [Measurement() for _ in seeds]
    return in_halves(seeds, 1, lambda part: [_of_one(bench, part[0])])


def _of_one(bench: Bench, seed: int) -> Measurement:
    """Of a built-in model what there is; of the user's nothing, with the reason, where its derivatives fail."""
    if bench.module() is None:
        return _measured(bench, seed)
    try:
        with user_code("the loss as a function of the parameters"):
            return _measured(bench, seed)
    except UserCodeError as error:
        return Measurement(records={"theory": {"no_curvature": error.line}})


def _measured(bench: Bench, seed: int) -> Measurement:
    theta_P, data_loss = bench.objective(seed)
    optimizer, layout = bench.training.optimizer, bench.model.layout
    options = {**optimizer.options, **bench.training.options}
    decay_P = layout.decay_mask().to(theta_P)
    scales = layout.scales(optimizer.update_size).like(theta_P)
    coupled = 0.0 if optimizer.decoupled_decay else float(options.get("weight_decay", 0.0))

    def decay(at_P: Tensor) -> Tensor:
        rate_P = decay_P if scales.lr_P is None else decay_P / scales.lr_P
        return 0.5 * coupled * (rate_P * at_P.square()).sum()

    loss = _added(data_loss, decay) if coupled else data_loss
    initial, data_grad_P = gradient(data_loss, theta_P)
    step = first_step(optimizer, options, theta_P, data_grad_P, decay_P, layout.segments(), scales)
    record: dict[str, Any] = {"initial_loss": finite(initial)}
    metrics: dict[str, Bracket] = {}
    if math.isfinite(initial) and bool(step.direction_P.isfinite().all()):
        metrics["critical_lr"], record["forwards"] = _critical(data_loss, theta_P, step, initial)
        found = _sharpness(bench, loss, theta_P, step, options, scales)
        if isinstance(found, str):
            record["no_curvature"] = found
        elif found is not None:
            assert optimizer.stability is not None, "there is a sharpness of those that have one"
            record |= {"error": finite(found.error), "products": found.products, "converged": found.converged}
            if math.isfinite(found.value):
                metrics["sharpness"] = Bracket.exactly(found.value)
                metrics["predicted_lr"] = _predicted(optimizer.stability.factor(options), found)
    return Measurement(metrics=metrics, records={"theory": record})


def _added(loss: Loss, more: Loss) -> Loss:
    if isinstance(loss, Sum):
        return Sum((*loss.terms, more))
    return lambda at_P: loss(at_P) + more(at_P)


def _critical(loss: Loss, theta_P: Tensor, step: FirstStep, initial: float) -> tuple[Bracket, int]:
    with torch.no_grad():
        found = critical_lr(lambda lr: float(loss(theta_P - lr * step.direction_P)), initial)
    return Bracket(low=found.low, high=found.high), found.forwards


def _sharpness(
    bench: Bench, loss: Loss, theta_P: Tensor, step: FirstStep, options: dict[str, Any], scales: Scales
) -> Eigenvalue | str | None:
    """The (preconditioned) sharpness after the optimizer's first step; a text says why there is none.

    A parameter whose learning rate is scaled has that scale in its preconditioner.
    """
    stability = bench.training.optimizer.stability
    if stability is None:
        return None
    if scales.eps_P is not None and "eps" in options:
        options = options | {"eps": options["eps"] * scales.eps_P}
    scale_P = None if stability.preconditioner is None else stability.preconditioner(options, step.state, 1).rsqrt()
    if scales.lr_P is not None:
        scale_P = scales.lr_P.sqrt() if scale_P is None else scale_P * scales.lr_P.sqrt()
    most = max(2, min(100, _BASIS_BYTES // (theta_P.numel() * theta_P.element_size())))
    try:
        return largest_eigenvalue(
            hessian_product(loss, theta_P, scale_P), theta_P, max_products=most, tolerance=_TOLERANCE
        )
    except NoSecondDerivativeError as error:
        return str(error)


def _predicted(factor: float, sharpness: Eigenvalue) -> Bracket:
    """factor / sharpness; open where nothing curves upwards, or Lanczos was cut short: its value bounds from below."""
    if sharpness.value <= 0.0:
        return Bracket(low=None, high=None)
    lr = factor / sharpness.value
    return Bracket.exactly(lr) if sharpness.converged else Bracket(low=None, high=lr)
