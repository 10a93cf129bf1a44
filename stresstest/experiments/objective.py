"""Whether the loss is an objective: whether it falls along its own gradient."""

from __future__ import annotations

import torch
from torch import nn

from stresstest.engine.own_batches import OwnBatch
from stresstest.engine.own_population import OwnModel
from stresstest.models.own import seeded
from stresstest.user_code import user_code

_SHARES = (1e-2, 1e-3)  # of the loss: how far a step should bring it down, to first order
_RISES = 0.1  # of that: a rise by more is no rounding


def rises_along_its_gradient(model: OwnModel, one: OwnBatch, device: torch.device) -> str:
    """A sentence where small steps down the gradient raise the loss of the same batch, so that its value tells nothing.

    So do adversarial losses, in which one part of the model works against another, and losses whose value is detached
    from their gradient. Empty of an objective.
    """
    module = model.make(0).to(device)
    parameters = [p for p in module.parameters() if p.requires_grad]
    with seeded(one.seed), torch.enable_grad():
        loss = model.contract.loss(module, one.data)
        with user_code("loss.backward()"):
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
    gradients = [None if p.grad is None else p.grad.to_dense() if p.grad.is_sparse else p.grad for p in parameters]
    square = sum((float(g.double().square().sum()) for g in gradients if g is not None), 0.0)
    start = float(loss.detach())
    if square == 0.0 or start == 0.0:
        return ""
    rises = []
    for share in _SHARES:
        wanted = share * abs(start)
        rise = _after(model, module, parameters, gradients, one, wanted / square) - start
        rises.append(rise / wanted)
    if min(rises) <= _RISES:
        return ""
    return (
        f"a small step down the gradient raises the loss of the same batch, {start:.4g} (by {max(rises):.2g} of what "
        "it should fall): its value is not what is trained, as with adversarial or policy-gradient losses, and says "
        "nothing of stability; give a loss_fn(model, batch) whose value falls as the model learns"
    )


def _after(
    model: OwnModel,
    module: nn.Module,
    parameters: list[nn.Parameter],
    gradients: list[torch.Tensor | None],
    one: OwnBatch,
    lr: float,
) -> float:
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.add_(gradient, alpha=-lr)
        with seeded(one.seed):
            loss = float(model.contract.loss(module, one.data))
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
    return loss
