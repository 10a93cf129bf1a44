"""A stand-in for CUDA graphs on a CPU: what a capture would hold, done again with the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Tape(TorchDispatchMode):
    """Keeps each operation that torch does, with the tensors that it read and wrote.

    A capture holds the same: Python does not run when it is done again. A result goes to where it was the first time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: list[tuple[Tensor, Tensor]] = []
        self._done: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            raise AssertionError(f"{func} reads the device, which nothing in a capture may")
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | (kwargs or {})
        for argument in func._schema.arguments:
            if argument.name in UNDECLARED or (argument.alias_info is not None and argument.alias_info.is_write):
                written = [one for one in tree_flatten(given.get(argument.name))[0] if isinstance(one, Tensor)]
                self._before += [(tensor, tensor.clone()) for tensor in written]
        found = func(*args, **(kwargs or {}))
        self._done.append((func, args, kwargs or {}, tree_flatten(found)[0]))
        return found

    def undo(self) -> None:
        """Put back what was written over: a capture runs nothing."""
        with torch.inference_mode():
            for tensor, before in reversed(self._before):
                tensor.copy_(before)
        self._before.clear()

    def replay(self) -> None:
        """Do it all again."""
        with torch.inference_mode():
            for func, args, kwargs, places in self._done:
                found = tree_flatten(func(*args, **kwargs))[0]
                for place, value in zip(places, found, strict=True):
                    if isinstance(place, Tensor) and not _same(place, value):
                        place.copy_(value)


UNDECLARED = {"running_mean", "running_var"}  # written by batch norms, whose schemas do not say so
READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
}


def capture(work: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """As a graph is captured: nothing has changed after it."""
    tape = Tape()
    with tape:
        outputs = work()
    tape.undo()
    return tape.replay, outputs


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same numbers of the same memory: a view, or what was written in place."""
    at = (one.data_ptr(), one.shape, one.stride(), one.dtype)
    return at == (other.data_ptr(), other.shape, other.stride(), other.dtype)
