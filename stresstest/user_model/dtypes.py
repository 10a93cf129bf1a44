"""The dtypes of the user's own model, which it is trained in, and its copy in float32 for what needs more digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from stresstest.user_code import UserCodeError

_HALF = (torch.bfloat16, torch.float16)


def with_values(module: nn.Module) -> nn.Module:
    """The module itself; a parameter without data is a `UserCodeError`."""
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise UserCodeError(
                f"parameter {name} is on the meta device and has no values; build the model without "
                "torch.device('meta'), or give it values: module.to_empty(device='cpu'), then initialise it"
            )
    return module


@contextmanager
def advised(module: nn.Module) -> Iterator[None]:
    """A clash of dtypes in a model that is not float32 is raised with what to do about it."""
    try:
        yield
    except UserCodeError as error:
        wanted = name_of(input_dtype(module))
        if "dtype" not in error.line or not dtype_words(module):
            raise
        advice = f"; the model is trained in its own dtype: let batch() return its numbers in {wanted}"
        raise UserCodeError(error.line + advice, error.text) from None


def dtype_words(module: nn.Module) -> str:
    """The dtypes of the trainable parameters, those of most of them first; empty where all are float32."""
    found: Counter[torch.dtype] = Counter()
    for parameter in module.parameters():
        if parameter.requires_grad:
            found[parameter.dtype] += parameter.numel()
    return "" if set(found) == {torch.float32} else " and ".join(name_of(dtype) for dtype, _ in found.most_common())


def name_of(dtype: torch.dtype) -> str:
    """As torch calls it."""
    return str(dtype).removeprefix("torch.")


def input_dtype(module: nn.Module) -> torch.dtype:
    """The floating dtype of most of a model's numbers, frozen ones included: what a built-in input is given in."""
    found: Counter[torch.dtype] = Counter()
    for parameter in module.parameters():
        if parameter.is_floating_point() and not is_lazy(parameter):
            found[parameter.dtype] += parameter.numel()
    return found.most_common(1)[0][0] if found else torch.float32


def in_float32(module: nn.Module) -> nn.Module:
    """The module itself, what it has in half precision now in float32."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dtype in _HALF:
                tensor.data = tensor.data.float()
    return module


def cast(data: Any, dtype: torch.dtype, only: tuple[torch.dtype, ...] = _HALF) -> Any:
    """A batch whose tensors of the dtypes `only` are in another."""
    if isinstance(data, Tensor):
        return data.to(dtype) if data.dtype in only else data
    if isinstance(data, Mapping):
        return {key: cast(value, dtype, only) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(cast(value, dtype, only) for value in data))
    if isinstance(data, list | tuple):
        return type(data)(cast(value, dtype, only) for value in data)
    return data
