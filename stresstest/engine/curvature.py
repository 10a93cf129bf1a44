"""What theory says of the learning rate: one step's critical LR, and that which the curvature allows.

All of it is local to the parameters at which it is taken, and to one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresstest.engine.backward_product import backward_product
from stresstest.engine.optimizer import Optimizer, Options, Step
from stresstest.models.layout import Segment
from stresstest.models.scales import Scales

Loss = Callable[[Tensor], Tensor]  # a scalar of flat parameters [P]; the same at every call
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sum:
    """A loss that is a sum of others, as of micro-batches: derivatives are taken of one at a time."""

    terms: tuple[Loss, ...]

    def __call__(self, at_P: Tensor) -> Tensor:
        """The sum."""
        return torch.stack([term(at_P) for term in self.terms]).sum()


_LEAST_PRODUCTS = 8  # before a small residual counts: the start may have missed the largest eigenvector
_LOWEST_LR = 2.0**-60
_HIGHEST_LR = 2.0**30


class NoSecondDerivativeError(Exception):
    """An operation of the model can be differentiated once only."""


@dataclass(frozen=True)
class Eigenvalue:
    """The algebraically largest eigenvalue; `error` bounds how far an eigenvalue lies from it at most."""

    value: float
    error: float
    products: int
    converged: bool


@dataclass(frozen=True)
class CriticalLr:
    """The first LR, from below, at which one step raises the loss: between `low` and `high`; `None` where not found."""

    low: float | None
    high: float | None
    forwards: int


@dataclass(frozen=True)
class FirstStep:
    """theta_1 = theta_0 - lr * direction_P, and the optimizer's state after it, [P] each."""

    direction_P: Tensor
    state: Mapping[str, Tensor]


def gradient(loss: Loss, theta_P: Tensor) -> tuple[float, Tensor]:
    """The loss and its gradient, [P]."""
    if isinstance(loss, Sum):
        parts = [gradient(term, theta_P) for term in loss.terms]
        return sum(value for value, _ in parts), torch.stack([grad_P for _, grad_P in parts]).sum(0)
    leaf = theta_P.detach().clone().requires_grad_()
    value = loss(leaf)
    (grad_P,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), grad_P


class HessianProduct:
    """v -> S H S v for the Hessian H of the loss and S = diag(scale_P), by double backward.

    With scale_P = P^(-1/2) it is the symmetric form of P^(-1) H, of the same spectrum. The graph is kept for the next
    vector, but that of a `Sum`, which is made anew term by term.
    """

    def __init__(self, loss: Loss, theta_P: Tensor, scale_P: Tensor | None = None) -> None:
        self._loss = loss
        self._scale_P = scale_P
        if isinstance(loss, Sum):
            self._leaf, self._grad_P = theta_P, gradient(loss, theta_P)[1]
        else:
            self._leaf, self._grad_P = _kept_gradient(loss, theta_P)

    @property
    def gradient(self) -> Tensor:
        """That of the loss, [P]."""
        return self._grad_P.detach()

    def __call__(self, vector_P: Tensor) -> Tensor:
        """S H S v."""
        along_P = vector_P if self._scale_P is None else self._scale_P * vector_P
        if isinstance(self._loss, Sum):
            terms = (_kept_gradient(term, self._leaf) for term in self._loss.terms)
            image_P = sum((_derivative(*term, along_P) for term in terms), torch.zeros_like(vector_P))
        else:
            image_P = _derivative(self._leaf, self._grad_P, along_P)
        return image_P if self._scale_P is None else self._scale_P * image_P


