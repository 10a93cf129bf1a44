"""A step of training that the user's own code takes as a whole: forward, backward, its own optimizers.

`step(model, batch, lr)` returns the number that is judged. What it keeps from step to step hangs on the model. The
number at given weights is what it returns at LR 0 of a copy of the model, which is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresstest.engine.replicas import BAD_LOSS, BAD_PARAMETER, FINITE, Readings, Training
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.brought import Step
from stresstest.user_model.contract import Contract, contract, loss_in
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.lost_moments import optimizers_in
from stresstest.user_model.micro_batches import evaluated
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation, named_parameters
from stresstest.user_model.step.whole_copy import copied, from_stored, stored

_SAME = 1e-5  # relative: as far as the number may be from a loss that it is taken for


def contract_of_step(factory: Factory, module: nn.Module, ones: Sequence[UserBatch]) -> Contract:
    """How the number that the step returns is taken: as a loss, where it is the value of one on these batches.

    A loss is that which stands beside the step, or which would be inferred without it. Else it is read by a step.
    """
    assert factory.step is not None, "asked for where there is one"
    read = partial(evaluated, partial(number_at, factory.step, factory.loss_words))
    text = f"the number that {factory.loss_words} returns"
    seen = [_under(one, read, module) for one in ones]
    if getattr(module, "automatic_optimization", True) is False:
        return Contract(read, text, stepped=True)  # its training_step would train it
    try:
        with seeded(ones[0].seed):
            found = contract(replace(factory, step=None, loss_words="loss_fn(model, batch)"), module, ones[0].data)
        with torch.no_grad():
            taken = [_under(one, found.loss, module) for one in ones]
    except UserCodeError:
        return Contract(read, text, stepped=True)
    if all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(seen, taken, strict=True)):
        return replace(found, text=f"{text}, which is the {found.text}")
    return Contract(read, text, stepped=True)


def _under(one: UserBatch, loss: Callable[[nn.Module, Any], Tensor], module: nn.Module) -> float:
    with seeded(one.seed):
        return float(loss(module, one.data))


def number_at(step: Step, words: str, module: nn.Module, data: Any) -> Tensor:
    """The number at a module's weights, which stay as they are: a step of a copy at LR 0."""
    return number(step, words, copied(module), data, 0.0)


def number(step: Step, words: str, module: nn.Module, data: Any, lr: float) -> Tensor:
    """The number that a step returns, as a scalar."""
    with torch.enable_grad():
        return loss_in(words, lambda model, batch: _as_tensors(step(model, batch, lr)), module, data).detach()


def populate(
    model: UserModel, seeds: Sequence[int], training: Training, lrs: Sequence[float] | None = None
) -> UserPopulation:
    """A freshly initialised population, which the user's step trains where there is one."""
    theirs = model.factory.step is not None and training.optimizer is USER_OPTIMIZER
    return (PlainLoopPopulation if theirs else UserPopulation)(model, seeds, training, lrs)


class PlainLoopPopulation(UserPopulation):
    """Replicas that the user's step trains. What hangs on a module belongs to its replica."""

    def __init__(
        self, model: UserModel, seeds: Sequence[int], training: Training, lrs: Sequence[float] | None = None
    ) -> None:
        super().__init__(model, seeds, training, lrs)
        self._lrs = {float(np.float32(lr)): float(lr) for lr in lrs or ()}  # as they were before float32

    def anew(self, seed: int) -> UserPopulation:
        """A replica at its start, by itself."""
        return PlainLoopPopulation(self.model, [seed], self.training)

    def step(self, batch: Sequence[UserBatch], lr_R: Tensor) -> Readings:
        """One step of every replica, each at its own learning rate."""
        rows = enumerate(zip(batch, lr_R.tolist(), strict=True))
        with self.within():
            losses = [self._taken(row, one, lr) for row, (one, lr) in rows]
        loss_R = torch.stack([loss.float() for loss in losses])
        norm_R = torch.stack([self._read_gradient(row) for row in range(self.num_replicas)])
        finite_R = self.theta_RP.sum(1).isfinite()
        health_R = torch.where(finite_R, FINITE, BAD_PARAMETER)
        health_R = torch.where(loss_R.isfinite(), health_R, BAD_LOSS)
        none_R = torch.zeros_like(finite_R)
        return Readings(loss_R, norm_R, health_R, none_R, none_R)

    def state(self) -> dict[str, Any]:
        """Everything that hangs on the modules; a `NotKeptError` where that cannot be written down."""
        return super().state() | {"whole": [stored(module) for module in self._modules]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the rows of a `state`."""
        self._modules = [from_stored(content) for content in state["whole"]]
        self._parameters = [named_parameters(module, self.model.layout) for module in self._modules]
        super().restore(state)

    @property
    def num_kept(self) -> int:
        """How many tensors the optimizers on the modules keep between steps."""
        return sum(_tensors_in(list(optimizer.state.values())) for optimizer in self._optimizers())

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for module in self._modules for optimizer in optimizers_in(vars(module))]

    def _taken(self, row: int, one: UserBatch, lr: float) -> Tensor:
        step = self.model.factory.step
        assert step is not None, "a population of those that have one"
        with seeded(one.seed), self._autocast():
            loss = number(step, self.model.factory.loss_words, self._modules[row], one.data, self._lrs.get(lr, lr))
        self._take_back(row)
        return loss

    def _read_gradient(self, row: int) -> Tensor:
        """The norm of what the step has left in `.grad`, which goes to the matrix too; NaN where there is nothing."""
        for parameter, part in zip(self._parameters[row], self._parts(self.grad_RP[row]), strict=True):
            gradient = parameter.grad
            if gradient is None:
                part.zero_()
            else:
                part.copy_((gradient.to_dense() if gradient.is_sparse else gradient).detach())
        norm = torch.linalg.vector_norm(self.grad_RP[row])
        return torch.where(norm == 0.0, math.nan, norm)


def _as_tensors(found: Any) -> Any:
    """What a step returns, with its numbers as scalars."""
    if isinstance(found, Mapping):
        return {key: _as_tensors(value) for key, value in found.items()}
    if isinstance(found, int | float | np.number):
        return torch.tensor(float(found))
    return found


def _tensors_in(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_tensors_in(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(_tensors_in(part) for part in value)
    return int(isinstance(value, Tensor))
