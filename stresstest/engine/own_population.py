"""A population of the user's own model: one module a replica, its parameters a row of the one matrix.

The replicas are stepped one after the other, each with its own buffers and random numbers; everything
that follows the gradient is a population's: optimizers, clipping, loss scaling, health.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from stresstest.engine.curvature import Loss
from stresstest.engine.own_batches import OwnBatch
from stresstest.engine.population import Population, Readings, Training
from stresstest.engine.probes import Look, look_at, together
from stresstest.models.contract import Contract
from stresstest.models.layout import TensorName
from stresstest.models.own import Factory, seeded
from stresstest.models.peers import tensor_name
from stresstest.optimizers import Optimizer, Step
from stresstest.user_code import UserCodeError, user_code

FIRST_LR = 1e-3  # at which the user's optimizer is built; its groups keep their ratios at every other


def _never(step: Step) -> None:
    raise AssertionError("the user's optimizer makes the update")


OWN_OPTIMIZER = Optimizer("own", "The optimizer beside the user's model.", "", (), {}, _never, elementwise=False)


@dataclass(frozen=True)
class OwnParameter:
    """Where a trainable parameter lies in a replica's row, from `start` on."""

    name: str
    shape: torch.Size
    start: int

    @property
    def stop(self) -> int:
        return self.start + self.shape.numel()


class OwnModel:
    """The user's architecture at one variant, depth and width. Tied parameters are one; frozen ones are left out."""

    def __init__(self, factory: Factory, contract: Contract, variant: str, depth: int, width: int) -> None:
        self.factory = factory
        self.contract = contract
        self._where = variant, depth, width
        self.layout = OwnLayout(self.make(0))

    def make(self, seed: int) -> nn.Module:
        """A freshly initialised module."""
        return self.factory.make(seed, *self._where)

    def release(self) -> None:
        """Nothing is kept."""


class OwnLayout:
    """The trainable parameters of a module, in its order."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters: list[OwnParameter] = []
        start = 0
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if is_lazy(parameter):
                raise UserCodeError(f"parameter {name} has no shape yet; call its lazy module before it is returned")
            if parameter.is_complex():
                raise UserCodeError(f"parameter {name} is complex; only real ones can be trained here")
            self.parameters.append(OwnParameter(name, parameter.shape, start))
            start = self.parameters[-1].stop
        if not start:
            raise UserCodeError("no parameter of the model wants a gradient; there is nothing to train")
        self.num_parameters = start

    @cached_property
    def _matrices(self) -> list[tuple[int, int, bool]]:
        return [(p.start, p.stop, len(p.shape) > 1) for p in self.parameters]

    def names(self) -> list[TensorName]:
        """The matrices that `parts` has, in its order; the first number in a name is its block's."""
        return [tensor_name(parameter.name) for parameter in self._read]

    def parts(self, matrix_RP: Tensor) -> list[Tensor]:
        """The rows' matrices (where there are none, all parameters), each [R, 1, its size]."""
        return [matrix_RP[:, p.start : p.stop].unsqueeze(1) for p in self._read]

    @cached_property
    def _read(self) -> list[OwnParameter]:
        return [p for p in self.parameters if len(p.shape) > 1] or self.parameters

    def decay_mask(self) -> Tensor:
        """[P]: 1 where weight decay applies (matrices), 0 for gains and biases."""
        return torch.cat([torch.full((stop - start,), float(decays)) for start, stop, decays in self._matrices])

    def segments(self) -> list[tuple[int, int, int, bool]]:
        """(start, stop, rows, decays): each parameter is one of LAMB's layers."""
        return [(start, stop, 1, decays) for start, stop, decays in self._matrices]


