"""Whether a model that predicts the next token sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.constants.outlet import Outlet, find_outlets, record
from stresstest.user_model.dataloader.batch_parts import with_entries
from stresstest.user_model.population import UserModel

_SAME = 1e-3  # relative: what the order of sums may change


def sees_the_future(model: UserModel, one: UserBatch, outlet: Outlet | None, device: torch.device) -> str:
    """A sentence where the last token changes what is put out for earlier ones, of a model that predicts the next.

    Empty where it does not, or where nothing of this kind is predicted.
    """
    tokens = _tokens(one.data, model.factory.shifts_labels)
    if tokens is None:
        return ""
    changed = tokens.clone()
    changed[:, -1] = torch.where(tokens[:, -1] == tokens.min(), tokens.max(), tokens.min())
    if torch.equal(changed, tokens):
        return ""
    module = model.make(0).to(device)
    outlet = outlet or next(find_outlets(model.contract, module, one), None)
    if outlet is None or len(outlet.slots) != 1:
        return ""
    module.eval()
    with torch.no_grad():
        try:
            found = [
                record(model.contract, module, replace(one, data=data), outlet)[1].parts(outlet)[0]
                for data in (one.data, _with(one.data, changed))
            ]
        except UserCodeError:
            return ""
    return _said(found[0], found[1], tokens.shape[1])


def _said(before: Tensor, after: Tensor, length: int) -> str:
    if before.shape != after.shape or before.ndim != 3 or before.shape[1] != length:
        return ""
    moved = (after - before)[:, : length - 1].abs().amax((0, 2))
    seen = (moved > _SAME * float(before.abs().max())).nonzero().flatten().tolist()
    if not seen:
        return ""
    return (
        f"the model sees the tokens it has to predict: its output at position {seen[0]} changes with the token at "
        f"{length - 1}; add a causal mask (Hugging Face encoder: is_decoder=true), or give a loss_fn for its real task"
    )


def _tokens(data: Any, shifts_labels: bool) -> Tensor | None:
    """The tokens of a batch whose targets are the next ones."""
    if isinstance(data, Mapping):
        ids, labels = data.get("input_ids"), data.get("labels")
        if not (isinstance(ids, Tensor) and isinstance(labels, Tensor)) or ids.ndim != 2 or ids.shape != labels.shape:
            return None
        return ids if shifts_labels or torch.equal(ids, labels) else None
    if not isinstance(data, list | tuple) or len(data) != 2:
        return None
    x, y = data
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)) or x.is_floating_point() or x.ndim != 2:
        return None
    return x if x.shape == y.shape and x.shape[1] > 2 and torch.equal(x[:, 1:], y[:, :-1]) else None


def _with(data: Any, tokens: Tensor) -> Any:
    return with_entries(data, {"input_ids": tokens}) if isinstance(data, Mapping) else (tokens, data[1])
