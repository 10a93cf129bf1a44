"""What is asked of the user's own optimizer before a run: what follows the LR, and does the LR set the step?"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stresstest.engine.replicas import FIRST_LR
from stresstest.errors import ConfigError
from stresstest.specs.base import TrainingSpec
from stresstest.user_code import UserCodeError
from stresstest.user_model.arguments import as_written
from stresstest.user_model.bench import UserBench
from stresstest.user_model.dtypes import dtype_words
from stresstest.user_model.optimizers import built, configures, takes_lr, unheld
from stresstest.user_model.population import USER_OPTIMIZER
from stresstest.user_model.step.plain_loop import populate

_FEW, _MANY, _MORE = 1, 10, 2  # steps before the LR is doubled, and after: torch's ASGD takes an LR a step late
_SAME = 0.05  # a ratio this near 1 is that of an LR that does nothing
_IN_PROPORTION = 0.1  # relative: how far from 2 a ratio goes unmentioned
_VISIBLE = 50.0  # times the rounding of the parameters: a move that can be told from it
_TRIES, _FACTOR = 3, 16.0  # LRs to try for one that moves the parameters so far, and how far apart
_TRIED = (1e-5, 1e-4, 1e-3, 1e-2)  # LRs whose first update may round to nothing
_MOSTLY = 0.5  # of the parameters
_NOT_SETTINGS = ("params", "lr", "initial_lr")
_OF_A_CYCLE = ("max_lr", "min_lr")  # what OneCycleLR leaves in a group
_NOT_ATTRIBUTES = ("defaults", "state", "param_groups")
_NESTED = 4  # levels of a container that are compared


def optimizer_words(bench: UserBench, spec: TrainingSpec) -> str:
    """What optimizer trains, for the preflight's lines."""
    if bench.training.optimizer is not USER_OPTIMIZER:
        return ", ".join(spec.optimizers)
    factory = bench.model.factory
    if factory.plain_loop:
        return f"those of {factory.loss_words}"
    found = built(factory, bench.module(), FIRST_LR)
    names = " and ".join(type(optimizer).__name__ for optimizer in found)
    theirs = factory.optimizer_words
    if takes_lr(factory):
        return f"{names} from {theirs or 'optimizer(params, lr)'}, built anew for each held LR"
    own = factory.optimizer is not None and factory.step is None
    if own and theirs:
        return f"{names} from {theirs}: all its LRs are scaled, the first to the requested LR"
    where = "optimizer(params)" if own else "configure_optimizers()"
    more = "" if own else ", its schedulers are not used"
    return (
        f"{names} from {where}, which has no lr argument: all its LRs are scaled, the first to the requested LR{more}"
    )


def optimizer_notes(bench: UserBench, spec: TrainingSpec, name: str) -> list[str]:
    """Lines about the optimizer and the dtype.

    Raises `ConfigError` where a learning rate asked for would not be the one that trains.
    """
    notes = list(_about_dtypes(bench, spec, name))
    if bench.training.optimizer is USER_OPTIMIZER:
        notes += [] if bench.model.factory.plain_loop else _about_groups(bench, name)
        notes += _about_steps(bench, spec, name)
    elif not inspect.isclass(as_written(bench.model.factory.build)) and configures(
        type(bench.module())
    ):  # unknown before it is built
        notes.append(
            f"  warning: {name}: trained with {spec.optimizers[0]}; to use its configure_optimizers(), give "
            f"--optimizer own"
        )
    return notes


def _about_dtypes(bench: UserBench, spec: TrainingSpec, name: str) -> Iterator[str]:
    """In which dtypes it trains, and where updates round to nothing."""
    layout = bench.model.layout
    if torch.float16 in layout.dtypes and spec.dtype == "float16":
        raise ConfigError(
            f"{name}: its parameters are float16 already, and a loss scale needs float32 ones, as torch's GradScaler "
            "says; leave --dtype float16 out, or build the model in float32"
        )
    words = dtype_words(bench.module())
    if not words:
        return
    yield (
        f"  note: {name}: trains in its own dtype, {words}: parameters, gradients and optimizer state"
        + ("; theory and the check of the gradient take a float32 copy" if layout.rounds else "")
    )
    eps = bench.eps
    if torch.float16 in layout.dtypes and eps is not None and not torch.tensor(eps).half():
        yield f"  warning: {name}: the optimizer's eps, {eps:g}, is 0 in float16, and 0/0 is NaN; use eps=1e-4 or so"
    if min(d.itemsize for d in layout.dtypes) < torch.float32.itemsize and (stuck := _rounds_away(bench)):
        yield stuck


