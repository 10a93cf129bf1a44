"""The loss of each batch with the outputs of another: what other inputs do as well was not learned from inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch, tensors
from stresstest.user_model.constants.outlet import Outlet, loss_of, record
from stresstest.user_model.constants.targets import TARGET_NAMES
from stresstest.user_model.contract import Contract
from stresstest.user_model.dataloader.batch_parts import with_entries
from stresstest.user_model.factory import seeded


def swapped_losses(
    contract: Contract, module: nn.Module, ones: Sequence[UserBatch], outlet: Outlet | None, at_start: bool = False
) -> tuple[list[float], list[float]] | None:
    """Of each batch the loss with its own outputs and with the next one's; `None` where the loss has no targets.

    Without an outlet the inputs are swapped, where a batch says which part of it they are. Batches of unequal shape
    are left out.
    """
    if contract.differentiates:
        return None  # outputs of other inputs have no derivative in these
    own: list[float] = []
    swapped: list[float] = []
    following: list[float] = []
    try:
        with torch.no_grad():
            for here, there in zip(ones, [*ones[1:], ones[0]], strict=True):
                pair = _swapped(contract, module, here, there, outlet)
                if pair is not None:
                    for values, value in zip((own, swapped, following), pair, strict=True):
                        values.append(float(value))
    except UserCodeError:
        return None
    same = all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(swapped, following, strict=True))
    if len(own) < 4 or (at_start and same):  # later a collapse looks the same
        return None
    return own, swapped


def _swapped(
    contract: Contract, module: nn.Module, here: UserBatch, there: UserBatch, outlet: Outlet | None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """(loss of this batch, with the next one's outputs, of the next batch)."""
    if outlet is not None:
        mine, own = record(contract, module, here, outlet)
        theirs, others = record(contract, module, there, outlet)
        if [p.shape for p in own.parts(outlet)] != [p.shape for p in others.parts(outlet)]:
            return None
        return mine, loss_of(contract, module, here, outlet, own.replaced(outlet, others.parts(outlet))), theirs
    mixed = _mixed(here.data, there.data)
    if mixed is None:
        return None
    losses = [_plain_loss(contract, module, replace(here, data=data)) for data in (here.data, mixed, there.data)]
    return losses[0], losses[1], losses[2]


def _plain_loss(contract: Contract, module: nn.Module, one: UserBatch) -> Tensor:
    with seeded(one.seed):
        return contract.loss(module, one.data)


def _mixed(here: object, there: object) -> object | None:
    """The targets of one batch with the inputs of another; `None` where it is not known which are which."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        names = [name for name in here if name in TARGET_NAMES]
        return with_entries(there, {name: here[name] for name in names}) if names and _alike(here, there) else None
    if isinstance(here, list | tuple) and isinstance(there, list | tuple) and len(here) == 2 and _alike(here, there):
        return type(there)((there[0], here[1])) if type(there) in (list, tuple) else (there[0], here[1])
    return None


def _alike(here: object, there: object) -> bool:
    return [part.shape for part in tensors(here)] == [part.shape for part in tensors(there)]
