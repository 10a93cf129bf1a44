"""A module and an optimizer once more: with weights, groups and functions of their own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn

from stresstest.user_code import UserCodeError

_HOOKS = "_hooks"  # how the names of a module's tables of hooks end


def copied(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy whose own functions, a patched forward or a hook, speak of the copy where they spoke of the module.

    `copy.deepcopy` leaves functions as they are, so that a wrapped forward would go on computing with the module.
    `memo` is deepcopy's: what else is copied with it speaks of the same copy.
    """
    memo = {} if memo is None else memo
    found = copy.deepcopy(module, memo)
    for part in found.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, FunctionType | MethodType):
                object.__setattr__(part, name, _rebound(value, memo))
            elif name.endswith(_HOOKS) and isinstance(value, dict):
                value.update({key: _rebound(hook, memo) for key, hook in value.items()})
    return found


def _rebound(value: Any, memo: dict[int, Any]) -> Any:
    """What a function holds on to, module by module replaced by its copy; anything else as it is."""
    if id(value) in memo and isinstance(value, nn.Module | torch.Tensor):
        return memo[id(value)]
    if isinstance(value, MethodType):
        return MethodType(_rebound(value.__func__, memo), _rebound(value.__self__, memo))
    if isinstance(value, FunctionType) and value.__closure__:
        return _with_cells(value, memo)
    return value


def _with_cells(function: FunctionType, memo: dict[int, Any]) -> FunctionType:
    if id(function) in memo:
        rebuilt: FunctionType = memo[id(function)]
        return rebuilt
    cells = tuple(CellType() for _ in function.__closure__ or ())
    found = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    found.__kwdefaults__ = function.__kwdefaults__
    memo[id(function)] = found  # first: it may hold on to itself
    memo.setdefault(id(memo), []).append(function)  # as deepcopy does, so that no other function gets its place
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        try:
            cell.cell_contents = _rebound(old.cell_contents, memo)
        except ValueError:  # still empty
            continue
    found.__dict__.update({key: _rebound(value, memo) for key, value in vars(function).items()})
    return found


def rebuilt(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], module: nn.Module, what: str
) -> torch.optim.Optimizer:
    """An optimizer of the same class and groups for another module; `names` has those of its parameters, by id.

    Raises `UserCodeError` where its class cannot be called so.
    """
    theirs = dict(module.named_parameters())
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        missing = [parameter for parameter in group["params"] if id(parameter) not in names]
        if missing:
            raise UserCodeError(f"{what} holds a parameter that is not the model's; build it of model.parameters()")
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        groups.append({"params": [theirs[names[id(parameter)]] for parameter in group["params"]], **options})
    kind = type(optimizer)
    settings = {key: value for key, value in optimizer.defaults.items() if key in _parameters(kind)}
    try:
        found = kind(groups, **settings)
    except Exception as error:
        raise UserCodeError(
            f"{what} is a {kind.__name__}, which cannot be built again from its groups "
            f"({type(error).__name__}: {error}); {_INSTEAD}"
        ) from None
    _check_alike(optimizer, found, what)
    return found


_INSTEAD = "give a function that makes it, optimizer(params, lr)"


def _parameters(kind: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters


def _check_alike(first: torch.optim.Optimizer, second: torch.optim.Optimizer, what: str) -> None:
    for ours, theirs in zip(first.param_groups, second.param_groups, strict=True):
        for key, value in ours.items():
            if key in ("params", "param_names"):
                continue
            other = theirs.get(key)
            if not _same(value, other):
                raise UserCodeError(
                    f"{what} is a {type(first).__name__}, whose setting {key} is lost when it is built again; "
                    f"{_INSTEAD}"
                )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)
