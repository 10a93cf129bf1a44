"""The outlet of a model: the module through whose outputs alone it reaches its loss, and the loss of other outputs.

What a constant predictor would lose, and what a model would with the outputs of another batch, is asked of the
user's own loss: it runs as ever, but the module's forward returns what is put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from stresstest.user_model.batches import UserBatch
from stresstest.user_model.contract import Contract, plain_module
from stresstest.user_model.factory import seeded

_MOST_CANDIDATES = 8


@dataclass(frozen=True)
class Outlet:
    """A module by its `path` ("" is the model itself) and which tensors of its outputs carry the loss.

    `slots` are (call, leaf): the module may be called several times in one loss.
    """

    path: str
    slots: tuple[tuple[int, int], ...]


@dataclass
class Outputs:
    """What the outlet put out for one batch: a structure and its leaves for each call."""

    specs: list[TreeSpec]
    leaves: list[list[Any]]

    def parts(self, outlet: Outlet) -> list[Tensor]:
        """The tensors that carry the loss."""
        return [self.leaves[call][leaf] for call, leaf in self._slots(outlet)]

    def replaced(self, outlet: Outlet, parts: Sequence[Tensor]) -> list[Any]:
        """Outputs of the same structure with other tensors in the place of those that carry the loss, one a call."""
        leaves = [list(row) for row in self.leaves]
        for (call, leaf), part in zip(self._slots(outlet), parts, strict=True):
            leaves[call][leaf] = part
        return [tree_unflatten(row, spec) for row, spec in zip(leaves, self.specs, strict=True)]

    def _slots(self, outlet: Outlet) -> list[tuple[int, int]]:
        """Those of the outlet; of a batch with fewer or more calls, as the last of an epoch, those of its calls."""
        calls = len(self.leaves)
        if calls == 1 + max(call for call, _ in outlet.slots):
            return list(outlet.slots)
        first = [leaf for call, leaf in outlet.slots if call == outlet.slots[0][0]]
        return [(call, leaf) for call in range(calls) for leaf in first]


@dataclass
class Replay:
    """What other modules put out for one batch before the outlet ran, by path: they need not run again.

    `reruns`: some must, as what they put out depends on the outlet's.
    """

    outputs: dict[str, list[Any]] = field(default_factory=dict)
    reruns: bool = False


def find_outlets(contract: Contract, module: nn.Module, one: UserBatch, alone: bool = True) -> Iterator[Outlet]:
    """The outlets of a model, the outermost and last to run first; each costs two forward passes and a backward one.

    Not `alone`, the loss may depend on parameters by other ways too, as a learned temperature's.
    """
    calls, loss = _trace(contract, module, one)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for path, outputs in list(calls.items())[:_MOST_CANDIDATES]:
        found = _flat(outputs)
        wanted = [
            (call, leaf)
            for call, row in enumerate(found.leaves)
            for leaf, value in enumerate(row)
            if isinstance(value, Tensor) and value.requires_grad
        ]
        outlet = Outlet(path, tuple(wanted))
        parts = found.parts(outlet)
        if (
            parts
            and all(part.ndim for part in parts)
            and _carries_all(contract, module, one, outlet, found, loss, parameters, alone)
        ):
            yield outlet


def record(contract: Contract, module: nn.Module, one: UserBatch, outlet: Outlet) -> tuple[Tensor, Outputs]:
    """The loss of a batch and what the outlet put out for it."""
    seen: list[Any] = []
    where = plain_module(module).get_submodule(outlet.path)
    inner = where.forward

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.append(inner(*args, **kwargs))
        return seen[-1]

    with seeded(one.seed), forwarding(where, noting):
        loss = contract.loss(plain_module(module), one.data)
    return loss, _flat(seen)


def loss_of(
    contract: Contract,
    module: nn.Module,
    one: UserBatch,
    outlet: Outlet,
    outputs: Sequence[Any],
    replay: Replay = Replay(),
) -> Tensor:
    """The loss of a batch if the outlet put out these, one a call; what `replay` has of other modules stands."""
    model = plain_module(module)
    with ExitStack() as stack:
        stack.enter_context(seeded(one.seed))
        for path, stored in replay.outputs.items():
            stack.enter_context(forwarding(model.get_submodule(path), _in_turn(stored)))
        forward = _in_turn(outputs, connected=contract.differentiates)
        stack.enter_context(forwarding(model.get_submodule(outlet.path), forward))
        return contract.loss(model, one.data)


def replay_of(contract: Contract, module: nn.Module, one: UserBatch, outlet: Outlet) -> Replay:
    """What the modules that end before the outlet put out for a batch, of each the outermost that has parameters.

    Where the outlet is called several times, so are they; what they put out in between counts if it does not depend
    on the outlet.
    """
    calls, early = _calls_of_others(contract, module, one, outlet)
    if all(early[path] == len(calls[path]) for path in early):
        return Replay({path: calls[path] for path in early})
    other, _ = _calls_of_others(contract, module, one, outlet, changed=True)
    alike = {path: calls[path] for path in early if _alike(calls[path], other.get(path, []))}
    return Replay(alike, reruns=len(alike) < len(early))


def _calls_of_others(
    contract: Contract, module: nn.Module, one: UserBatch, outlet: Outlet, changed: bool = False
) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """What modules beside the outlet put out, by path; and of those that ended before it began, how often they had.

    `changed`: the outlet puts out something else.
    """
    model = plain_module(module)
    calls: dict[str, list[Any]] = {}
    early: dict[str, int] = {}
    open_paths: list[str] = []
    reached = False
    with ExitStack() as stack:

        def watch(path: str, part: nn.Module) -> None:
            inner = part.forward

            def noting(*args: Any, **kwargs: Any) -> Any:
                inside = any(_within(path, other) for other in open_paths)
                open_paths.append(path)
                found = inner(*args, **kwargs)
                open_paths.pop()
                if not inside:
                    calls.setdefault(path, []).append(_detached(found))
                    if not reached:
                        early[path] = len(calls[path])
                return found

            stack.enter_context(forwarding(part, noting))

        for path, part in model.named_modules():
            if (
                not _within(outlet.path, path)
                and not _within(path, outlet.path)
                and any(True for _ in part.parameters())
            ):
                watch(path, part)
        where = model.get_submodule(outlet.path)
        inner = where.forward

        def reaching(*args: Any, **kwargs: Any) -> Any:
            nonlocal reached
            reached = True
            found = inner(*args, **kwargs)
            return _halved(found) if changed else found

        stack.enter_context(forwarding(where, reaching))
        with seeded(one.seed), torch.no_grad():
            contract.loss(model, one.data)
    return calls, early


def _halved(output: Any) -> Any:
    leaves, spec = tree_flatten(output)
    return tree_unflatten([0.5 * x if isinstance(x, Tensor) and x.is_floating_point() else x for x in leaves], spec)


def _alike(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether two modules put out the same tensors in as many calls."""
    a, b = ([x for x in tree_flatten(list(each))[0] if isinstance(x, Tensor)] for each in (ours, theirs))
    return len(ours) == len(theirs) and len(a) == len(b) and all(map(torch.equal, a, b))


