"""What a module carries from step to step beside its trainable parameters: buffers, and frozen copies it may move.

A forward pass may fill, resize or replace any of it: observers of quantisation, running statistics, an exponential
moving average of the weights, a momentum encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_MOST_FROZEN = 4  # times the trainable parameters: copies of a trained model are no more, a frozen base is


def leave_averages_alone(module: nn.Module) -> nn.Module:
    """The module itself, in which no running average of weights is trained."""
    for part in module.modules():
        if isinstance(part, AveragedModel):
            part.requires_grad_(False)
    return module


def carried(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all that a module carries, by name."""
    return {name: tensor.detach().clone() for name, tensor in _carries(module).items()}


def put_back(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Let the module carry these values again; a buffer that was not there before is none."""
    now = _carries(module)
    with torch.no_grad():
        for name, value in values.items():
            tensor = now.pop(name, None)
            if tensor is None:
                owner, _, own = name.rpartition(".")
                module.get_submodule(owner)._buffers[own] = value.clone()
            elif tensor.shape == value.shape:
                tensor.copy_(value)
            else:
                tensor.data = value.to(tensor.device, copy=True)
    for name in now:
        owner, _, own = name.rpartition(".")
        module.get_submodule(owner)._buffers[own] = None


@contextmanager
def kept(module: nn.Module) -> Iterator[None]:
    """Afterwards the module carries what it did before, under the names that it had, and so do its plain attributes.

    A cache is a buffer and a number beside it that says how much of it is filled: one without the other is wrong.
    """
    before = carried(module)
    parts = {path: part for path, part in module.named_modules() if not isinstance(part, torch.jit.ScriptModule)}
    names = {path: set(part._buffers) for path, part in parts.items()}
    plain = {path: _plain_attributes(part) for path, part in parts.items()}
    yield
    put_back(module, before)
    for path, part in parts.items():
        for name in set(part._buffers) - names[path]:
            del part._buffers[name]  # code that asks hasattr() makes it again
        for name in set(_plain_attributes(part)) - set(plain[path]):
            del vars(part)[name]
        vars(part).update(plain[path])


_TORCHS = frozenset(vars(nn.Module()))  # training, hooks, ...


def _plain_attributes(part: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(part).items() if name not in _TORCHS}


def _carries(module: nn.Module) -> dict[str, Tensor]:
    frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    few = sum(p.numel() for p in frozen.values()) <= _MOST_FROZEN * trainable
    return {**dict(module.named_buffers()), **(frozen if few else {})}
