"""A batch of the user's with other tensors in the places of its own, and where its targets are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from stresstest.user_code import UserCodeError
from stresstest.user_model.constants.targets import TARGET_NAMES, Targets
from stresstest.user_model.micro_batches import MicroBatches

Change = Callable[[str, Tensor], Tensor]  # of a tensor and its name, which is empty in a list


def changed(data: Any, change: Change) -> Any:
    """The same batch of other tensors; one that stands in two places stays one. A `UserCodeError` if it has none."""
    made: dict[int, Tensor] = {}

    def one(name: str, tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = change(name, tensor)
        return made[id(tensor)]

    found = _rebuilt(data, "", one)
    if not made:
        raise UserCodeError(f"a batch is a {type(data).__name__}, in which no tensors were found")
    return found


def with_targets(data: Any, targets: Targets | None, change: Callable[[Tensor], Tensor]) -> Any:
    """The same batch of other targets: those that are known, or that are called so, or the second of a pair."""
    if isinstance(data, MicroBatches):
        return replace(data, parts=tuple(with_targets(part, targets, change) for part in data.parts))
    if isinstance(data, list | tuple) and data and all(isinstance(part, Mapping) for part in data):
        return type(data)(with_targets(part, targets, change) for part in data)
    place = _place(data) if targets is None else targets.place
    if isinstance(data, Mapping) and isinstance(data.get(place), Tensor):
        return _mapping(data, {**data, place: change(data[place])})
    if isinstance(data, list | tuple) and isinstance(place, int) and isinstance(data[place], Tensor):
        return _sequence(data, [change(part) if at == place else part for at, part in enumerate(data)])
    if isinstance(place, str) and isinstance(getattr(data, place, None), Tensor):
        return _attributes(data, {place: change(getattr(data, place))})
    raise UserCodeError("no targets are known in its batches")


def _place(data: Any) -> int | str | None:
    if isinstance(data, list | tuple) and not hasattr(data, "_fields"):
        return 1 if len(data) == 2 else None
    named = data if isinstance(data, Mapping) else [name for name in TARGET_NAMES if hasattr(data, name)]
    return next((name for name in TARGET_NAMES if name in named), None)


def _rebuilt(data: Any, name: str, change: Change) -> Any:
    if isinstance(data, Tensor):
        return change(name, data)
    if isinstance(data, MicroBatches):
        return replace(data, parts=tuple(_rebuilt(part, name, change) for part in data.parts))
    if isinstance(data, Mapping):
        return _mapping(data, {key: _rebuilt(value, str(key), change) for key, value in data.items()})
    if isinstance(data, list | tuple):
        names = getattr(data, "_fields", [name] * len(data))
        return _sequence(data, [_rebuilt(part, at, change) for at, part in zip(names, data, strict=True)])
    if is_dataclass(data) and not isinstance(data, type):
        held = {field.name: getattr(data, field.name) for field in fields(data) if field.init}
        return replace(data, **{at: _rebuilt(value, at, change) for at, value in held.items()})
    theirs = {at: value for at, value in getattr(data, "__dict__", {}).items() if isinstance(value, Tensor)}
    return _attributes(data, {at: change(at, value) for at, value in theirs.items()}) if theirs else data


def _mapping(data: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    if type(data) is dict or not isinstance(data, MutableMapping):
        return values
    found = copy.copy(data)  # a BatchEncoding is asked for its attributes
    found.update(values)
    return found


def _sequence(data: Any, parts: list[Any]) -> Any:
    return type(data)(*parts) if hasattr(data, "_fields") else type(data)(parts)


def _attributes(data: Any, values: Mapping[str, Any]) -> Any:
    if is_dataclass(data) and not isinstance(data, type):
        return replace(data, **values)
    if hasattr(data, "_fields"):
        return data._replace(**values)
    found = copy.copy(data)
    for name, value in values.items():
        setattr(found, name, value)
    return found
