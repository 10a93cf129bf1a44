"""The buffers of a module, kept and put back, also where a forward pass makes them anew: caches, masks, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def buffer_values(module: nn.Module) -> dict[str, Tensor]:
    """A copy of each buffer, by name."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def put_back(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Let the buffers have these values, of whatever shape; a buffer that is not among them stays."""
    parameter = next(module.parameters(), None)
    for name, value in values.items():
        owner, last = _owner(module, name)
        buffer = owner._buffers.get(last)
        if buffer is not None and (buffer.shape, buffer.dtype) == (value.shape, value.dtype):
            buffer.copy_(value)
        else:  # a forward pass made it, or makes it anew
            near = buffer if buffer is not None else parameter
            owner._buffers[last] = value.to(near.device if near is not None else value.device, copy=True)


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Afterwards the buffers are the same tensors with the same values; those that were `None` are so again.

    One that did not exist at all stays: code that makes it once relies on it.
    """
    held = [(part._buffers, dict(part._buffers)) for part in module.modules()]
    values = [{name: None if b is None else b.clone() for name, b in before.items()} for _, before in held]
    yield
    for (there, before), kept in zip(held, values, strict=True):
        for name, buffer in before.items():
            if buffer is not None:
                with torch.no_grad():
                    buffer.copy_(kept[name])
            there[name] = buffer


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last