def _rounds_away(bench: UserBench) -> str:
    """Up to which LR the first updates round to nothing, in words."""
    found = ""
    for lr in _TRIED:
        population = bench.populate([0], [lr])
        before_P = population.theta_RP[0].clone()
        population.step(bench.batches.batch([0], 0), torch.full((1,), lr, device=bench.training.device))
        asked = population.grad_RP[0] != 0
        share = float(((population.theta_RP[0] == before_P) & asked).sum() / asked.sum().clamp(min=1))
        if share < _MOSTLY:
            break
        found = (
            f"  note: at LR {lr:g}, the first update of {share:.0%} of the parameters rounds to nothing, so such LRs "
            "train little; if you need them, keep the weights in float32 and use autocast (--dtype bfloat16)"
        )
    return found


def _about_groups(bench: UserBench, name: str) -> Iterator[str]:
    """Whose LR does not move with the one asked for, what moves with it, and which parameters are left out."""
    factory, module = bench.model.factory, bench.module()
    first = built(factory, module, FIRST_LR)
    if left := unheld(first, module):
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        yield (
            f"  warning: {name}: no optimizer holds {left[0]}{more}; add {'them' if more else 'it'} to an optimizer, "
            f"or freeze {'them' if more else 'it'}"
        )
    if not takes_lr(factory):
        return
    second = built(factory, bench.module(), 2.0 * FIRST_LR)
    fixed = bench.model.fixed_groups
    if all(fixed):
        raise ConfigError(
            f"{name}: optimizer(params, lr) sets the same LRs for lr {FIRST_LR:g} and {2 * FIRST_LR:g}; use its "
            "argument lr, or remove the argument, and the LRs are scaled"
        )
    groups = [group for optimizer in first for group in optimizer.param_groups]
    for place in (i for i, one in enumerate(fixed) if one):
        lr = float(groups[place]["lr"])
        yield f"  note: {name}: parameter group {place} keeps its own LR, {lr:g}, at every requested LR"
    if follows := _what_follows(first, second):
        yield (
            f"  note: {name}: besides the LR, the optimizer's {', '.join(follows)} depends on lr; trust the "
            f"hold, which builds the optimizer at each LR: the ramp builds it at {FIRST_LR:g} and scales its LR, "
            "which gives a rough bracket"
        )


def _what_follows(first: Sequence[torch.optim.Optimizer], second: Sequence[torch.optim.Optimizer]) -> list[str]:
    """Names of settings and attributes that differ between two optimizers built at different LRs."""
    found: list[str] = []
    for a, b in zip(first, second, strict=True):
        for ours, theirs in zip(a.param_groups, b.param_groups, strict=True):
            skipped = _NOT_SETTINGS + (_OF_A_CYCLE if "initial_lr" in ours and "min_lr" in ours else ())
            found += [key for key in ours if key not in skipped and not _same(ours[key], theirs.get(key))]
            lr, other = float(ours["lr"]), float(theirs["lr"])
            if lr != other and not math.isclose(other, 2.0 * lr, rel_tol=1e-6):
                found.append("an LR not proportional to lr")
        kept = {key: value for key, value in vars(a).items() if key not in _NOT_ATTRIBUTES and "_hooks" not in key}
        found += [key for key, value in kept.items() if not _same(value, vars(b).get(key))]
    return list(dict.fromkeys(found))


def _same(a: Any, b: Any, depth: int = 0) -> bool:
    """Whether two values are alike, as far as they are numbers, text, tensors or containers of these."""
    if depth > _NESTED or type(a) is not type(b):
        return depth > _NESTED
    if isinstance(a, Tensor):
        return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, bool | int | float | str):
        return bool(a == b) or a != a  # NaN
    if isinstance(a, torch.optim.Optimizer):
        return not _what_follows([a], [b])
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key], depth + 1) for key in a if key not in _NOT_SETTINGS)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y, depth + 1) for x, y in zip(a, b, strict=True))
    return True