@contextmanager
def forwarding(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The module's forward is another function for a while."""
    had = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if had is None:
            del module.forward
        else:
            module.forward = had


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _in_turn(outputs: Sequence[Any], connected: bool = False) -> Callable[..., Any]:
    """A forward that returns these, one a call.

    `connected`: with a derivative of 0, of any order, in the inputs, for a loss that takes it.
    """
    waiting = iter(outputs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = next(waiting)
        if not connected:
            return output
        inputs = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor) and leaf.requires_grad]
        nothing = sum((0.0 * leaf.sin().sum() for leaf in inputs), 0.0)
        leaves, spec = tree_flatten(output)
        moved = [leaf + nothing if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf for leaf in leaves]
        return tree_unflatten(moved, spec)

    return forward


def _trace(contract: Contract, module: nn.Module, one: UserBatch) -> tuple[dict[str, list[Any]], float]:
    """What every module put out, by path, the last to end first (a module ends after its parts); and the loss."""
    model = plain_module(module)
    calls: dict[str, list[Any]] = {}

    def noting(path: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: Any, output: Any) -> None:
            calls[path] = [*calls.pop(path, []), output]

        return hook

    handles = [part.register_forward_hook(noting(path)) for path, part in model.named_modules()]
    try:
        with seeded(one.seed), torch.enable_grad():
            loss = float(contract.loss(model, one.data).detach())
    finally:
        for handle in handles:
            handle.remove()
    return dict(reversed(calls.items())), loss


def _flat(outputs: Sequence[Any]) -> Outputs:
    flat = [tree_flatten(output) for output in outputs]
    return Outputs([spec for _, spec in flat], [leaves for leaves, _ in flat])


def _detached(output: Any) -> Any:
    leaves, spec = tree_flatten(output)
    return tree_unflatten([leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)


def _carries_all(
    contract: Contract,
    module: nn.Module,
    one: UserBatch,
    outlet: Outlet,
    found: Outputs,
    loss: float,
    parameters: Sequence[nn.Parameter],
    alone: bool,
) -> bool:
    """Whether the loss with the outlet's outputs put in by hand is the same, and, `alone`, knows no other way to a
    parameter: not by gradient, and not by value (as through a detached output).

    A loss that differentiates them is another without their derivative.
    """
    parts = [part.detach().clone().requires_grad_() for part in found.parts(outlet)]
    try:
        with torch.enable_grad():
            again = loss_of(contract, module, one, outlet, found.replaced(outlet, parts))
            if not again.requires_grad:
                return False
            grads = torch.autograd.grad(again, [*parts, *parameters], allow_unused=True)
    except Exception:  # whatever the user's code says of outputs that are not its own
        return False
    ours, others = grads[: len(parts)], grads[len(parts) :]
    close = contract.differentiates or abs(float(again.detach()) - loss) <= 1e-4 * abs(loss) + 1e-12
    carries = contract.differentiates or any(g is not None for g in ours)  # an energy's own level may not matter
    if not (close and carries):
        return False
    if not alone:
        return not _other_ways(plain_module(module), outlet, parameters, others)
    moved = _with_other_weights(contract, module, one, outlet, found.replaced(outlet, parts), parameters)
    return all(g is None for g in others) and abs(moved - float(again.detach())) <= 1e-4 * abs(loss) + 1e-12


def _other_ways(
    model: nn.Module, outlet: Outlet, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> bool:
    """Whether a module beside the outlet brings inputs to the loss: one within or around it has weights alone."""
    reached = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    return any(
        id(parameter) in reached
        for path, part in model.named_modules()
        if not _within(outlet.path, path)
        for parameter in part.parameters(recurse=False)
    )


def _with_other_weights(
    contract: Contract,
    module: nn.Module,
    one: UserBatch,
    outlet: Outlet,
    outputs: Sequence[Any],
    parameters: Sequence[nn.Parameter],
) -> float:
    """The loss of these outputs where all weights are a little larger."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(1.05).add_(0.01)
        try:
            return float(loss_of(contract, module, one, outlet, outputs).detach())
        finally:
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
