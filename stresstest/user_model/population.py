"""A population of the user's own model: one module a replica, its parameters a row of the one matrix.

The replicas are stepped one after the other, each with its own buffers and random numbers; everything
that follows the gradient is a population's: optimizers, clipping, loss scaling, health.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stresstest.engine.curvature import Loss, Sum
from stresstest.engine.optimizer import Optimizer, Step
from stresstest.engine.probes import ActivationSnapshot, Look, look_at, together
from stresstest.engine.replicas import FIRST_LR, Replicas, Training, row_of
from stresstest.engine.rounded import update
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.carried import carried, kept, put_back
from stresstest.user_model.contract import Contract, shape_words
from stresstest.user_model.dtypes import cast, in_float32
from stresstest.user_model.factory import Factory, seeded
from stresstest.user_model.layout import OwnLayout
from stresstest.user_model.lost_moments import lose, optimizers_in
from stresstest.user_model.micro_batches import differentiated
from stresstest.user_model.optimizers import UsersOptimizers, fixed_groups
from stresstest.user_model.step.whole_copy import branched
from stresstest.user_model.wrapped import uncompiled


def _never(step: Step) -> None:
    raise AssertionError("the user's optimizer makes the update")


# Its facts are unknown: nothing is predicted of it.
USER_OPTIMIZER = Optimizer(
    "own",
    summary="The optimizer beside the user's model.",
    source="",
    slots=(),
    options={},
    update=_never,
    adaptive=False,
    decoupled_decay=False,
    stability=None,
    update_size="gradient",
    elementwise=False,
)


class UserModel:
    """The user's architecture at one variant, depth and width. Tied parameters are one; frozen ones are left out."""

    def __init__(self, factory: Factory, contract: Contract, variant: str, depth: int, width: int) -> None:
        self.factory = factory
        self.contract = contract
        self._where = variant, depth, width
        self.layout = OwnLayout(self.make(0))

    @cached_property
    def fixed_groups(self) -> tuple[bool, ...]:
        """Which parameter groups of the user's optimizer have an LR of their own, whatever is asked for."""
        return fixed_groups(self.factory, [self.make(0), self.make(0)])

    def make(self, seed: int) -> nn.Module:
        """A freshly initialised module."""
        return self.factory.make(seed, *self._where)

    def release(self) -> None:
        """Nothing is kept."""


