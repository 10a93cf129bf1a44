"""Replicas of the user's own model as one batched computation, by `torch.func`, where that gives the same.

On a GPU, where a small model's cost is in its launches, R replicas then cost little more than one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from stresstest.engine.graphs import FIRST_REPLAY, StepGraph
from stresstest.engine.probes import ActivationSnapshot, Look, look_at, together
from stresstest.engine.replicas import FIRST_LR, Kernel, Readings, Training
from stresstest.user_model.batches import UserBatch, UserBatches
from stresstest.user_model.factory import seeded
from stresstest.user_model.population import USER_OPTIMIZER, Forward, UserModel, UserPopulation

_COMPARED: tuple[Kernel, ...] = ("torch", "graph")
_CLOSE = 1e-3  # relative: what the order of sums may change of a gradient in float32


class StackedUserPopulation(UserPopulation):
    """The replicas `seeds` of the user's model in one computation; see `stacks`."""

    _form: TreeSpec | None = None  # how a captured batch is made of tensors
    _graph: StepGraph | None = None

    def __init__(self, model: UserModel, seeds: Sequence[int], training: Training) -> None:
        super().__init__(model, seeds, training)
        self._forward = Forward(copy.deepcopy(self._modules[0]), model.contract)
        named = [_untrained(module) for module in self._modules]
        self._buffers = {name: torch.stack([buffers[name] for buffers in named]) for name in named[0]}
        self._modules, self._parameters = [], []

    def step(self, batch: Sequence[UserBatch], lr_R: Tensor) -> Readings:
        """One optimizer step of every replica, by its graph where there is one."""
        if self._graph is None or self._is_looked_into:
            return super().step(batch, lr_R)
        tensors, form = tree_flatten([one.data for one in batch])
        if form != self._form:
            self._form, self._graph = form, StepGraph(self._captured_step)
        return Readings(*self._graph(*tensors, lr_R))

    def _captured_step(self, *tensors: Tensor) -> Readings:
        assert self._form is not None, "a step has said how its batch is made of tensors"
        batch = [UserBatch(data, 0) for data in tree_unflatten(list(tensors[:-1]), self._form)]
        return super().step(batch, tensors[-1])

    def evaluate(self, batch: Sequence[UserBatch], as_trained: bool = True) -> Tensor:
        """The loss of each replica, [R]: in training mode, or as the trained model is used; buffers stay."""
        self._forward.train(as_trained or self.model.contract.in_training)
        with torch.no_grad():
            loss_R = self._losses(batch, {name: buffer.clone() for name, buffer in self._buffers.items()})
        self._forward.train()
        return loss_R

    def look(self, batch: Sequence[UserBatch], kind: Look = ActivationSnapshot) -> ActivationSnapshot:
        """A forward pass of each replica, looked at, one after the other."""
        looks = []
        for row, one in enumerate(batch):
            state = {f"inner.{name}": bank[row].detach() for name, bank in self._banks.items()}
            state |= {f"inner.{name}": buffer[row].clone() for name, buffer in self._buffers.items()}
            with seeded(one.seed), self._autocast():
                forward = partial(functional_call, self._forward, state, (one.data,))
                looks.append(look_at(self._forward.inner, forward, kind))
        look = together(looks)
        self._look_at_moments(look)
        return look

    @contextmanager
    def trained_module(self, row: int) -> Iterator[nn.Module]:
        """A replica as a module of its own."""
        module = copy.deepcopy(self._forward.inner)
        state = {name: bank[row] for name, bank in (*self._banks.items(), *self._buffers.items())}
        module.load_state_dict({name: value.detach() for name, value in state.items()}, strict=False)
        with torch.no_grad(), self._autocast():
            yield module

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every replica but these rows."""
        index = torch.tensor(rows, device=self.theta_RP.device)
        self._buffers = {name: buffer[index] for name, buffer in self._buffers.items()}
        super(UserPopulation, self).keep(rows)

    def state(self) -> dict[str, Any]:
        """Everything that training changes, from which `restore` goes on."""
        return super(UserPopulation, self).state() | {"stacked": self._buffers}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the rows of a `state`, on whichever device it lies."""
        self._buffers = {name: value.to(self.training.device) for name, value in state["stacked"].items()}
        super(UserPopulation, self).restore(state)

    def _bind(self) -> None:
        super()._bind()
        captured = self.training.kernel == "graph"
        self._form = None
        self._graph = StepGraph(self._captured_step) if captured else None  # of these matrices alone
        places = self.model.layout.parameters
        rows = len(self.theta_RP)
        self._banks = {
            place.name: self.theta_RP[:, place.start : place.stop].view(rows, *place.shape).detach().requires_grad_()
            for place in places
        }

    def _backward(self, batch: Sequence[UserBatch], scale_R: Tensor | None) -> Tensor:
        loss_R = self._losses(batch, self._buffers)
        total = (loss_R if scale_R is None else loss_R * scale_R).sum()
        gradients = torch.autograd.grad(total, list(self._banks.values()), allow_unused=True)
        for place, gradient in zip(self.model.layout.parameters, gradients, strict=True):
            part = self.grad_RP[:, place.start : place.stop]
            part.zero_() if gradient is None else part.copy_(gradient.flatten(1))
        return loss_R.detach()

    def _losses(self, batch: Sequence[UserBatch], buffers: Mapping[str, Tensor]) -> Tensor:
        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], data: Any) -> Tensor:
            state = {f"inner.{name}": value for name, value in {**parameters, **buffers}.items()}
            found: Tensor = functional_call(self._forward, state, (data,))
            return found.float()

        data = _stacked([one.data for one in batch])
        with self._autocast():
            loss_R: Tensor = vmap(loss, randomness="error")(self._banks, dict(buffers), data)
        return loss_R


