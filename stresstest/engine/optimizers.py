"""Optimizers over replicas: a few lines on `theta_RP`, where each row has its own learning rate.

An update reads one gradient matrix and changes parameters and state in place. Every entry equals
its reference, replica by replica; the table names the reference.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stresstest.engine.optimizer import Optimizer, Options, Stability, Step
from stresstest.engine.orthogonal import orthogonal
from stresstest.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from stresstest.models.scales import UpdateSize


_entries: list[Optimizer] = []


def _optimizer(
    name: str,
    source: str,
    *slots: str,
    adaptive: bool,
    decoupled_decay: bool,
    stability: Stability | None,
    update_size: UpdateSize | None = None,
    elementwise: bool = True,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(update: Callable[..., None]) -> Callable[..., None]:
        parameters = list(inspect.signature(update).parameters.values())[1:]
        summary = inspect.cleandoc(update.__doc__ or "").splitlines()[0]
        options = {p.name: p.default for p in parameters}
        size: UpdateSize = update_size or ("unit" if adaptive else "gradient")
        _entries.append(
            Optimizer(
                name, summary, source, slots, options, update, adaptive, decoupled_decay, stability, size, elementwise
            )
        )
        return update

    return register


def _adams_preconditioner(options: Options, state: Mapping[str, Tensor], step: int) -> Tensor:
    """(1 - beta1^t) (sqrt(v / (1 - beta2^t)) + eps): the running mean's bias correction belongs to it."""
    square = state["square"] / (1.0 - options["beta2"] ** step)
    return (square.sqrt() + options["eps"]) * (1.0 - options["beta1"] ** step)


# Cohen et al. 2021 (gradient descent, both heavy balls, Nesterov), 2022 (Adam); Kalra & Barkeshli 2024.
_GRADIENT_DESCENT = Stability(formula="2", factor=lambda options: 2.0)
_HEAVY_BALL = Stability(formula="(2 + 2 beta)", factor=lambda options: 2.0 + 2.0 * options["beta"])
_NESTEROV = Stability(
    formula="(2 + 2 beta) / (1 + 2 beta)",
    factor=lambda options: (2.0 + 2.0 * options["beta"]) / (1.0 + 2.0 * options["beta"]),
)
_ADAGRAD = Stability(
    formula="2",
    factor=lambda options: 2.0,
    preconditioner=lambda options, state, step: state["sum"].sqrt() + options["eps"],
)
_RMSPROP = Stability(
    formula="2",
    factor=lambda options: 2.0,
    preconditioner=lambda options, state, step: state["square"].sqrt() + options["eps"],
)
_ADAM = Stability(  # of the running mean of gradients: 38 at 0.9
    formula="(2 + 2 beta1) / (1 - beta1)",
    factor=lambda options: (2.0 + 2.0 * options["beta1"]) / (1.0 - options["beta1"]),
    preconditioner=_adams_preconditioner,
)


@_optimizer("sgd", "torch.optim.SGD", adaptive=False, decoupled_decay=False, stability=_GRADIENT_DESCENT)
def _sgd(s: Step, weight_decay: float = 0.0, decay_all: bool = False) -> None:
    """theta -= lr * g.

    Weight decay is of the matrices, or with `decay_all` of every parameter, as torch's SGD by itself has it.
    """
    s.add_l2(weight_decay, decay_all)
    s.descend(s.grad_RP)


@_optimizer(
    "momentum",
    "Polyak 1964; torch.optim.SGD(momentum=0.9)",
    "velocity",
    adaptive=False,
    decoupled_decay=False,
    stability=_HEAVY_BALL,
)
def _momentum(s: Step, beta: float = 0.9, weight_decay: float = 0.0, decay_all: bool = False) -> None:
    """v = beta v + g; theta -= lr * v."""
    s.add_l2(weight_decay, decay_all)
    s.descend(s.state["velocity"].mul_(beta).add_(s.grad_RP))


@_optimizer(
    "nesterov",
    "Nesterov 1983; torch.optim.SGD(momentum=0.9, nesterov=True)",
    "velocity",
    adaptive=False,
    decoupled_decay=False,
    stability=_NESTEROV,
)
def _nesterov(s: Step, beta: float = 0.9, weight_decay: float = 0.0, decay_all: bool = False) -> None:
    """v = beta v + g; theta -= lr * (g + beta v)."""
    s.add_l2(weight_decay, decay_all)
    velocity = s.state["velocity"].mul_(beta).add_(s.grad_RP)
    s.descend(s.grad_RP.add(velocity, alpha=beta))


