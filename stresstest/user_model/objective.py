"""Whether the loss is an objective: whether it falls along its own gradient."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from stresstest.engine.replicas import FIRST_LR, Training
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.dtypes import cast, in_float32
from stresstest.user_model.factory import seeded
from stresstest.user_model.micro_batches import differentiated
from stresstest.user_model.optimizers import built, configures
from stresstest.user_model.population import USER_OPTIMIZER, UserModel

_SHARES = (1e-2, 1e-3)  # of the loss: how far a step should bring it down, to first order
_RISES = 0.1  # of that: a rise by more is not rounding
_OWN_SHARE = 0.5  # of that: what each of several optimizers brings it down by


def not_an_objective(model: UserModel, one: UserBatch, training: Training) -> str:
    """A sentence where the value of the loss does not follow its gradient, so that it tells nothing; or nothing.

    A small step down the gradient raises the loss of the same batch where its value is detached from what is trained;
    where several optimizers share the parameters, each part must bring it down by itself, which an adversary does not.
    """
    module = model.make(0).to(training.device)
    if any(dtype.itemsize < torch.float32.itemsize for dtype in model.layout.dtypes):  # a small step would round away
        try:
            return _not_falling(model, in_float32(module), replace(one, data=cast(one.data, torch.float32)), training)
        except UserCodeError:  # it insists on its dtype
            return ""
    return _not_falling(model, module, one, training)


def _not_falling(model: UserModel, module: nn.Module, one: UserBatch, training: Training) -> str:
    parameters = [p for p in module.parameters() if p.requires_grad]
    with seeded(one.seed), torch.enable_grad():
        start = float(differentiated(model.contract.loss, module, one.parts))
    if _after(model, module, [], [], one, 0.0) != start:
        return ""  # it goes on from the batch before (a queue, a memory): two looks at one batch are not comparable
    falls = [_fall(model, module, part, one, start) for part in (parameters, *_parts(model, module, training))]
    if falls[0] < -_RISES:
        return (
            f"a small step down the gradient raises the loss of the same batch, {start:.4g}, so the loss value is not "
            "what is trained (as with some adversarial or policy-gradient losses) and cannot show stability; give a "
            "loss_fn(model, batch) whose value falls as the model learns"
        )
    if len(falls) > 2 and min(falls[1:]) < _OWN_SHARE:
        return (
            f"one of the {len(falls) - 1} optimizers does not lower the returned loss, though it follows its "
            "gradient (an adversary?). Such a loss cannot show stability; ramp one part on its own, with a "
            "loss_fn(model, batch) and an optimizer(params, lr) for that part"
        )
    return ""


def _parts(model: UserModel, module: nn.Module, training: Training) -> list[list[nn.Parameter]]:
    """The parameters of each of several optimizers of the user's, whether they train it or another does."""
    if model.factory.step is not None or (training.optimizer is not USER_OPTIMIZER and not configures(type(module))):
        return []
    try:
        each = built(model.factory, module, FIRST_LR)
    except UserCodeError:
        if training.optimizer is USER_OPTIMIZER:
            raise
        return []
    parts = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in each]
    return parts if len(parts) > 1 else []


def _fall(model: UserModel, module: nn.Module, part: list[nn.Parameter], one: UserBatch, start: float) -> float:
    """By how much of what it should, to first order, the loss falls with a small step down these parameters' gradient.

    The most of two sizes of step; 1 where there is nothing to go down.
    """
    moved = [p for p in part if p.grad is not None]
    gradients = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in moved if p.grad is not None]
    square = sum(float(g.double().square().sum()) for g in gradients)
    if square == 0.0 or start == 0.0:
        return 1.0
    wanted = [share * abs(start) for share in _SHARES]
    return max((start - _after(model, module, moved, gradients, one, fall / square)) / fall for fall in wanted)


def _after(
    model: UserModel,
    module: nn.Module,
    parameters: list[nn.Parameter],
    gradients: list[Tensor],
    one: UserBatch,
    lr: float,
) -> float:
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.add_(gradient, alpha=-lr)
        with seeded(one.seed):
            loss = float(model.contract.loss(module, one.parts))
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
    return loss
