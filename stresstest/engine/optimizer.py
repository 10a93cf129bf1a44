"""What an optimizer is: an update of all replicas at once, and the facts that others need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stresstest.models.scales import Scales, UpdateSize

if TYPE_CHECKING:
    from torch import Tensor

    from stresstest.models.layout import Segment


@dataclass
class Step:
    """What one update sees. P counts the parameters of one replica.

    `step_R1` counts each replica's updates from 1, in float64; `decay_P` is 1 where weight decay
    applies, and empty where there is none; `segments` tells which columns are which tensors of a replica. `scales`
    multiply the learning rate and eps of each parameter.
    """

    theta_RP: Tensor
    grad_RP: Tensor
    lr_R1: Tensor
    state: dict[str, Tensor]
    step_R1: Tensor
    decay_P: Tensor
    segments: Sequence[Segment]
    scales: Scales = Scales()

    def part(self, columns: slice) -> Step:
        """The same of some columns; `segments` are still those of all."""
        return replace(
            self,
            theta_RP=self.theta_RP[:, columns],
            grad_RP=self.grad_RP[:, columns],
            state={slot: matrix[:, columns] for slot, matrix in self.state.items()},
            decay_P=self.decay_P[columns],
            scales=self.scales.part(columns),
        )

    def add_l2(self, weight_decay: float, everywhere: bool = False) -> None:
        """Add the gradient of an L2 penalty (coupled weight decay), which shrinks every weight at the same rate.

        With `everywhere` it is of all parameters, each at its own learning rate.
        """
        if weight_decay and everywhere:
            self.grad_RP.add_(self.theta_RP, alpha=weight_decay)
        elif weight_decay:
            decay_P = self.decay_P if self.scales.lr_P is None else self.decay_P / self.scales.lr_P
            self.grad_RP.addcmul_(self.theta_RP, decay_P, value=weight_decay)

    def decay(self, weight_decay: float, everywhere: bool = False) -> None:
        """Shrink the weights by lr * weight_decay, whatever its scale (decoupled; Loshchilov & Hutter 2019).

        With `everywhere` all parameters.
        """
        if weight_decay:
            self.theta_RP.mul_(1.0 - self.lr_R1 * weight_decay * (1.0 if everywhere else self.decay_P))

    def descend(self, direction_RP: Tensor) -> None:
        """theta <- theta - lr * direction."""
        lr = self.lr_R1 if self.scales.lr_P is None else self.lr_R1 * self.scales.lr_P
        self.theta_RP.addcmul_(direction_RP, lr, value=-1.0)

    def eps(self, eps: float) -> Tensor | float:
        """An optimizer's eps, of each parameter where they differ."""
        return eps if self.scales.eps_P is None else eps * self.scales.eps_P

    def correction(self, beta: float) -> Tensor:
        """1 - beta^t of each replica, [R, 1]: what a running mean has seen so far."""
        return (1.0 - beta**self.step_R1).to(self.theta_RP.dtype)

    def moments(self, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
        """Update and return the running means of the gradient and of its square."""
        mean, square = self.state["mean"], self.state["square"]
        mean.lerp_(self.grad_RP, 1.0 - beta1)
        square.mul_(beta2).addcmul_(self.grad_RP, self.grad_RP, value=1.0 - beta2)
        return mean, square


Options = Mapping[str, float]  # bool among them


@dataclass(frozen=True)
class Stability:
    """How large a learning rate is stable on a quadratic: lr < factor / lambda_max(P^-1/2 H P^-1/2).

    `formula` is `factor` of its options as printed; `preconditioner` the diagonal P from options, state and step,
    `None` for the identity.
    """

    formula: str
    factor: Callable[[Options], float]
    preconditioner: Callable[[Options, Mapping[str, Tensor], int], Tensor] | None = None


@dataclass(frozen=True)
class Optimizer:
    """One entry of the optimizer table; `slots` are its state matrices, each [R, P].

    adaptive: it divides by a measure of its past gradients, so that their size hardly matters. decoupled_decay: weight
    decay is not part of the gradient. stability: its closed form, `None` where none is known. update_size: what the
    size of its updates follows, by which a parametrization scales its learning rate. An `elementwise` update treats
    each parameter by itself, so that it can be done part by part.
    """

    name: str
    summary: str
    source: str
    slots: tuple[str, ...]
    options: Options
    update: Callable[..., None]
    adaptive: bool
    decoupled_decay: bool
    stability: Stability | None
    update_size: UpdateSize
    elementwise: bool = True
