"""A module copied or stored with all that hangs on it: optimizers, averages, counters, generators.

torch's optimizers leave what a subclass keeps beside their groups and state behind when they are copied: LBFGS its list
of parameters, SAM the optimizer that it wraps.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from stresstest.measurements.journal import NotKeptError
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model import copies


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, gradients too; a `UserCodeError` where something on the module cannot be copied."""
    with user_code("a copy of the model"), _whole_optimizers():
        try:
            twin = copies.copied(module)
        except RuntimeError as error:
            if "deepcopy" not in str(error):
                raise
            raise UserCodeError(
                "fails: it keeps a tensor that has a gradient's graph; keep numbers (.item()) or .detach() it"
            ) from None
    return _with_gradients(module, twin)


def branched(module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> tuple[nn.Module, list[Optimizer]]:
    """A module and the optimizers that train it once more, which go on as they would.

    What a forward pass has left on the module, attention weights or a loss, comes without its graph.
    """
    memo: dict[int, Any] = {}
    with user_code("a copy of the model"), _whole_optimizers(), _without_graphs():
        twin = _with_gradients(module, copies.copied(module, memo))
        return twin, copy.deepcopy(list(optimizers), memo)


def _with_gradients(module: nn.Module, twin: nn.Module) -> nn.Module:
    for mine, other in zip(module.parameters(), twin.parameters(), strict=True):
        other.grad = None if mine.grad is None else mine.grad.clone()
    return twin


@contextmanager
def _without_graphs() -> Iterator[None]:
    """Here a tensor that was computed can be copied too, which torch refuses."""
    original = Tensor.__deepcopy__

    def of(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        found: Tensor = original(tensor if _is_leaf(tensor) else tensor.data, memo)  # type: ignore[no-untyped-call]
        return found

    Tensor.__deepcopy__ = of  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.__deepcopy__ = original  # type: ignore[method-assign]


def stored(module: nn.Module) -> bytes:
    """All of a module, for `from_stored`; a `NotKeptError` where a part of it cannot be written down."""
    twin = copied(module)  # whose parameters are no views of a matrix, which would be written with each
    file = io.BytesIO()
    try:
        _Pickler(file).dump((twin, [parameter.grad for parameter in twin.parameters()]))
    except Exception as error:  # whatever the parts of a foreign module raise: lambdas, files, locks
        raise NotKeptError(str(error)) from None
    return file.getvalue()


def from_stored(content: bytes) -> nn.Module:
    """The module that was `stored`."""
    module, gradients = pickle.loads(content)
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        parameter.grad = gradient
    found: nn.Module = module
    return found


@contextmanager
def _whole_optimizers() -> Iterator[None]:
    """Here a copy of an optimizer has all that the optimizer has."""
    Optimizer.__deepcopy__ = _copied_optimizer  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del Optimizer.__deepcopy__  # type: ignore[attr-defined]


def _is_leaf(tensor: Tensor) -> bool:
    try:
        return tensor.is_leaf
    except RuntimeError:  # a view that was made without gradients, and its base changed with them: HeavyBall's SOAP
        return False


def _copied_optimizer(optimizer: Optimizer, memo: dict[int, Any]) -> Optimizer:
    twin = object.__new__(type(optimizer))
    memo[id(optimizer)] = twin
    twin.__dict__.update(copy.deepcopy(_all_of(optimizer), memo))
    return twin


def _all_of(optimizer: Optimizer) -> Mapping[str, Any]:
    """Its attributes, but for the function that a scheduler has put in the place of its step, which is bound to it."""
    return {name: value for name, value in vars(optimizer).items() if name != "step"}


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, Optimizer):
            return object.__new__, (type(thing),), dict(_all_of(thing))
        return NotImplemented
