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
    HessianProduct,
    Loss,
    NoSecondDerivativeError,
    Sum,
    critical_lr,
    first_step,
    gradient,
    largest_eigenvalue,
)
from stresstest.engine.memory import in_halves
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.measurements.base import Bench, Measurement
from stresstest.models.scales import Scales
from stresstest.results.bracket import Bracket, finite
from stresstest.user_code import UserCodeError, user_code

_TOLERANCE = 1e-2  # of the residual; the error of the eigenvalue itself goes with its square
_EXACT = 1e-4  # relative: how far the scaled gradient may be off in float32; its products are by some ten times as much
_SURE = 1e-3  # relative: a loss in float32 nearer than this to another is asked for once more in float64
_FOUND = 0.1 * _SURE  # relative: how near to the initial loss in float64 that in float32 has to be
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
        if options.get("decay_all"):
            return 0.5 * coupled * at_P.square().sum()
        rate_P = decay_P if scales.lr_P is None else decay_P / scales.lr_P
        return 0.5 * coupled * (rate_P * at_P.square()).sum()

    loss = _added(data_loss, decay) if coupled else data_loss
    initial, data_grad_P = gradient(data_loss, theta_P)
    step = first_step(optimizer, options, theta_P, data_grad_P, decay_P, layout.segments(), scales)
    record: dict[str, Any] = {"initial_loss": finite(initial)}
    metrics: dict[str, Bracket] = {}
    if math.isfinite(initial) and bool(step.direction_P.isfinite().all()):
        metrics["critical_lr"], record["forwards"] = _critical(bench, data_loss, theta_P, step, initial)
        grad_P = data_grad_P + gradient(decay, theta_P)[1] if coupled else data_grad_P
        found = _sharpness(bench, loss, theta_P, grad_P, step, options, scales)
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


def _quick(bench: Bench, theta_P: Tensor) -> torch.dtype:
    """What a built-in model, whose objective is in float64, is looked at in where that is enough."""
    return torch.float32 if bench.module() is None else theta_P.dtype


def _critical(bench: Bench, loss: Loss, theta_P: Tensor, step: FirstStep, initial: float) -> tuple[Bracket, int]:
    """By losses in float32, which are taken again in float64 where the answer is a close one.

    Not where float32 does not find the initial loss: a deep stack without skips makes much of a rounding.
    """
    quick = _quick(bench, theta_P)

    def loss_at(lr: float) -> float:
        at_P = theta_P - lr * step.direction_P
        value = float(loss(at_P.to(quick)))
        if quick == theta_P.dtype or (math.isfinite(value) and abs(value - initial) > _SURE * abs(initial)):
            return value
        return float(loss(at_P))

    with torch.no_grad():
        if quick != theta_P.dtype and not abs(float(loss(theta_P.to(quick))) - initial) <= _FOUND * abs(initial):
            quick = theta_P.dtype
        found = critical_lr(loss_at, initial)
    return Bracket(low=found.low, high=found.high), found.forwards


def _sharpness(
    bench: Bench,
    loss: Loss,
    theta_P: Tensor,
    grad_P: Tensor,
    step: FirstStep,
    options: dict[str, Any],
    scales: Scales,
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
    try:
        product = _product(loss, theta_P, grad_P, scale_P, _quick(bench, theta_P))
        most = max(2, min(100, _BASIS_BYTES // (theta_P.numel() * theta_P.element_size())))
        return largest_eigenvalue(product, product.gradient, max_products=most, tolerance=_TOLERANCE)
    except NoSecondDerivativeError as error:
        return str(error)


def _product(loss: Loss, theta_P: Tensor, grad_P: Tensor, scale_P: Tensor | None, quick: torch.dtype) -> HessianProduct:
    """In the dtype `quick`, but in that of `theta_P` where the former does not find the gradient, `grad_P`.

    Both are scaled: the parameters that count most are those whose gradient is nearly zero, and is lost first.
    """
    if quick != theta_P.dtype:
        found = HessianProduct(loss, theta_P.to(quick), None if scale_P is None else scale_P.to(quick))
        exact_P, off_P = grad_P, found.gradient - grad_P
        if scale_P is not None:
            exact_P, off_P = scale_P * exact_P, scale_P * off_P
        if float(off_P.norm()) <= _EXACT * float(exact_P.norm()):  # NaN is not
            return found
    return HessianProduct(loss, theta_P, scale_P)


def _predicted(factor: float, sharpness: Eigenvalue) -> Bracket:
    """factor / sharpness; open where nothing curves upwards, or Lanczos was cut short: its value bounds from below."""
    if sharpness.value <= 0.0:
        return Bracket(low=None, high=None)
    lr = factor / sharpness.value
    return Bracket.exactly(lr) if sharpness.converged else Bracket(low=None, high=lr)
