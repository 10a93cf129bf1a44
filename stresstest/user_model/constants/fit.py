"""Minimising the user's own loss over outputs that do not depend on the input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.batches import UserBatch, tensors
from stresstest.user_model.constants.outlet import Outlet, Outputs, Replay, loss_of, record, replay_of
from stresstest.user_model.contract import Contract

Kind = Literal["one", "last", "second", "element"]

_KINDS: tuple[Kind, ...] = ("last", "second", "element")
_MOST_ELEMENTS = 1 << 16  # of a constant by output element
_MANY = 1 << 16  # numbers that the outlet puts out for a batch: a third of the batches will do
_FEW_NUMBERS = 16  # of a constant that needs no shrinking
_WEIGHTS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of the pull towards a uniform constant, from strong to weak
_ZERO = 0.02  # of the baseline: a lowest loss below it is taken for 0
_FAR_OFF = 1e-6
_NOTHING = 1e-3  # of the loss at initialisation: less is nothing to learn
_ORDINARY = 100.0  # losses up to so many times smaller or larger than 1 suit torch's tolerances as they are
_ABSURD = 1e4  # times the loss at the start: no lowest value lies so far down
_STEPS = 15  # of L-BFGS for each weight
_NOT_DENSE = "view size is not compatible"  # what torch says of a view() of an expanded tensor


@dataclass(frozen=True)
class Constants:
    """Constants in place of the tensors that carry the loss: a kind each, and its numbers.

    `one` number for all, one for each place of the `last` or `second` axis, or one for each `element` but the batch.
    `of_slot` says which constant each tensor gets: a module that is called twice puts out the same, and one that a
    batch calls more often than the first did, too.
    """

    parts: tuple[tuple[Kind, Tensor], ...]
    of_slot: tuple[int, ...] = (0,)

    def filled(self, shapes: Sequence[torch.Size], like: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of these shapes."""
        return [
            _expanded(*self.parts[part], shape).to(other)
            for part, shape, other in zip(itertools.cycle(self.of_slot), shapes, like, strict=False)
        ]

    def with_values(self, values: Iterable[Tensor]) -> Constants:
        """Others of the same kinds."""
        return Constants(
            tuple((kind, value) for (kind, _), value in zip(self.parts, values, strict=True)), self.of_slot
        )


@dataclass(frozen=True)
class Fitted:
    """A minimum; see `Constant`. `cheap`: nothing of the model runs to have it on another batch."""

    constants: Constants
    baseline_loss: float
    chance_loss: float
    error: float
    learnable: float
    cheap: bool
    lowest: bool
    scatter: float  # standard error of the baseline by the luck of the batches, which pairing takes away

    @property
    def unsure(self) -> float:
        """What more batches would mend."""
        return max(self.error, self.scatter / 2.0)