@dataclass(frozen=True)
class Response:
    """How far twice `lr` moves the parameters beside `lr` itself, in two steps after 1 step and after 10.

    NaN where neither moves them, or they are no longer finite.
    """

    lr: float
    early: float
    late: float

    @property
    def ratio(self) -> float:
        """The one to speak of."""
        return self.late if math.isfinite(self.late) else self.early

    @property
    def unset(self) -> bool:
        """Whether the LR does nothing."""
        return abs(self.early - 1.0) <= _SAME and abs(self.late - 1.0) <= _SAME


def _about_steps(bench: UserBench, spec: TrainingSpec, name: str) -> Iterator[str]:
    largest = float(getattr(spec, "end_lr", None) or getattr(spec, "peak_lr", None) or FIRST_LR)
    smallest = min(float(getattr(spec, "start_lr", None) or FIRST_LR), largest)
    small, large = _small_response(bench, smallest, largest), _large_response(bench, largest)
    if small.unset and large.unset and bench.model.factory.plain_loop:
        raise ConfigError(
            f"{name}: {bench.model.factory.loss_words} moves the parameters as far at LR {small.lr:g} as at twice "
            "that, so it does not use its lr in every step; set it before each: "
            "for group in model.opt.param_groups: group['lr'] = lr"
        )
    if small.unset and large.unset:
        raise ConfigError(
            f"{name}: the LR does not set the optimizer's step: LR {small.lr:g} and twice that move the parameters "
            f"equally far from the same state, and so at {large.lr:g}; switch off what sets the step (Adafactor's "
            "relative_step), or give an optimizer(params, lr) whose lr sets it"
        )
    if large.unset:
        yield (
            f"  note: {name}: at LR {large.lr:g} the optimizer's step no longer depends on the LR, as if capped: twice "
            "that LR moves the parameters equally far, so results at such LRs say little about the LR"
        )
    if abs(small.ratio - 2.0) > 2.0 * _IN_PROPORTION:
        yield (
            f"  note: {name}: doubling the LR moves the parameters {small.ratio:.2g} times as far, not 2 times, after "
            f"{_MANY} steps at {small.lr:.2g}: the step is not proportional to the LR"
        )


def _small_response(bench: UserBench, smallest: float, largest: float) -> Response:
    """At the smallest LR that moves the parameters visibly, of a few."""
    lr = smallest
    for _ in range(_TRIES - 1):
        start, *_, end = _trained(bench, lr, [1.0] * (_FEW + _MORE), (_FEW,))
        noise = torch.finfo(start.dtype).eps * start.norm()
        if bool((end - start).norm() > _VISIBLE * noise) or lr * _FACTOR > largest:
            break
        lr *= _FACTOR
    return _response(bench, lr)


def _large_response(bench: UserBench, lr: float) -> Response:
    """At the largest LR; where it breaks the optimizer itself, nothing is known."""
    try:
        return _response(bench, lr)
    except UserCodeError:
        return Response(lr, math.nan, math.nan)


def _response(bench: UserBench, lr: float) -> Response:
    """Replayed from scratch for each question, which gives the same state to the bit."""
    marks = (_FEW, _FEW + _MORE, _MANY)
    a, b, c, d = _trained(bench, lr, [1.0] * (_MANY + _MORE), marks)
    early = _trained(bench, lr, [1.0] * _FEW + [2.0] * _MORE, ())[-1]
    late = _trained(bench, lr, [1.0] * _MANY + [2.0] * _MORE, ())[-1]
    return Response(lr, _ratio(early - a, b - a), _ratio(late - c, d - c))


def _trained(bench: UserBench, lr: float, factors: Sequence[float], marks: Sequence[int]) -> list[Tensor]:
    """The parameters, [P], after each of so many steps `marks` and at the end, at `factors` times `lr`."""
    lr = float(np.float32(lr))  # as a population takes it
    population = populate(bench.model, [0], bench.training, [lr])
    found = []
    for step, factor in enumerate(factors):
        if step in marks:
            found.append(population.theta_RP[0].clone())
        lr_R = torch.full((1,), factor * lr, device=bench.training.device)
        population.step(bench.batches.batch([0], step), lr_R)
    return [*found, population.theta_RP[0].clone()]


def _ratio(doubled: Tensor, single: Tensor) -> float:
    over, under = float(doubled.norm()), float(single.norm())
    return over / under if under and math.isfinite(over / under) else math.nan
