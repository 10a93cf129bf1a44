"""The dtype that the user's own model is trained in: float64 as it is, anything else in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError


def dtypes_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters' floating dtypes, sorted; a parameter without data is a `UserCodeError`."""
    found = set()
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise UserCodeError(
                f"parameter {name} is on the meta device and has no values; build the model without "
                "torch.device('meta'), or give it values: module.to_empty(device='cpu'), then initialise it"
            )
        if parameter.is_floating_point():
            found.add(str(parameter.dtype).removeprefix("torch."))
    return tuple(sorted(found))


def in_one_dtype(module: nn.Module) -> nn.Module:
    """The module itself, in float64 where it is that throughout, or else in float32."""
    return module if dtypes_of(module) == ("float64",) else module.float()


def is_cast(dtypes: tuple[str, ...]) -> bool:
    """Whether a model of these dtypes is trained in another."""
    return bool(dtypes) and dtypes not in (("float32",), ("float64",))


def cast_words(dtypes: tuple[str, ...]) -> str:
    """What is said of a model that is cast."""
    half = [name for name in ("bfloat16", "float16") if name in dtypes]
    more = f"; --dtype {half[0]} trains it with autocast over them" if half else ""
    return f"its parameters are {' and '.join(dtypes)}; parameters and batches are trained in float32{more}"


def in_float32(batch: Callable[..., Any]) -> Callable[..., Any]:
    """A `batch` function whose floating-point tensors are in float32."""

    @functools.wraps(batch)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        return _cast(batch(*args, **kwargs))

    return drawn


def _cast(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.to(torch.float32) if data.is_floating_point() else data
    if isinstance(data, Mapping):
        return {key: _cast(value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(_cast, data))
    if isinstance(data, list | tuple):
        return type(data)(map(_cast, data))
    return data
