"""The best constant predictor: the lowest loss of outputs that do not depend on the input, on batches of its own.

By definition it is a minimum of the user's own loss. Where that is a plain cross-entropy or mean squared error, counts
or means have it; else the loss is minimised over constants that the model's outlet puts out in place of its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch, UserBatches
from stresstest.user_model.constants.constant import Constant, cross_entropy
from stresstest.user_model.constants.fit import Constants, Fitted, Kind, Objective, fit, mean_loss
from stresstest.user_model.constants.outlet import Outlet, find_outlets
from stresstest.user_model.constants.plain import ENOUGH, FIRST_BATCHES, MOST_BATCHES, of_classes, of_plain_loss
from stresstest.user_model.constants.scaled import (
    PLAIN,
    made_up_logits,
    of_fused_classes,
    of_scaled_classes,
    puts_out_one,
)
from stresstest.user_model.constants.swapped import swapped_losses
from stresstest.user_model.constants.targets import Targets, classes_of
from stresstest.user_model.contract import Contract, plain_module
from stresstest.user_model.micro_batches import MicroBatches

_SWAPPED = 8  # batches by which it shows whether the loss has targets


def best_constant(contract: Contract, module: nn.Module, batches: UserBatches) -> Constant:
    """Fit it to batches that no seed trains on, by the first way that applies; `text` says which, or what stops it."""
    found = of_plain_loss(contract, batches)
    if found is not None:
        return found
    ones = batches.fresh(FIRST_BATCHES)
    unusable: Constant | None = None  # what the innermost outlet with weights of its own says
    for outlet in find_outlets(contract, module, ones[0]):
        plain = _recognised(contract, module, ones, outlet)
        if plain is not None:
            return replace(of_classes(*plain, batches), outlet=outlet)
        if contract.backward is not None:
            scaled = of_scaled_classes(contract, module, batches, outlet)
            if scaled is not None:
                return scaled
        try:
            fitted = _fitted(contract, module, outlet, batches)
        except UserCodeError:  # the loss takes no such constants: say, probabilities; the layer before may do
            continue
        if fitted is None or fitted.lowest:
            if _has_weights(module, outlet):
                unusable = _said_unusable(fitted, outlet)
            continue
        return Constant(
            "the lowest of the loss over constant outputs" + (f" of {outlet.path}" if outlet.path else ""),
            fitted.baseline_loss,
            fitted.chance_loss,
            fitted.error,
            fitted.learnable,
            outlet=outlet,
            constants=fitted.constants,
            paired=fitted.cheap,
        )
    if unusable is not None:
        return unusable
    if contract.backward is not None and (fused := of_fused_classes(contract, module, batches)) is not None:
        return fused
    nearest = next(find_outlets(contract, module, ones[0], alone=False), None)  # for swapped batches
    swappable = swapped_losses(contract, module, ones[:_SWAPPED], nearest, at_start=True) is not None
    return Constant("no module's outputs alone make the loss", outlet=nearest, swappable=swappable)


def _has_weights(module: nn.Module, outlet: Outlet) -> bool:
    """Whether the outlet makes its outputs itself, so that it can put out any; a wrapper of others may not."""
    return any(True for _ in plain_module(module).get_submodule(outlet.path).parameters(recurse=False))


def _said_unusable(fitted: Fitted | None, outlet: Outlet) -> Constant:
    if fitted is not None:
        return Constant("no outputs lose less", fitted.baseline_loss, outlet=outlet, lowest=True)
    return Constant("outputs that do not depend on the input lower it without end", outlet=outlet, unbounded=True)


def _fitted(contract: Contract, module: nn.Module, outlet: Outlet, batches: UserBatches) -> Fitted | None:
    """The best constants, from more batches where few leave them unsure."""
    number = FIRST_BATCHES
    while True:
        objective = Objective(contract, module, outlet)
        found = fit(objective, batches.fresh(number))
        if found is None or not found.cheap or found.unsure <= ENOUGH * abs(found.baseline_loss):
            return found
        if 4 * number > MOST_BATCHES:  # the luck of the batches is the baseline's alone: pairing takes it away
            more = batches.fresh(4 * number)[number:]
            return replace(found, baseline_loss=mean_loss(objective, more, found.constants)) if more else found
        number *= 4


class ConstantLosses:
    """The loss of a `Constant` on a batch; of one that is not paired, its baseline."""

    def __init__(self, constant: Constant, contract: Contract, module: nn.Module) -> None:
        self._constant = constant
        self._contract = contract
        self._module = module
        self._objective = Objective(contract, module, constant.outlet) if constant.outlet is not None else None

    def __call__(self, one: UserBatch, device: torch.device) -> Tensor:
        """A number on the device; of micro-batches that a stream gives, by their shares."""
        if isinstance(one.data, MicroBatches):
            parts = [self(replace(one, data=part), device) * share for part, share in one.data]
            return torch.stack(parts).sum()
        constant = self._constant
        if constant.log_prior is not None and constant.targets is not None:
            loss = cross_entropy(constant.targets(one.data), constant.log_prior.to(device))
        elif constant.mean is not None and constant.targets is not None:
            loss = (constant.targets(one.data) - constant.mean.to(device)).square().mean().float()
        elif constant.paired and constant.constants is not None and self._objective is not None:
            with torch.no_grad():
                loss = self._objective.loss(one, constant.constants).detach().float()
        else:
            return torch.tensor(constant.baseline_loss, device=device)
        return loss + constant.offset


def _recognised(
    contract: Contract, module: nn.Module, ones: Sequence[UserBatch], outlet: Outlet
) -> tuple[Targets, int] | None:
    """Targets and classes of a loss that is a plain mean cross-entropy: it has the value of one at made-up logits."""
    if not puts_out_one(contract, outlet):
        return None
    objective = Objective(contract, module, outlet)
    for axis in (-1, 1):
        for targets in classes_of(ones[0].data):
            if _agrees(objective, ones[:2], targets, axis):
                return targets, objective.shapes(ones[0])[0][axis]
    return None


def _agrees(objective: Objective, ones: Sequence[UserBatch], targets: Targets, axis: int) -> bool:
    shape = objective.shapes(ones[0])[0]
    if len(shape) < 2 or (axis == 1 and len(shape) < 3):
        return False
    logits = made_up_logits(shape[axis])
    kind: Kind = "last" if axis == -1 else "second"
    try:
        for one in ones:
            constants = Constants(((kind, logits),), (0,) * len(objective.outlet.slots))
            with torch.no_grad():
                theirs = float(objective.loss(one, constants))
            ours = float(cross_entropy(targets(one.data), logits.log_softmax(0).to(targets(one.data).device)))
            if not abs(theirs - ours) <= PLAIN * abs(ours):
                return False
    except (UserCodeError, IndexError, RuntimeError):
        return False
    return True