@_optimizer(
    "adagrad", "Duchi et al. 2011; torch.optim.Adagrad", "sum", adaptive=True, decoupled_decay=False, stability=_ADAGRAD
)
def _adagrad(s: Step, eps: float = 1e-10, weight_decay: float = 0.0) -> None:
    """s += g^2; theta -= lr * g / (sqrt(s) + eps)."""
    s.add_l2(weight_decay)
    total = s.state["sum"].addcmul_(s.grad_RP, s.grad_RP)
    s.descend(s.grad_RP / total.sqrt().add_(s.eps(eps)))


@_optimizer(
    "rmsprop",
    "Tieleman & Hinton 2012; torch.optim.RMSprop",
    "square",
    adaptive=True,
    decoupled_decay=False,
    stability=_RMSPROP,
)
def _rmsprop(s: Step, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
    """v = alpha v + (1 - alpha) g^2; theta -= lr * g / (sqrt(v) + eps)."""
    s.add_l2(weight_decay)
    square = s.state["square"].mul_(alpha).addcmul_(s.grad_RP, s.grad_RP, value=1.0 - alpha)
    s.descend(s.grad_RP / square.sqrt().add_(s.eps(eps)))


@_optimizer(
    "adam",
    "Kingma & Ba 2015, Alg. 1; torch.optim.Adam",
    "mean",
    "square",
    adaptive=True,
    decoupled_decay=False,
    stability=_ADAM,
)
def _adam(s: Step, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
    """Bias-corrected means of g and g^2: theta -= lr * m / (sqrt(v) + eps)."""
    s.add_l2(weight_decay)
    s.descend(_adam_direction(s, beta1, beta2, eps))


@_optimizer(
    "adamw",
    "Loshchilov & Hutter 2019, Alg. 2; torch.optim.AdamW",
    "mean",
    "square",
    adaptive=True,
    decoupled_decay=True,
    stability=_ADAM,
)
def _adamw(
    s: Step,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    decay_all: bool = False,
) -> None:
    """Adam with decoupled weight decay on the matrices.

    With `decay_all` it is on every parameter, as in torch's AdamW by itself and in fairseq's Adam.
    """
    s.decay(weight_decay, decay_all)
    s.descend(_adam_direction(s, beta1, beta2, eps))


@_optimizer(
    "gi-adam",
    "Kalra & Barkeshli 2024: v starts at g^2, the bias correction stays",
    "mean",
    "square",
    adaptive=True,
    decoupled_decay=False,
    stability=_ADAM,
)
def _gi_adam(s: Step, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
    """Adam whose v starts at the first g^2: an automatic warm-up, lr * sqrt(1 - beta2^t) at first."""
    s.add_l2(weight_decay)
    s.state["square"].addcmul_(s.grad_RP, s.grad_RP * (s.step_R1 == 1.0))
    s.descend(_adam_direction(s, beta1, beta2, eps))


@_optimizer(
    "radam",
    "Liu et al. 2020, Alg. 2; torch.optim.RAdam (threshold rho > 5)",
    "mean",
    "square",
    adaptive=True,
    decoupled_decay=False,
    stability=None,
)
def _radam(s: Step, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
    """Adam with a rectified step size; plain momentum while the variance is untrustworthy."""
    s.add_l2(weight_decay)
    mean, square = s.moments(beta1, beta2)
    mean = mean / s.correction(beta1)
    decay_R1 = beta2**s.step_R1
    rho_inf = 2.0 / (1.0 - beta2) - 1.0
    rho_R1 = rho_inf - 2.0 * s.step_R1 * decay_R1 / (1.0 - decay_R1)
    numerator_R1 = ((rho_R1 - 4.0) * (rho_R1 - 2.0) * rho_inf).clamp(min=0.0)
    rectifier_R1 = (numerator_R1 / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho_R1)).sqrt()
    scale_R1 = (rectifier_R1 * (1.0 - decay_R1).sqrt()).to(mean.dtype)
    adaptive = mean * scale_R1 / square.sqrt().add_(s.eps(eps))
    s.descend(adaptive.where(rho_R1 > 5.0, mean))


@_optimizer(
    "lamb",
    "You et al. 2020, Alg. 2; phi the identity, the ratio 1 where a norm is 0",
    "mean",
    "square",
    adaptive=True,
    decoupled_decay=True,
    stability=None,
    update_size="weights",
    elementwise=False,
)
def _lamb(
    s: Step,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    bias_correction: bool = True,
    adapt_when_no_decay: bool = True,
) -> None:
    """Adam's direction, rescaled for each tensor to the norm of its weights.

    `bias_correction=false` is the algorithm of the paper's third version; with
    `adapt_when_no_decay=false` tensors without weight decay keep Adam's step.
    """
    if bias_correction:
        direction = _adam_direction(s, beta1, beta2, eps)
    else:
        mean, square = s.moments(beta1, beta2)
        direction = mean / square.sqrt().add_(s.eps(eps))
    if weight_decay:
        direction.addcmul_(s.theta_RP, s.decay_P, value=weight_decay)
    for start, stop, rows, decays, _ in s.segments:
        if not adapt_when_no_decay and not (weight_decay and decays):
            continue
        shape = (len(direction), rows, (stop - start) // rows)
        weights = s.theta_RP[:, start:stop].view(shape)
        update = direction[:, start:stop].view(shape)
        update.mul_(_trust_ratio(weights, update))
    s.descend(direction)


@_optimizer("lion", "Chen et al. 2023, Alg. 2", "mean", adaptive=True, decoupled_decay=True, stability=None)
def _lion(s: Step, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0) -> None:
    """theta -= lr * sign(beta1 m + (1 - beta1) g); then m = beta2 m + (1 - beta2) g."""
    s.decay(weight_decay)
    mean = s.state["mean"]
    s.descend(mean.lerp(s.grad_RP, 1.0 - beta1).sign_())
    mean.lerp_(s.grad_RP, 1.0 - beta2)


@_optimizer(
    "muon",
    "Jordan et al. 2024, with Liu et al. 2025, Sec. 2.2; torch.optim.Muon beside torch.optim.AdamW",
    "mean",
    "square",
    adaptive=True,
    decoupled_decay=True,
    stability=None,
    update_size="shape",
    elementwise=False,
)
def _muon(
    s: Step,
    momentum: float = 0.95,
    nesterov: bool = True,
    match_rms_adamw: bool = True,
    bfloat16: bool = False,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> None:
    """Orthogonalized momentum for the hidden layers' matrices, AdamW for all else.

    An update of a matrix (out, in) is multiplied by `0.2 sqrt(max(out, in))`, which gives it the size of AdamW's, so
    that one learning rate serves both; with `match_rms_adamw=false` by `sqrt(max(1, out / in))`. Five Newton-Schulz
    iterations, in float32, or in bfloat16 as torch has them with `bfloat16=true` (slow where a CPU has no such units).
    """
    s.decay(weight_decay)
    direction_RP = s.grad_RP.new_empty(s.grad_RP.shape)
    for one in s.segments:
        columns = slice(one.start, one.stop)
        part = s.part(columns)
        if one.matrix is None:
            direction_RP[:, columns] = _adam_direction(part, beta1, beta2, eps)
            continue
        mean = part.state["mean"].lerp_(part.grad_RP, 1.0 - momentum)
        update = part.grad_RP.lerp(mean, momentum) if nesterov else mean
        out, into = one.matrix
        size = 0.2 * math.sqrt(max(out, into)) if match_rms_adamw else math.sqrt(max(1.0, out / into))
        direction_RP[:, columns] = orthogonal(update, one, bfloat16) * size
    s.descend(direction_RP)


def _adam_direction(s: Step, beta1: float, beta2: float, eps: float) -> Tensor:
    mean, square = s.moments(beta1, beta2)
    return (mean / s.correction(beta1)).div_(square.sqrt().div_(s.correction(beta2).sqrt()).add_(s.eps(eps)))


def _trust_ratio(weights: Tensor, update: Tensor) -> Tensor:
    weight_norm = weights.square().sum(2, keepdim=True).sqrt_()
    update_norm = update.square().sum(2, keepdim=True).sqrt_()
    ratio = weight_norm / update_norm
    return ratio.where((weight_norm > 0) & (update_norm > 0), ratio.new_ones(()))


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", _entries)


def theory_formula(optimizer: str) -> str:
    """The closed form behind predicted_lr, as printed, of an optimizer with its options."""
    name = optimizer.partition(":")[0]
    stability = OPTIMIZERS[name].stability if name in OPTIMIZERS else None
    if stability is None:
        return f"no formula known for {name}"
    matrix = "H" if stability.preconditioner is None else "P^-1/2 H P^-1/2"
    return f"{stability.formula} / largest eigenvalue of {matrix}"
