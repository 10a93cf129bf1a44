"""What a loop hands to the watch, checked: each refusal is one line."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresstest.errors import ConfigError
from stresstest.watch.copies import Stateful


def single(value: float | Tensor, what: str) -> float | Tensor:
    """A number, wherever it lies; `what` it is, as "loss"."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ConfigError(
                f"watch: the {what} must be one number, not a tensor of shape {list(value.shape)}: take its mean"
            )
        if value.is_complex() or value.is_meta or value.layout != torch.strided:
            raise ConfigError(f"watch: the {what} must be a dense real tensor with data, not {_kind_of(value)}")
        return value.detach()
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ConfigError(f"watch: the {what} must be a number or a tensor of one, not {type(value).__name__}")
    size = getattr(value, "size", 1)
    if size != 1:
        raise ConfigError(f"watch: the {what} must be one number, not an array of {size}: take its mean")
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except TypeError:
        raise ConfigError(f"watch: the {what} must be a real number, not {type(value).__name__}") from None


def whole(step: object) -> int:
    """A step."""
    if isinstance(step, bool) or not isinstance(step, numbers.Integral):
        raise ConfigError(f"watch: step must be a whole number, not {step!r}")
    return int(step)


def as_list(optimizer: Any) -> list[Any]:
    """One optimizer, several, or none."""
    if optimizer is None:
        return []
    return list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]


def parts_of(
    model: nn.Module | None, optimizers: Sequence[Any], scaler: Any, also: Mapping[str, Stateful]
) -> dict[str, Stateful]:
    """What is copied, by its name in a checkpoint."""
    assert model is not None
    parts: dict[str, Stateful] = {"model": model}
    for i, optimizer in enumerate(optimizers):
        parts["optimizer" if i == 0 else f"optimizer_{i}"] = optimizer
    if scaler is not None:
        parts["scaler"] = scaler
    taken = sorted({*parts, "step", "watch"} & set(also))
    if taken:
        raise ConfigError(f"watch: also= has the name {taken[0]!r}, which is taken; give it another")
    for name, part in also.items():
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise ConfigError(
                f"watch: also= {name!r} must have state_dict and load_state_dict, which {type(part).__name__} has not"
            )
    return {**parts, **also}


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless a setting is one of its choices."""
    if value not in choices:
        raise ConfigError(f"watch: {name} must be one of {', '.join(choices)}, not {value!r}")


def check_steps(name: str, value: object) -> None:
    """Raise unless a setting is a count of steps."""
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"watch: {name} must be a whole number of steps, at least 1, not {value!r}")


def check_parts(model: nn.Module | None, optimizers: Sequence[Any], scaler: Any, checkpoint: str | Path | None) -> None:
    """Raise unless model, optimizers and scaler can be watched, and copied where that is asked."""
    if model is not None and not isinstance(model, nn.Module):
        raise ConfigError(f"watch: model must be a torch.nn.Module, not {type(model).__name__}")
    if model is not None and next(model.parameters(), None) is None:
        raise ConfigError("watch: the model has no parameters; call Watch after they are made, or leave model out")
    if model is not None and any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ConfigError("watch: the model has lazy layers; put a batch through it before you call Watch")
    for optimizer in optimizers:
        if isinstance(optimizer, type) or not hasattr(optimizer, "param_groups"):
            kind = optimizer.__name__ if isinstance(optimizer, type) else type(optimizer).__name__
            raise ConfigError(f"watch: optimizer must be a torch optimizer, not {kind}")
    if scaler is not None and not (hasattr(scaler, "is_enabled") and hasattr(scaler, "get_scale")):
        raise ConfigError(f"watch: scaler must be a GradScaler, not {type(scaler).__name__}")
    if checkpoint is None:
        return
    if model is None:
        raise ConfigError("watch: checkpoint needs model=, and optimizer= to go on from it")
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        raise ConfigError("watch: a sharded model (DTensor) is not copied; leave checkpoint out")


def _kind_of(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {str(value.layout).removeprefix('torch.')} on {value.device}"