class Objective:
    """The loss of a batch as a function of what the outlet puts out; the model runs once for each batch, or shape."""

    def __init__(self, contract: Contract, module: nn.Module, outlet: Outlet) -> None:
        self.outlet = outlet
        self._contract = contract
        self._module = module
        self._by_shape: dict[str, Outputs] = {}
        self._replays: dict[int, Replay] = {}
        self.differentiates = contract.differentiates
        self.cheap = True
        self.unit = 1.0  # of the loss: what it is divided by where steps, pulls and tolerances are not its own
        self.at_start = math.nan  # the loss of the first batch with the model's own outputs
        self._dense = False  # whether the loss takes outputs in memory of their own alone

    def loss(self, one: UserBatch, constants: Constants) -> Tensor:
        """The loss of a batch with constant outputs."""
        parts = self._outputs(one).parts(self.outlet)
        return self.of(one, constants.filled([part.shape for part in parts], parts))

    def of(self, one: UserBatch, parts: Sequence[Tensor]) -> Tensor:
        """The loss of a batch with these outputs."""
        if not self._dense:
            try:
                return self._of(one, parts)
            except UserCodeError as error:
                if _NOT_DENSE not in error.line:
                    raise
                self._dense = True
        return self._of(one, [part.contiguous() for part in parts])

    def _of(self, one: UserBatch, parts: Sequence[Tensor]) -> Tensor:
        outputs = self._outputs(one).replaced(self.outlet, parts)
        with user_code("the loss of constant outputs"):
            return loss_of(
                self._contract, self._module, one, self.outlet, outputs, self._replays.get(id(one), Replay())
            )

    def parts(self, one: UserBatch) -> list[Tensor]:
        """What the outlet puts out for a batch of this shape."""
        return self._outputs(one).parts(self.outlet)

    def shapes(self, one: UserBatch) -> list[torch.Size]:
        """The shapes of that."""
        return [part.shape for part in self.parts(one)]

    def keep(self, ones: Sequence[UserBatch]) -> None:
        """Let what runs before the outlet not run again for these batches; one of them tells whether anything does."""
        first = replay_of(self._contract, self._module, ones[0], self.outlet)
        self.cheap = not first.outputs and not first.reruns
        if first.outputs:
            others = {id(one): replay_of(self._contract, self._module, one, self.outlet) for one in ones[1:]}
            self._replays = {id(ones[0]): first, **others}

    def _outputs(self, one: UserBatch) -> Outputs:
        shape = str([(part.shape, part.dtype) for part in tensors(one.data)])
        if shape not in self._by_shape:
            with torch.no_grad():
                loss, self._by_shape[shape] = record(self._contract, self._module, one, self.outlet)
            self.at_start = float(loss) if math.isnan(self.at_start) else self.at_start
        return self._by_shape[shape]


