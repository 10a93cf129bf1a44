"""A population: R replicas of one architecture as the rows of one matrix, trained at once.

A replica trains as if it were alone: nothing crosses rows, so a neighbour that turns into NaN or
is dropped changes nothing. On a CPU with one thread that is bit-equality.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from stresstest.engine.guard import Guard, Watch
from stresstest.engine.optimizer import Optimizer, Step
from stresstest.engine.probes import ActivationSnapshot, Look
from stresstest.engine.rounded import wide
from stresstest.models.block import Trainable

B = TypeVar("B")  # what a step is given: a batch of each replica
Kernel = Literal["torch", "native", "triton", "graph"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_LOSS_SCALE = 2.0**16
FIRST_LR = 1e-3  # at which the optimizer of a ramp is built, and scaled from
_SCALE_GROWTH_STEPS = 200
_ALIGNED = 64  # bytes
_CACHED_PARAMETERS = 1 << 17  # with gradient, state and temporaries some 3 MB
SECOND_MOMENTS = frozenset({"square", "sum"})  # of an optimizer's state: what it divides by
FINITE, BAD_LOSS, BAD_GRADIENT, BAD_PARAMETER = range(4)


@dataclass(frozen=True)
class Training:
    """How every replica of a population is trained."""

    optimizer: Optimizer
    options: dict[str, float]
    device: torch.device
    dtype: torch.dtype = torch.float32
    clip_norm: float | None = None
    micro_batch: int | None = None  # examples whose gradient is taken at once, at most; all of a step's where off
    guard: Guard | None = None  # which updates are left out
    kernel: Kernel = "torch"  # who computes: what each takes is in `experiments.kernel`


class Readings(NamedTuple):
    """What one step measured, each [R]; `health` is FINITE or what was not finite."""

    loss_R: Tensor
    grad_norm_R: Tensor
    health_R: Tensor
    clipped_R: Tensor
    skipped_R: Tensor


class Replicas(ABC, Generic[B]):
    """Replicas of any model that train at once as the rows of a matrix, on batches of the kind B."""

    model: Trainable
    _has_stepped = False  # as `_step_R1` has it, where no update is left out
    between: Callable[[], None] | None = None  # called with the gradient in `grad_RP`, before anything is made of it
    within: Callable[[], AbstractContextManager[Any]] = nullcontext  # in which a step takes loss and gradient

    def _begin(self, model: Trainable, theta_RP: Tensor, training: Training) -> None:
        self.model = model
        self.training = training
        self._state = {slot: torch.zeros_like(theta_RP) for slot in training.optimizer.slots}
        decays = {**training.optimizer.options, **training.options}.get("weight_decay", 0.0)
        self._decay_P = model.layout.decay_mask().to(training.device) if decays else theta_RP.new_empty(0)
        self._segments = model.layout.segments()
        self._scales = model.layout.scales(training.optimizer.update_size).like(theta_RP)
        self._step_R1 = torch.zeros(len(theta_RP), 1, dtype=torch.float64, device=training.device)
        self._scale_R = torch.full((len(theta_RP),), FIRST_LOSS_SCALE, device=training.device)
        self._since_skip_R = torch.zeros_like(self._scale_R)
        guard = training.guard
        self._watch = None if guard is None else Watch(guard, theta_RP.new_empty(len(theta_RP), 0, 2).double())
        self._in_parts = training.optimizer.elementwise and training.device.type == "cpu"
        self._attach(theta_RP)

    @property
    def num_replicas(self) -> int:
        """R, the rows still in training."""
        return self.theta_RP.shape[0]

    @abstractmethod
    def profile(self, batch: B) -> None:
        """The measurement at initialisation that a variant may have."""

    @abstractmethod
    def evaluate(self, batch: B, as_trained: bool = True) -> Tensor:
        """The loss of each replica, [R], without training: as a step would have it, or of the trained model."""

    def step_loss(self, batch: B) -> Tensor:
        """The loss of each replica, [R], that a step on this batch would read; no replica changes."""
        return self.evaluate(batch)

    @abstractmethod
    def look(self, batch: B, kind: Look = ActivationSnapshot) -> ActivationSnapshot:
        """A forward pass on a batch, looked at; no replica changes. `kind` takes what is seen of so many."""

    @abstractmethod
    def _backward(self, batch: B, scale_R: Tensor | None) -> Tensor:
        """The loss of each replica, [R]; its gradient, times `scale_R`, goes to `grad_RP`."""

    @abstractmethod
    def _bind(self) -> None:
        """Let the model's parameters and gradients be `theta_RP` and `grad_RP`."""

    def step(self, batch: B, lr_R: Tensor) -> Readings:
        """One optimizer step of every replica, each at its own learning rate."""
        scaled = self.training.dtype == torch.float16
        with self.within():
            loss_R = self._backward(batch, self._scale_R if scaled else None)
        if scaled:
            self.grad_RP.div_(self._scale_R[:, None])
        if self.between is not None:
            self.between()
        grad_norm_R = self._norm(self.grad_RP)
        overflows_R = ~grad_norm_R.isfinite() if scaled else torch.zeros_like(loss_R, dtype=torch.bool)
        guarded_R = overflows_R & False if self._watch is None else self._watch.skips(loss_R, grad_norm_R)
        skipped_R = overflows_R | guarded_R
        clipped_R = self._clip(grad_norm_R)
        if scaled or self._watch is not None:
            self._update_unless(skipped_R, lr_R)
        else:
            self._update(lr_R)
        if scaled:
            self._adapt_scale(overflows_R)
        health_R = torch.where(guarded_R, FINITE, self._health(loss_R, grad_norm_R, overflows_R))
        return Readings(loss_R, grad_norm_R, health_R, clipped_R, skipped_R)

    @property
    def _is_looked_into(self) -> bool:
        """Whether the next step is more than that: something is done in it, or remembered of it."""
        return self.between is not None or self.within is not nullcontext or self._watch is not None

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every replica but these rows; a look sees their last gradients yet."""
        index = torch.tensor(rows, device=self.theta_RP.device)
        self._state = {slot: matrix[index] for slot, matrix in self._state.items()}
        self._scale_R, self._since_skip_R = self._scale_R[index], self._since_skip_R[index]
        self._step_R1 = self._step_R1[index]
        if self._watch is not None:
            self._watch.keep(index)
        self._attach(self.theta_RP[index], self.grad_RP[index])

    def changed(self) -> None:
        """Let the model have what was written to `theta_RP`."""

    def branch(self, row: int) -> Replicas[B]:
        """This row once more, as a population of its own, which goes on as the row would, bit for bit."""
        found = copy.copy(self)
        found._watch = copy.copy(self._watch)
        Replicas.restore(found, row_of(Replicas.state(self), row))
        return found

    def lose(self, moments: frozenset[str], count: bool) -> int:
        """Zero these moments of the optimizer, "first" and "second", and its count of steps; how many matrices."""
        lost = [slot for slot in self._state if ("second" if slot in SECOND_MOMENTS else "first") in moments]
        for slot in lost:
            self._state[slot].zero_()
        if count:
            self._step_R1.zero_()
            self._has_stepped = False
        return len(lost)

    def state(self) -> dict[str, Any]:
        """Everything that training changes, from which `restore` goes on bit for bit, and the last gradient."""
        return {
            "theta_RP": self.theta_RP,
            "grad_RP": self.grad_RP,
            "optimizer": self._state,
            "step_R1": self._step_R1,
            "scale_R": self._scale_R,
            "since_skip_R": self._since_skip_R,
            **({} if self._watch is None else {"seen_RN2": self._watch.seen_RN2}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the rows of a `state`, on whichever device it lies."""
        device = self.training.device
        self._state = {slot: matrix.to(device) for slot, matrix in state["optimizer"].items()}
        self._step_R1 = state["step_R1"].to(device)
        self._has_stepped = bool((self._step_R1 > 0).all())
        self._scale_R = state["scale_R"].to(device)
        self._since_skip_R = state["since_skip_R"].to(device)
        if self._watch is not None:
            self._watch.seen_RN2 = state["seen_RN2"].to(device)
        self._attach(state["theta_RP"].to(device), state["grad_RP"])

    def _look_at_moments(self, look: ActivationSnapshot) -> None:
        """How far the last gradients are from what Adam expects of them, matrix by matrix; nothing before a step."""
        expected = self._second_moment()
        if expected is not None:
            square_RP, eps = expected
            layout, grad_RP, scale_P = self.model.layout, self.grad_RP, self._scales.eps_P
            if scale_P is not None:  # against one eps, numbers of the base model's size
                grad_RP, square_RP = grad_RP / scale_P, square_RP / scale_P.square()
            look.moments(layout.names(), layout.parts(grad_RP), layout.parts(square_RP), eps)

    def _second_moment(self) -> tuple[Tensor, float] | None:
        """Adam's bias-corrected mean of squared gradients, [R, P], and its eps; `None` where not all have one."""
        options = {**self.training.optimizer.options, **self.training.options}
        lacks = "square" not in self._state or self.training.optimizer.update_size == "shape"
        if lacks or "beta2" not in options or not self._all_have_stepped:
            return None
        correction_R1 = 1.0 - float(options["beta2"]) ** self._step_R1
        return self._state["square"] / correction_R1.to(wide(self.theta_RP.dtype)), float(options["eps"])

    @property
    def _all_have_stepped(self) -> bool:
        """Whether every replica was updated; the device is asked where an update may have been left out."""
        leaves_out = self._watch is not None or self.training.dtype == torch.float16
        return bool((self._step_R1 > 0).all()) if leaves_out else self._has_stepped

    def _count_step(self) -> None:
        self._step_R1 += 1.0
        self._has_stepped = True

    def _attach(self, theta_RP: Tensor, grad_RP: Tensor | None = None) -> None:
        """Take over these rows, and their last gradients where a step was taken."""
        self.theta_RP = aligned_rows(theta_RP).copy_(theta_RP)
        self.grad_RP = aligned_rows(theta_RP)
        self._bind()
        if grad_RP is not None:
            self.grad_RP.copy_(grad_RP)

    def _norm(self, matrix_RP: Tensor) -> Tensor:
        """The norm of each row, [R]."""
        norm_R: Tensor = torch.linalg.vector_norm(matrix_RP, dim=1, dtype=wide(matrix_RP.dtype))
        return norm_R

    def _autocast(self) -> torch.autocast:
        dtype = self.training.dtype
        enabled = dtype != torch.float32
        return torch.autocast(self.training.device.type, dtype=dtype if enabled else None, enabled=enabled)

    def _clip(self, grad_norm_R: Tensor) -> Tensor:
        limit = self.training.clip_norm
        if limit is None:
            return torch.zeros_like(grad_norm_R, dtype=torch.bool)
        factor_R = (limit / (grad_norm_R + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
        self.grad_RP.mul_(factor_R[:, None])
        return grad_norm_R > limit

    def _update(self, lr_R: Tensor) -> None:
        """One update of all parameters; where the optimizer allows, of as many at once as the cache holds."""
        self._count_step()
        size = self.theta_RP.shape[1]
        stride = max(1, _CACHED_PARAMETERS // self.num_replicas // 64) * 64 if self._in_parts else size
        step = Step(
            theta_RP=self.theta_RP,
            grad_RP=self.grad_RP,
            lr_R1=lr_R[:, None],
            state=self._state,
            step_R1=self._step_R1,
            decay_P=self._decay_P,
            segments=self._segments,
            scales=self._scales,
        )
        with torch.no_grad():
            for start in range(0, size, stride):
                self.training.optimizer.update(step.part(slice(start, start + stride)), **self.training.options)

    def _update_unless(self, skipped_R: Tensor, lr_R: Tensor) -> None:
        """Update, but leave these rows as they were."""
        matrices = [self.theta_RP, self._step_R1, *self._state.values()]
        before = [matrix.clone() for matrix in matrices]
        self._update(lr_R)
        for matrix, old in zip(matrices, before, strict=True):
            matrix.copy_(torch.where(skipped_R[:, None], old, matrix))

    def _adapt_scale(self, skipped_R: Tensor) -> None:
        since_R = torch.where(skipped_R, 0.0, self._since_skip_R + 1.0)
        grows_R = since_R == _SCALE_GROWTH_STEPS
        self._since_skip_R.copy_(torch.where(grows_R, 0.0, since_R))
        factor_R = torch.where(skipped_R, 0.5, 1.0) * torch.where(grows_R, 2.0, 1.0)
        self._scale_R.mul_(factor_R)

    def _health(self, loss_R: Tensor, grad_norm_R: Tensor, skipped_R: Tensor) -> Tensor:
        bad_gradient_R = ~grad_norm_R.isfinite() & (~skipped_R | (self._scale_R < 1.0))
        return health(loss_R, bad_gradient_R, self.theta_RP.sum(1, dtype=wide(self.theta_RP.dtype)))


def health(loss_R: Tensor, bad_gradient_R: Tensor, sum_R: Tensor) -> Tensor:
    """What was not finite, [R], given the sum of each replica's parameters."""
    health_R = torch.where(sum_R.isfinite(), FINITE, BAD_PARAMETER)
    health_R = torch.where(bad_gradient_R, BAD_GRADIENT, health_R)
    return torch.where(loss_R.isfinite(), health_R, BAD_LOSS)


def row_of(state: Any, row: int) -> Any:
    """The part of a `state` that is one row's, copied."""
    if isinstance(state, dict):
        return {name: row_of(part, row) for name, part in state.items()}
    return state[row : row + 1].clone() if isinstance(state, Tensor) else copy.deepcopy(state[row : row + 1])


def aligned_rows(like_RP: Tensor) -> Tensor:
    """An empty matrix of this size whose rows all start as the first does.

    MKL's products depend on where a matrix lies in memory: without this, a replica on its own and one in a
    population of an odd number of parameters differ in the last bit.
    """
    num_replicas, size = like_RP.shape
    aligned = _ALIGNED // like_RP.element_size()
    return like_RP.new_empty(num_replicas, math.ceil(size / aligned) * aligned)[:, :size]