class UserPopulation(Replicas[Sequence[UserBatch]]):
    """The replicas `seeds` of the user's model, freshly initialised (a seed may stand in several rows).

    The user's own optimizer of each row is built at that row's entry of `lrs`, by default `FIRST_LR`.

    Parameters of one dtype are views of the matrix. Where dtypes differ, they keep memory of their own, and the matrix,
    wide enough for all, mirrors them: what is in it is always of the parameter's dtype.
    """

    model: UserModel

    def __init__(
        self, model: UserModel, seeds: Sequence[int], training: Training, lrs: Sequence[float] | None = None
    ) -> None:
        self._modules = [model.make(seed).to(training.device) for seed in seeds]
        self._parameters = [_trainable(module, model.layout) for module in self._modules]
        rows = [_flat(row) for row in self._parameters]
        self._users: list[UsersOptimizers] = []
        self._begin(model, torch.stack(rows), training)
        if training.optimizer is USER_OPTIMIZER and model.factory.step is None:
            for module, lr in zip(self._modules, lrs or [FIRST_LR] * len(seeds), strict=True):
                self._users.append(UsersOptimizers(model.factory, module, lr, model.fixed_groups))

    def anew(self, seed: int) -> UserPopulation:
        """A replica at its start, by itself."""
        return UserPopulation(self.model, [seed], self.training)

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The replicas themselves, in the order of the rows."""
        return self._modules

    @property
    def num_kept(self) -> int:
        """How many tensors the user's optimizers keep between steps."""
        return sum(users.num_tensors for users in self._users)

    @property
    def users(self) -> Sequence[UsersOptimizers]:
        """The user's own optimizers of each row; empty where another trains."""
        return self._users

    def profile(self, batch: Sequence[UserBatch]) -> None:
        """Nothing is measured at initialisation."""

    def evaluate(self, batch: Sequence[UserBatch], as_trained: bool = True) -> Tensor:
        """The loss of each replica, [R]: in training mode, or as the trained model is used; buffers stay."""
        losses = []
        for row, (module, one) in enumerate(zip(self._modules, batch, strict=True)):
            module.train(as_trained or self.model.contract.in_training)
            with uncompiled(), torch.no_grad(), self._as_used(row):
                losses.append(self._loss_of(module, one))
            module.train()
        return torch.stack(losses)

    def step_loss(self, batch: Sequence[UserBatch]) -> Tensor:
        """The loss of each replica, [R], that a step on this batch would read: of the weights that are trained."""
        return torch.stack([self._loss_of(module, one) for module, one in zip(self._modules, batch, strict=True)])

    def _loss_of(self, module: nn.Module, one: UserBatch) -> Tensor:
        with uncompiled(), torch.no_grad(), kept(module), seeded(one.seed), self._autocast():
            return self.model.contract.loss(module, one.parts).detach().float()

    def look(self, batch: Sequence[UserBatch], kind: Look = ActivationSnapshot) -> ActivationSnapshot:
        """A forward pass of each replica on its batch, or the first micro-batch, looked at; buffers stay."""
        looks = []
        for module, one in zip(self._modules, batch, strict=True):
            with uncompiled(), torch.no_grad(), kept(module), seeded(one.seed), self._autocast():
                looks.append(look_at(module, partial(self.model.contract.loss, module, one.parts.parts[0]), kind))
        look = together(looks)
        self._look_at_moments(look)
        return look

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every replica but these rows."""
        self._modules = [self._modules[row] for row in rows]
        self._parameters = [self._parameters[row] for row in rows]
        self._users = [self._users[row] for row in rows] if self._users else []
        super().keep(rows)
        for users, module in zip(self._users, self._modules, strict=bool(self._users)):
            users.moved(module)

    def changed(self) -> None:
        """Let the modules have what was written to `theta_RP`, rounded to the dtypes that they have."""
        self._push()
        if self.model.layout.mixed:
            for row_P, parameters in zip(self.theta_RP, self._parameters, strict=True):
                row_P.copy_(_flat(parameters))

    def branch(self, row: int) -> UserPopulation:
        """This row once more, as a population of its own, which goes on as the row would, bit for bit."""
        found, theirs = copy.copy(self), self._users[row].each if self._users else ()
        module, optimizers = branched(self._modules[row], theirs)
        found._modules, found._parameters = [module], [named_parameters(module, self.model.layout)]
        found._users = [self._users[row].branch(optimizers)] if self._users else []
        found._watch = copy.copy(self._watch)
        Replicas.restore(found, row_of(Replicas.state(self), row))
        for users in found._users:
            users.moved(module)
        return found

    def lose(self, moments: frozenset[str], count: bool) -> int:
        """Zero these moments of the optimizer, "first" and "second", and its count of steps; how many matrices."""
        theirs = self._optimizers()
        return sum(lose(optimizer, moments, count) for optimizer in theirs) if theirs else super().lose(moments, count)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """The user's own, of all rows, and those inside them."""
        return [optimizer for users in self._users for optimizer in optimizers_in(users.each)]

    def state(self) -> dict[str, Any]:
        """Everything that training changes, from which `restore` goes on bit for bit."""
        return super().state() | {
            "carried": [carried(module) for module in self._modules],
            "users": [users.state() for users in self._users],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the rows of a `state`, on whichever device it lies; they were built at the LRs of these rows."""
        self._modules = self._modules[: len(state["carried"])]  # all alike but for what is restored now
        self._parameters = self._parameters[: len(self._modules)]
        self._users = self._users[: len(self._modules)]
        super().restore(state)
        for module, values in zip(self._modules, state["carried"], strict=True):
            put_back(module, values)
        for users, stored in zip(self._users, state["users"], strict=True):
            users.restore(stored)

    def _bind(self) -> None:
        if self.model.layout.mixed:
            self._push()
            return
        for row, parameters in enumerate(self._parameters):
            for parameter, part in zip(parameters, self._parts(self.theta_RP[row]), strict=True):
                parameter.data = part

    def _push(self) -> None:
        """Let parameters that keep memory of their own have the numbers of the matrix."""
        if self.model.layout.mixed:
            for row_P, parameters in zip(self.theta_RP, self._parameters, strict=bool(self._parameters)):
                for parameter, part in zip(parameters, self._parts(row_P), strict=True):
                    parameter.data.copy_(part)

    def _parts(self, row_P: Tensor) -> list[Tensor]:
        """Views of a row, one for each parameter."""
        return [row_P[place.start : place.stop].view(place.shape) for place in self.model.layout.parameters]

    def _backward(self, batch: Sequence[UserBatch], scale_R: Tensor | None) -> Tensor:
        scales = [1.0] * len(batch) if scale_R is None else scale_R.tolist()
        losses = [self._gradient(row, one, scale) for row, (one, scale) in enumerate(zip(batch, scales, strict=True))]
        self._last = batch, scales
        return torch.stack([loss.float() for loss in losses])

    def _gradient(self, row: int, one: UserBatch, scale: float) -> Tensor:
        """A replica's loss; its gradient, times `scale`, goes to the parameters and, as a copy, to its row."""
        parameters = self._parameters[row]
        for parameter in parameters:
            parameter.grad = None
        with seeded(one.seed):
            loss = self._differentiated(row, one, scale)
        for parameter, part in zip(parameters, self._parts(self.grad_RP[row]), strict=True):
            gradient = parameter.grad
            if gradient is None:
                part.zero_()
            else:
                part.copy_((gradient.to_dense() if gradient.is_sparse else gradient).detach())
            if not self._users:
                parameter.grad = None  # the optimizer reads the matrix
        return loss.detach()

    def _differentiated(self, row: int, one: UserBatch, scale: float) -> Tensor:
        """A replica's loss; its gradient, times `scale`, goes to `.grad` of its parameters."""
        contract, module = self.model.contract, self._modules[row]
        if contract.backward is not None:
            with user_code(contract.text):
                return contract.backward(module, one.data, scale)
        return differentiated(contract.loss, module, one.parts, scale, self._autocast)

    def _second_moment(self) -> tuple[Tensor, float] | None:
        if not self._users:
            return super()._second_moment()
        found = [
            users.second_moment(parameters) for users, parameters in zip(self._users, self._parameters, strict=True)
        ]
        rows = [one for one in found if one is not None]
        return (torch.stack([row for row, _ in rows]), rows[-1][1]) if rows and len(rows) == len(found) else None

    def _update(self, lr_R: Tensor) -> None:
        if not self._users:
            if self.model.layout.rounds:
                self._rounded_update(lr_R)
            else:
                super()._update(lr_R)
            return
        self._count_step()
        for row, lr in enumerate(lr_R.tolist()):
            self._users_step(row, lr)

    def _update_unless(self, skipped_R: Tensor, lr_R: Tensor) -> None:
        if not self._users:
            super()._update_unless(skipped_R, lr_R)
            self._push()
            return
        for row, (lr, skipped) in enumerate(zip(lr_R.tolist(), skipped_R.tolist(), strict=True)):
            if not skipped:
                self._users_step(row, lr)

    def _rounded_update(self, lr_R: Tensor) -> None:
        self._count_step()
        layout = self.model.layout
        step = Step(
            self.theta_RP, self.grad_RP, lr_R[:, None], self._state, self._step_R1, self._decay_P, self._segments
        )
        with torch.no_grad():
            update(self.training.optimizer, self.training.options, step, layout.stretches)
        self._push()

    def _users_step(self, row: int, lr: float) -> None:
        """One step of the user's optimizers with the gradient as it is in the matrix, which stays as it is."""
        users, one = self._users[row], self._last[0][row]
        self._hand_out(row)
        with seeded(one.seed + 1):  # of an optimizer that draws numbers
            if users.may_ask_again:
                kept_P = self.grad_RP[row].clone()
                users.step(lr, partial(self._again, row, self.theta_RP[row].clone()))
                self.grad_RP[row] = kept_P
            else:
                users.step(lr)
        self._take_back(row)

    def _again(self, row: int, first_P: Tensor) -> Tensor:
        """The loss and the clipped gradient anew, of the parameters as they are: an optimizer's closure.

        Where they are still the first, buffers have already taken the batch in.
        """
        batch, scales = self._last
        first = torch.equal(_flat(self._parameters[row]), first_P)
        as_first = (kept(self._modules[row]), self.within()) if first else (nullcontext(), nullcontext())
        with torch.enable_grad(), as_first[0], as_first[1]:
            loss = self._gradient(row, batch[row], scales[row])
        self.grad_RP[row].div_(scales[row])
        if first and self.between is not None:
            self.between()
        if self.training.clip_norm is not None:
            self._clip_row(row, self.training.clip_norm)
        self._hand_out(row)
        return loss

    def _clip(self, grad_norm_R: Tensor) -> Tensor:
        limit = self.training.clip_norm
        if limit is None:
            return super()._clip(grad_norm_R)
        for row in range(self.num_replicas):
            self._clip_row(row, limit)
        return grad_norm_R > limit

    def _clip_row(self, row: int, limit: float) -> None:
        """As torch's clip_grad_norm_, to the bit: the norm of the norms of the gradients, in their dtypes."""
        parts = self._parts(self.grad_RP[row])
        gradients = [part.to(place.dtype) for place, part in zip(self.model.layout.parameters, parts, strict=True)]
        factor = (limit / (nn.utils.get_total_norm(gradients) + 1e-6)).clamp(max=1.0)
        for part, gradient in zip(parts, gradients, strict=True):
            part.copy_(gradient.mul_(factor))

    def _hand_out(self, row: int) -> None:
        """Let the parameters' gradients be what the matrix says, where that may differ by now."""
        if self.training.clip_norm is None and self._last[1][row] == 1.0 and self.between is None:
            return
        for parameter, part in zip(self._parameters[row], self._parts(self.grad_RP[row]), strict=True):
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                parameter.grad = part.sparse_mask(parameter.grad.coalesce())
            else:
                parameter.grad.copy_(part)

    def _take_back(self, row: int) -> None:
        """Let a parameter whose data the optimizer has replaced lie in the matrix again."""
        parts = self._parts(self.theta_RP[row])
        for place, parameter, part in zip(self.model.layout.parameters, self._parameters[row], parts, strict=True):
            if parameter.data_ptr() == part.data_ptr() and parameter.stride() == part.stride():
                continue
            if parameter.shape != part.shape or parameter.dtype != place.dtype:
                raise UserCodeError(
                    f"the optimizer changed {place.name} to {shape_words(parameter.data)}; it must stay "
                    f"{shape_words(part.to(place.dtype))}"
                )
            part.copy_(parameter.detach())
            if not self.model.layout.mixed:
                parameter.data = part

    @contextmanager
    def trained_module(self, row: int) -> Iterator[nn.Module]:
        """A replica with the parameters of the trained model, in training mode; buffers stay."""
        module = self._modules[row]
        with uncompiled(), torch.no_grad(), self._as_used(row), kept(module), self._autocast():
            yield module

    @contextmanager
    def _as_used(self, row: int) -> Iterator[None]:
        """The parameters of the trained model; afterwards they are as before, to the bit."""
        if not self._users or not self._users[row].has_modes:
            yield
            return
        before_P = self.theta_RP[row].clone()
        with self._users[row].as_used():
            yield
        self._take_back(row)
        self.theta_RP[row] = before_P
        self._push()


class Forward(nn.Module):
    """The user's loss as a module's forward, so that its parameters can be replaced in a call."""

    def __init__(self, inner: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.inner = inner
        self._contract = contract

    def forward(self, data: Any) -> Tensor:
        return self._contract.loss(self.inner, data)


def user_objective(model: UserModel, one: UserBatch, seed: int, device: torch.device) -> tuple[Tensor, Loss]:
    """A fresh replica's parameters, [P], and its loss on a batch as a function of them, in training mode.

    In float32 at least: of a model in half precision it is a copy, since its own loss is no smooth function.
    """
    module = model.make(seed).to(device)
    trainable = _trainable(module, model.layout)
    copied = any(dtype.itemsize < torch.float32.itemsize for dtype in model.layout.dtypes)
    if copied:
        module, one = in_float32(module), replace(one, data=cast(one.data, torch.float32))
    theta_P = _flat(trainable)
    forward = Forward(module, model.contract)
    buffers = {f"inner.{name}": buffer for name, buffer in module.named_buffers()}
    dtypes = {name: parameter.dtype for name, parameter in module.named_parameters()}

    def loss(data: Any, share: float, at_P: Tensor) -> Tensor:
        state = {name: buffer.clone() for name, buffer in buffers.items()}
        parts = at_P.split_with_sizes([place.stop - place.start for place in model.layout.parameters])
        for place, part in zip(model.layout.parameters, parts, strict=True):  # one operation: see Layout.split
            state[f"inner.{place.name}"] = part.reshape(place.shape).to(dtypes[place.name])
        try:
            with uncompiled(), seeded(one.seed):
                found: Tensor = functional_call(forward, state, (data,))
        except UserCodeError as error:
            raise UserCodeError(f"a copy in float32: {error.line}" if copied else error.line, error.text) from None
        return found if share == 1.0 else share * found

    terms = tuple(partial(loss, data, share) for data, share in one.parts)
    return theta_P, terms[0] if len(terms) == 1 else Sum(terms)


def _trainable(module: nn.Module, layout: OwnLayout) -> list[nn.Parameter]:
    found = [parameter for parameter in module.parameters() if parameter.requires_grad]
    wanted = [(parameter.shape, parameter.dtype) for parameter in layout.parameters]
    if [(parameter.shape, parameter.dtype) for parameter in found] != wanted:
        raise UserCodeError(
            "the factory built a model with different parameters than before; they may depend only on its arguments"
        )
    return found


def named_parameters(module: nn.Module, layout: OwnLayout) -> list[nn.Parameter]:
    """The parameters of the layout, though a step may have left some of them without requires_grad."""
    found = dict(module.named_parameters())
    return [found[place.name] for place in layout.parameters]


def _flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Their numbers as a row, [P], in a dtype that holds them all."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])