def fit(objective: Objective, ones: Sequence[UserBatch]) -> Fitted | None:
    """The best constants of the kind that fresh batches like best; `None` where the loss has no lower end."""
    size = sum(shape.numel() for shape in objective.shapes(ones[0]))
    ones = ones[: len(ones) // 2] if size >= _MANY else ones
    objective.keep(ones)
    halves, fresh = (ones[0::3], ones[1::3]), ones[2::3]
    best: tuple[float, float, Constants] | None = None
    for kind in _KINDS:
        start = _start(objective, ones, kind)
        if start is not None and kind == "last":
            objective.unit = _unit(objective, ones[0], start)
        found = None if start is None else _fit_kind(objective, halves, fresh, start)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
    if best is None:
        return None
    baseline, error, constants = best
    lowest = -math.inf  # of a loss that differentiates the outputs: free ones have no derivative
    if not objective.differentiates:
        lowest = sum(lowest_loss(objective, one, constants) for one in fresh[:2]) / 2.0
    learnable = mean_loss(objective, fresh[:2], constants) - lowest
    return Fitted(
        constants,
        baseline,
        mean_loss(objective, fresh, _uniform(constants)),
        error,
        learnable if lowest > _ZERO * abs(baseline) else math.nan,
        objective.cheap,
        learnable <= _NOTHING * _scale(objective, baseline),
        _scatter(objective, fresh, constants),
    )


def _scale(objective: Objective, baseline: float) -> float:
    """By what is measured what can be learned: the loss at the start, unless that lies far off, as of huge outputs."""
    at_start = abs(objective.at_start)
    return at_start if objective.unit == 1.0 else min(at_start, max(abs(baseline), _FAR_OFF * at_start))


def _unit(objective: Objective, one: UserBatch, start: Constants) -> float:
    """The size of the loss, or of its gradient in the constants if that is more; 1 where it is ordinary, or nothing."""
    values = [value.detach().clone().requires_grad_() for _, value in start.parts]
    with torch.enable_grad():
        loss = objective.loss(one, start.with_values(values))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
    slope = math.sqrt(sum(float(value.grad.square().sum()) for value in values if value.grad is not None))
    size = max(abs(objective.at_start), slope)
    ordinary = not math.isfinite(size) or size == 0.0 or 1.0 / _ORDINARY < size < _ORDINARY
    return 1.0 if ordinary else size


def _fit_kind(
    objective: Objective,
    halves: tuple[Sequence[UserBatch], Sequence[UserBatch]],
    fresh: Sequence[UserBatch],
    start: Constants,
) -> tuple[float, float, Constants] | None:
    """(loss on fresh batches, its error, the constants) of one kind; `None` where the loss has no lower end."""
    chosen = _shrunk(objective, halves, start)
    if chosen is None:
        return None
    weight, by_half = chosen
    both = [*halves[0], *halves[1]]
    constants = _minimised(objective, both, by_half[0], weight)
    if _falls_without_end(objective, both, start, constants):
        return None
    first, second, found = (mean_loss(objective, fresh, c) for c in (*by_half, constants))
    return found, max(abs(first - second) / 2.0, 0.5 * (first + second) - found, 0.0), constants


def _start(objective: Objective, ones: Sequence[UserBatch], kind: Kind) -> Constants | None:
    """The mean of what the outlet puts out at initialisation; `None` where shapes allow no constant of this kind."""
    if kind != "last" and max(part.ndim for part in objective.parts(ones[0])) < 3:
        return None  # the same as by the last axis
    if kind != "last" and len({tuple(part.shape[1:] for part in objective.parts(one)[:1]) for one in ones}) > 1:
        return None  # later batches may have yet other shapes
    found: list[tuple[int, Kind, list[Tensor]]] = []
    slots = objective.outlet.slots
    alike = [parts for parts in map(objective.parts, ones[:4]) if len(parts) == len(slots)]
    for (_, leaf), slot in zip(slots, zip(*alike, strict=True), strict=bool(alike)):
        mine: Kind = "one" if slot[0].ndim == 1 else kind
        if kind == "second" and slot[0].ndim < 3:
            mine = "last"
        if kind == "element" and (len({part.shape[1:] for part in slot}) > 1 or slot[0][0].numel() > _MOST_ELEMENTS):
            return None
        found.append((leaf, mine, [_reduced(mine, part.float()) for part in slot]))
    return _tied(found, kind)


def _tied(found: Sequence[tuple[int, Kind, Sequence[Tensor]]], kind: Kind) -> Constants | None:
    """One constant for each leaf of the outlet's outputs, in whichever call: it does not know which call it is.

    Of calls whose outputs differ in shape it is one number.
    """
    shapes: dict[int, set[torch.Size]] = {}
    for leaf, _, means in found:
        shapes.setdefault(leaf, set()).update(mean.shape for mean in means)
    if kind != "last" and any(len(several) > 1 for several in shapes.values()):
        return None
    parts: dict[int, tuple[Kind, list[Tensor]]] = {}
    for leaf, mine, means in found:
        one = len(shapes[leaf]) > 1
        parts.setdefault(leaf, ("one" if one else mine, []))[1].extend(m.mean() if one else m for m in means)
    places = list(parts)
    averaged = tuple((mine, torch.stack(means).mean(0)) for mine, means in parts.values())
    return Constants(averaged, tuple(places.index(leaf) for leaf, _, _ in found))


def _reduced(kind: Kind, part: Tensor) -> Tensor:
    if kind == "one":
        return part.mean()
    if kind == "element":
        return part.mean(0)
    return part.movedim(1, -1).flatten(0, -2).mean(0) if kind == "second" else part.flatten(0, -2).mean(0)


def _expanded(kind: Kind, value: Tensor, shape: torch.Size) -> Tensor:
    if kind == "second":
        value = value.view(-1, *[1] * (len(shape) - 2))
    return value.expand(shape)


def _weights(start: Constants) -> tuple[float, ...]:
    return _WEIGHTS if sum(value.numel() for _, value in start.parts) > _FEW_NUMBERS else _WEIGHTS[-1:]


def _uniform(constants: Constants) -> Constants:
    """The same number for all that one tensor puts out."""
    return constants.with_values(value.mean().expand_as(value) for _, value in constants.parts)


def _shrunk(
    objective: Objective, halves: tuple[Sequence[UserBatch], Sequence[UserBatch]], start: Constants
) -> tuple[float, tuple[Constants, Constants]] | None:
    """The pull towards a uniform constant at which each half's minimum does best on the other, and both minima.

    From a strong pull to weaker ones, each minimum from the one before, as long as that helps; `None` where no
    minimum is finite.
    """
    best: tuple[float, float, tuple[Constants, Constants]] | None = None
    at = start, start
    for weight in _weights(start):
        at = _minimised(objective, halves[0], at[0], weight), _minimised(objective, halves[1], at[1], weight)
        crossed = mean_loss(objective, halves[1], at[0]) + mean_loss(objective, halves[0], at[1])
        if not math.isfinite(crossed) or (best is not None and crossed >= best[0]):
            break
        best = crossed, weight, at
    return None if best is None else (best[1], best[2])


def _minimised(objective: Objective, ones: Sequence[UserBatch], start: Constants, weight: float) -> Constants:
    values = [value.detach().clone().requires_grad_() for _, value in start.parts]
    optimizer = torch.optim.LBFGS(values, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        constants = start.with_values(values)
        pull = sum(((value - value.mean()).square().sum() for value in values), values[0].new_zeros(()))
        with torch.enable_grad():
            mean = torch.stack([objective.loss(one, constants) for one in ones]).mean()
            total = mean / objective.unit + 0.5 * weight * pull
        if not bool(total.isfinite()):
            raise UserCodeError("is not finite")
        total.backward()  # type: ignore[no-untyped-call]  # torch's
        return total

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's
    return start.with_values(value.detach() for value in values)


def _scatter(objective: Objective, ones: Sequence[UserBatch], constants: Constants) -> float:
    with torch.no_grad():
        losses = torch.stack([objective.loss(one, constants).double() for one in ones])
    return float(losses.std() / math.sqrt(len(ones)))


def mean_loss(objective: Objective, ones: Sequence[UserBatch], constants: Constants) -> float:
    """The mean loss of constant outputs over batches."""
    with torch.no_grad():
        return float(torch.stack([objective.loss(one, constants).double() for one in ones]).mean())


def _falls_without_end(objective: Objective, ones: Sequence[UserBatch], start: Constants, constants: Constants) -> bool:
    """Whether ten times as far the loss is lower by as much again: log-probabilities taken for logits, say."""
    try:
        first, there, beyond = (
            mean_loss(objective, ones, c) for c in (start, constants, _farther(start, constants, 10.0))
        )
    except UserCodeError:
        return False
    if first - there > _ABSURD * max(abs(first), abs(objective.at_start)):
        return True
    return beyond < there - 0.5 * abs(there - first) and beyond < there - 1e-3 * abs(there)


def _farther(start: Constants, constants: Constants, times: float) -> Constants:
    pairs = zip(start.parts, constants.parts, strict=True)
    return start.with_values(a + times * (b - a) for (_, a), (_, b) in pairs)


_SMALL = 1e-3  # of the loss's unit, which a model that starts far off makes large


def lowest_loss(objective: Objective, one: UserBatch, constants: Constants) -> float:
    """The lowest loss that any outputs have on a batch, as far as some steps of L-BFGS find it; above -inf.

    From the constants, and from what the model puts out: where all examples are alike, a contrastive loss is flat.
    """
    like = objective.parts(one)
    starts = constants.filled([part.shape for part in like], like), like
    return min(_descended(objective, one, start) for start in starts)


def _descended(objective: Objective, one: UserBatch, start: Sequence[Tensor]) -> float:
    parts = [part.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for part in start]
    optimizer = torch.optim.LBFGS(parts, max_iter=2 * _STEPS, line_search_fn="strong_wolfe")
    seen: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = objective.of(one, parts)
        seen.append(float(loss.detach()))
        if not math.isfinite(seen[-1]):
            raise UserCodeError("is not finite")
        small = 0.0 < abs(seen[0]) < _SMALL * objective.unit  # else its gradient is below what L-BFGS takes for none
        (loss / (abs(seen[0]) if small else objective.unit)).backward()  # type: ignore[no-untyped-call]  # torch's
        return loss

    try:
        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's
    except UserCodeError:  # beyond what the loss takes: what was seen until then counts
        pass
    return min((loss for loss in seen if math.isfinite(loss)), default=-math.inf)