def _kept_gradient(loss: Loss, theta_P: Tensor) -> tuple[Tensor, Tensor]:
    """The parameters as a leaf, and the gradient by them with the graph that it was taken by."""
    leaf = theta_P.detach().clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # the flash kernels have no second derivative
        (grad_P,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    return leaf, grad_P


def _derivative(leaf: Tensor, grad_P: Tensor, along_P: Tensor) -> Tensor:
    """H v."""
    if not grad_P.requires_grad:  # linear in every parameter
        return torch.zeros_like(along_P)
    try:
        return backward_product(grad_P, leaf, along_P, retain_graph=True)
    except (RuntimeError, NotImplementedError) as error:  # torch has no type of its own for this
        if "derivative" in str(error) or "double backward" in str(error):
            raise NoSecondDerivativeError(str(error).splitlines()[0]) from None
        raise


def largest_eigenvalue(
    product: Product, like_P: Tensor, seed: int = 0, max_products: int = 100, tolerance: float = 1e-3
) -> Eigenvalue:
    """The largest eigenvalue of a symmetric map by Lanczos, every vector orthogonalised against all before it.

    Unlike power iteration it is right where the eigenvalue of largest magnitude is negative. Ends when the
    residual is below `tolerance` times the value.
    """
    size = like_P.numel()
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, dtype=torch.float64, generator=generator)
    basis_KP = (start / start.norm()).to(like_P)[None]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(basis_KP[-1])
        if not image.isfinite().all():
            return Eigenvalue(math.nan, math.inf, len(basis_KP), converged=False)
        along_K = basis_KP @ image
        diagonal.append(float(along_K[-1]))
        image = image - basis_KP.mT @ along_K
        image = image - basis_KP.mT @ (basis_KP @ image)  # once is not enough in finite precision
        norm = float(image.norm())
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        value, error = float(values[-1]), norm * abs(float(vectors[-1, -1]))
        scale = float(np.abs(values).max())
        exact = len(basis_KP) == size or norm <= 10.0 * torch.finfo(like_P.dtype).eps * scale
        close = error <= tolerance * abs(value) and len(basis_KP) >= _LEAST_PRODUCTS
        if exact or close or len(basis_KP) >= max_products:
            return Eigenvalue(value, 0.0 if exact else error, len(basis_KP), converged=exact or close)
        basis_KP = torch.cat([basis_KP, (image / norm)[None]])
        beside.append(norm)


def first_step(
    optimizer: Optimizer,
    options: Options,
    theta_P: Tensor,
    grad_P: Tensor,
    decay_P: Tensor,
    segments: Sequence[Segment],
    scales: Scales = Scales(),
) -> FirstStep:
    """The first update of an optimizer at `theta_P`: every one of the table is linear in the LR."""
    theta_RP = theta_P.clone()[None]
    state = {slot: torch.zeros_like(theta_RP) for slot in optimizer.slots}
    ones = torch.ones(1, 1, dtype=torch.float64, device=theta_P.device)
    lr_R1 = ones.to(theta_P.dtype)
    step = Step(theta_RP, grad_P.clone()[None], lr_R1, state, ones, decay_P, segments, scales)
    optimizer.update(step, **options)
    return FirstStep(theta_P - theta_RP[0], {slot: matrix[0] for slot, matrix in state.items()})


def critical_lr(loss_at: Callable[[float], float], initial_loss: float, resolution: float = 0.0625) -> CriticalLr:
    """Search the LR at which one step first raises the loss, by forward passes (Kalra & Barkeshli 2024, App. B.2).

    `loss_at(lr)` is the loss after one step, on the same batch. Doubling finds an octave, bisection narrows it to
    `resolution` octaves. The paper returns the upper end, within a set rise of the loss; this is the bracket
    itself, and where the loss rises at the first LR already, the search goes down. A loss that is not finite
    has risen. On a quadratic, along d, the answer is 2 g'd / d'Hd; for gradient descent that is not 2 / lambda.
    """
    forwards = 0

    def rises(lr: float) -> bool:
        nonlocal forwards
        forwards += 1
        return not loss_at(lr) <= initial_loss

    low, high = 2.0**-13, 2.0**-13  # 1.2e-4
    if rises(low):
        while low > _LOWEST_LR and rises(low := low / 2.0):
            high = low
        if low <= _LOWEST_LR:
            return CriticalLr(None, high, forwards)
    else:
        while high < _HIGHEST_LR and not rises(high := high * 2.0):
            low = high
        if high >= _HIGHEST_LR:
            return CriticalLr(low, None, forwards)
    while math.log2(high / low) > resolution:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    return CriticalLr(low, high, forwards)