class OwnPopulation(Population):
    """The replicas `seeds` of the user's model, freshly initialised (a seed may stand in several rows)."""

    model: OwnModel  # type: ignore[assignment]  # all that a population asks of it is its layout

    def __init__(self, model: OwnModel, seeds: Sequence[int], training: Training) -> None:
        self._modules = [model.make(seed).to(training.device) for seed in seeds]
        self._parameters = [_trainable(module, model.layout) for module in self._modules]
        rows = [torch.cat([p.detach().flatten() for p in row]) for row in self._parameters]
        self._optimizers: list[torch.optim.Optimizer] = []
        self._begin(model, torch.stack(rows), training)  # type: ignore[arg-type]  # as above
        if training.optimizer is OWN_OPTIMIZER:
            self._optimizers = [users_optimizer(model.factory, module) for module in self._modules]
        self._base_lrs = [[float(g["lr"]) for g in optimizer.param_groups] for optimizer in self._optimizers]

    def step(self, batch: Sequence[OwnBatch], lr_R: Tensor) -> Readings:  # type: ignore[override]  # the user's batches
        """One optimizer step of every replica, each at its own learning rate."""
        return super().step(batch, lr_R)  # type: ignore[arg-type]  # which hands it on to `_backward`

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The replicas themselves, in the order of the rows."""
        return self._modules

    def profile(self, batch: Sequence[OwnBatch]) -> None:  # type: ignore[override]  # the user's batches
        """Nothing is measured at initialisation."""

    def evaluate(self, batch: Sequence[OwnBatch], as_trained: bool = True) -> Tensor:  # type: ignore[override]  # as above
        """The loss of each replica, [R]: in training mode, or as the trained model is used; buffers stay."""
        losses = []
        for module, one in zip(self._modules, batch, strict=True):
            module.train(as_trained)
            with torch.no_grad(), _kept(module), seeded(one.seed), self._autocast():
                losses.append(self.model.contract.loss(module, one.data).detach().float())
            module.train()
        return torch.stack(losses)

    def look(self, batch: Sequence[OwnBatch]) -> Look:  # type: ignore[override]  # as above
        """A forward pass of each replica, looked at; buffers stay."""
        looks = []
        for module, one in zip(self._modules, batch, strict=True):
            with torch.no_grad(), _kept(module), seeded(one.seed), self._autocast():
                looks.append(look_at(module, partial(self.model.contract.loss, module, one.data)))
        look = together(looks)
        self._look_at_moments(look)
        return look

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every replica but these rows."""
        self._modules = [self._modules[row] for row in rows]
        self._parameters = [self._parameters[row] for row in rows]
        self._base_lrs = [self._base_lrs[row] for row in rows] if self._optimizers else []
        self._optimizers = [self._optimizers[row] for row in rows] if self._optimizers else []
        super().keep(rows)

    def state(self) -> dict[str, Any]:
        """Everything that training changes, from which `restore` goes on bit for bit."""
        return super().state() | {
            "buffers": [[buffer.clone() for buffer in module.buffers()] for module in self._modules],
            "users": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the rows of a `state`, on whichever device it lies."""
        self._modules = self._modules[: len(state["buffers"])]  # all alike but for what is restored now
        self._parameters = self._parameters[: len(self._modules)]
        self._optimizers = self._optimizers[: len(self._modules)]
        super().restore(state)
        for module, values in zip(self._modules, state["buffers"], strict=True):
            for buffer, value in zip(module.buffers(), values, strict=True):
                buffer.copy_(value)
        for optimizer, stored in zip(self._optimizers, state["users"], strict=True):
            optimizer.load_state_dict(stored)

    def _bind(self) -> None:
        for row, parameters in enumerate(self._parameters):
            for place, parameter in zip(self.model.layout.parameters, parameters, strict=True):
                part = slice(place.start, place.stop)
                parameter.data = self.theta_RP[row, part].view(place.shape)
                parameter.grad = self.grad_RP[row, part].view(place.shape)

    def _backward(self, batch: Sequence[OwnBatch], scale_R: Tensor | None) -> Tensor:  # type: ignore[override]  # as above
        self.grad_RP.zero_()
        losses = []
        for row, (module, one) in enumerate(zip(self._modules, batch, strict=True)):
            with seeded(one.seed):
                with self._autocast():
                    loss = self.model.contract.loss(module, one.data)
                with user_code("loss.backward()"):
                    (loss if scale_R is None else loss * scale_R[row]).backward()  # type: ignore[no-untyped-call]  # torch's
            losses.append(loss.detach().float())
        return torch.stack(losses)

    def _second_moment(self) -> tuple[Tensor, float] | None:
        if not self._optimizers:
            return super()._second_moment()
        rows: list[Tensor] = []
        eps = 0.0
        for optimizer, parameters in zip(self._optimizers, self._parameters, strict=True):
            groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
            row = []
            for parameter in parameters:
                state, group = optimizer.state.get(parameter, {}), groups.get(parameter, {})
                if "exp_avg_sq" not in state or "step" not in state or "betas" not in group:
                    return None
                row.append((state["exp_avg_sq"] / (1.0 - group["betas"][1] ** float(state["step"]))).flatten())
                eps = float(group["eps"])
            rows.append(torch.cat(row))
        return torch.stack(rows), eps

    def _update(self, lr_R: Tensor) -> None:
        if not self._optimizers:
            super()._update(lr_R)
            return
        self._step_R1 += 1.0
        for optimizer, base, lr in zip(self._optimizers, self._base_lrs, lr_R.tolist(), strict=True):
            self._users_step(optimizer, base, lr)

    def _update_unless(self, skipped_R: Tensor, lr_R: Tensor) -> None:
        if not self._optimizers:
            super()._update_unless(skipped_R, lr_R)
            return
        rows = zip(self._optimizers, self._base_lrs, lr_R.tolist(), skipped_R.tolist(), strict=True)
        for optimizer, base, lr, skipped in rows:
            if not skipped:
                self._users_step(optimizer, base, lr)
        self._adapt_scale(skipped_R)

    def _users_step(self, optimizer: torch.optim.Optimizer, base: Sequence[float], lr: float) -> None:
        """One step with every group's LR in its ratio to the one that the optimizer was built with."""
        for group, base_lr in zip(optimizer.param_groups, base, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(base_lr * lr / FIRST_LR)
            else:
                group["lr"] = base_lr * lr / FIRST_LR
        with user_code("the optimizer's step()"):
            optimizer.step()


class Forward(nn.Module):
    """The user's loss as a module's forward, so that its parameters can be replaced in a call."""

    def __init__(self, inner: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.inner = inner
        self._contract = contract

    def forward(self, data: Any) -> Tensor:
        return self._contract.loss(self.inner, data)


def own_objective(model: OwnModel, one: OwnBatch, seed: int, device: torch.device) -> tuple[Tensor, Loss]:
    """A fresh replica's parameters, [P], and its loss on a batch as a function of them, in training mode."""
    module = model.make(seed).to(device)
    theta_P = torch.cat([p.detach().flatten() for p in _trainable(module, model.layout)])
    forward = Forward(module, model.contract)
    buffers = {f"inner.{name}": buffer for name, buffer in module.named_buffers()}

    def loss(at_P: Tensor) -> Tensor:
        state = {name: buffer.clone() for name, buffer in buffers.items()}
        for place in model.layout.parameters:
            state[f"inner.{place.name}"] = at_P[place.start : place.stop].view(place.shape)
        with seeded(one.seed):
            found: Tensor = functional_call(forward, state, (one.data,))
        return found

    return theta_P, loss


def users_optimizer(factory: Factory, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer beside the model, built at `FIRST_LR`; where it takes no `lr`, its first group has that."""
    if factory.optimizer is not None:
        takes = inspect.signature(factory.optimizer).parameters
        subject = module if next(iter(takes), "") == "model" else [p for p in module.parameters() if p.requires_grad]
        with user_code("optimizer(params, lr)"):
            built = factory.optimizer(subject, **({"lr": FIRST_LR} if "lr" in takes else {}))
    else:
        with user_code("configure_optimizers()"):
            built = module.configure_optimizers()  # type: ignore[operator]  # a LightningModule's, found by its name
            if isinstance(built, dict):
                built = built["optimizer"]
            elif isinstance(built, list | tuple) and built:
                first = built[0]
                built = first[0] if isinstance(first, list | tuple) else first
    if not isinstance(built, torch.optim.Optimizer):
        raise UserCodeError(f"optimizer returned {type(built).__name__}; return a torch.optim.Optimizer")
    if factory.optimizer is None or "lr" not in takes:
        scale = FIRST_LR / float(built.param_groups[0]["lr"])
        for group in built.param_groups:
            group["lr"] = float(group["lr"]) * scale
    return built


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the buffers are as they were before."""
    before = [buffer.clone() for buffer in module.buffers()]
    yield
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)


def _trainable(module: nn.Module, layout: OwnLayout) -> list[nn.Parameter]:
    found = [parameter for parameter in module.parameters() if parameter.requires_grad]
    shapes = [parameter.shape for parameter in layout.parameters]
    if [parameter.shape for parameter in found] != shapes:
        raise UserCodeError("the factory built a model of other parameters than before; its arguments alone may decide")
    return found