def stacks(model: UserModel, batches: UserBatches, training: Training) -> bool:
    """Whether two replicas give in one computation what they give one after the other: losses and gradients.

    Not where the model draws random numbers, which would not be each replica's own, its parameters differ in dtype, or
    the optimizer is the user's.
    """
    if training.optimizer is USER_OPTIMIZER or model.layout.mixed or _draws(model, batches, training):
        return False
    seeds = (0, 1)
    batch = batches.batch(seeds, 0)
    try:
        one_by_one, together = UserPopulation(model, seeds, training), StackedUserPopulation(model, seeds, training)
        losses = [population._backward(batch, None) for population in (one_by_one, together)]
    except Exception:  # whatever torch.func does not allow, in whose words ever
        return False
    difference = (one_by_one.grad_RP - together.grad_RP).norm(dim=1)
    close = difference <= _CLOSE * one_by_one.grad_RP.norm(dim=1)
    return bool(close.all()) and torch.allclose(losses[0], losses[1], rtol=_CLOSE)


def is_capturable(model: UserModel, batches: UserBatches, training: Training) -> bool:
    """Whether steps of two replicas by a CUDA graph are those of stacked ones without: what Python changes is not."""
    seeds = (0, 1)
    lr_R = torch.full((2,), FIRST_LR, device=training.device)
    try:
        one, other = (StackedUserPopulation(model, seeds, replace(training, kernel=kernel)) for kernel in _COMPARED)
        for step in range(FIRST_REPLAY + 3):
            batch = batches.batch(seeds, step)
            losses = [population.step(batch, lr_R).loss_R for population in (one, other)]
    except Exception:  # whatever torch does not capture, in whose words ever
        return False
    close = (one.theta_RP - other.theta_RP).norm(dim=1) <= _CLOSE * one.theta_RP.norm(dim=1)
    return bool(close.all()) and torch.allclose(losses[0], losses[1], rtol=_CLOSE)


def _untrained(module: nn.Module) -> dict[str, Tensor]:
    """Buffers and frozen parameters: each replica has its own."""
    frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    return {**frozen, **dict(module.named_buffers())}


def _draws(model: UserModel, batches: UserBatches, training: Training) -> bool:
    """Whether a forward pass in training mode draws from torch's generator."""
    module = model.make(0).to(training.device)
    one = batches.batch([0], 0)[0]
    with seeded(one.seed), torch.no_grad():
        on_gpu = training.device.type == "cuda"
        before = torch.cuda.get_rng_state(training.device) if on_gpu else torch.get_rng_state()
        model.contract.loss(module, one.data)
        after = torch.cuda.get_rng_state(training.device) if on_gpu else torch.get_rng_state()
    return not torch.equal(before, after)


def _stacked(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.stack(list(parts))
    if isinstance(first, Mapping):
        return {key: _stacked([part[key] for part in parts]) for key in first}
    return tuple(_stacked(list(column)) for column in zip(*parts, strict=True))
