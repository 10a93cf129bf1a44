"""What a model, its optimizer or its data cannot take: tried before any training, said in one line.

What shows in training alone makes a cell that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from stresstest.engine.guard import FEWEST_SEEN, Guard
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import DTYPES, SECOND_MOMENTS, Replicas
from stresstest.errors import ConfigError
from stresstest.experiments.plan import Plan
from stresstest.experiments.shock.batches import OtherData
from stresstest.experiments.shock.bits import BITS, places_of
from stresstest.experiments.shock.guards import GuardedTraining, parse_guard
from stresstest.experiments.shock.line import scene_of
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import ChosenShock
from stresstest.experiments.training import make_bench
from stresstest.measurements.base import Bench
from stresstest.registry import did_you_mean, nearest
from stresstest.tasks.task import Batch
from stresstest.user_code import UserCodeError, heard_once
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.bench import UserBench
from stresstest.user_model.population import USER_OPTIMIZER
from stresstest.user_model.preflight import examples_in

_TRIAL_LR = 1e-6
_TRIAL_STEPS = 2
_FEW = 8  # names that a line shows


@dataclass(frozen=True)
class Tried:
    """The run that is shocked, as far as it is needed: its bench, and a replica at its start."""

    plan: Plan
    spec: ShockSpec
    variant: str

    @cached_property
    def bench(self) -> Bench:
        """The bench of one variant."""
        cell = self.plan.cell(self.variant, self.spec.depth, self.spec.seeds[0])
        where = (self.spec, self.variant, self.spec.depth, self.spec.optimizer, self.plan.device)
        return make_bench(*where, constant=self.plan.constant_of(cell))

    @property
    def steps_itself(self) -> bool:
        """Whether the user's own code takes the whole step."""
        theirs = self.bench.training.optimizer is USER_OPTIMIZER
        return theirs and isinstance(self.bench, UserBench) and self.bench.model.factory.step is not None

    def population(self) -> Replicas[object]:
        """One replica."""
        return self.bench.populate([self.spec.seeds[0]], [_TRIAL_LR])


Check = Callable[[Tried, ChosenShock], None]  # raises `ConfigError` or `UserCodeError`


def check_shocks(plan: Plan, spec: ShockSpec) -> None:
    """Whether the model can take every shock and guard; a `ConfigError` says what it cannot."""
    with heard_once() if plan.own is not None else nullcontext():
        for variant in spec.variant:
            _check(Tried(plan, spec, variant))


def _check(tried: Tried) -> None:
    if tried.plan.own is not None:
        _check_branch(tried)
    for text in tried.spec.guard:
        _check_guard(tried, text, parse_guard(text).training)
    for shock in tried.spec.shocks:
        try:
            _CHECKS.get(shock.shock.name, _no_check)(tried, shock)
        except UserCodeError as error:
            raise ConfigError(f"shock {shock.label}: {error.line}") from None


def _check_branch(tried: Tried) -> None:
    """Whether the user's model can be copied in mid-training, as every twin is."""
    try:
        _trained(tried, 1).branch(0)
    except UserCodeError as error:
        raise ConfigError(
            f"{tried.spec.model}: {error.line}; each shock begins with a copy of the model: keep files, locks and "
            "connections elsewhere"
        ) from None


def _trained(tried: Tried, steps: int) -> Replicas[object]:
    """One replica after steps that move nothing."""
    population, lr_R = tried.population(), torch.full((1,), _TRIAL_LR, device=tried.bench.training.device)
    for step in range(steps):
        population.step(tried.bench.batches.batch([tried.spec.seeds[0]], step), lr_R)
    return population


def _no_check(tried: Tried, shock: ChosenShock) -> None:
    """Any model can take it."""


def _check_guard(tried: Tried, text: str, guard: GuardedTraining) -> None:
    name = tried.spec.optimizer.partition(":")[0]
    there = OPTIMIZERS[name].options if name in OPTIMIZERS else None
    if guard.options and there is None:
        raise ConfigError(f"guard {text}: works only with an optimizer of the table, e.g. adam; leave it out")
    lacks = [key for key in guard.options if there is not None and key not in there]
    if lacks:
        raise ConfigError(f"guard {text}: optimizer {name} has no {lacks[0]}; leave it out")
    if guard.skip:
        _check_window(tried.spec.after, text, Guard(**guard.skip))
    if (guard.skip is not None or guard.clip_norm is not None) and tried.steps_itself:
        raise ConfigError(f"guard {text}: {tried.spec.model} takes its steps itself; leave it out, or do it there")


def _check_window(after: int, text: str, guard: Guard) -> None:
    if guard.window < FEWEST_SEEN:
        raise ConfigError(f"guard {text}: so few steps do not tell what is ordinary; use window={FEWEST_SEEN} or more")
    if after < guard.needs:
        raise ConfigError(
            f"guard {text}: it has seen enough after {guard.needs} steps, and the shock comes after {after}; use after "
            f"{guard.needs} or a smaller window"
        )


def _check_tiny_batch(tried: Tried, shock: ChosenShock) -> None:
    size = int(shock.options["size"])
    batch = tried.bench.batches.batch([tried.spec.seeds[0]], tried.spec.after)
    there = batch.targets.shape[1] if isinstance(batch, Batch) else examples_in(batch[0].data)
    if there is not None and size >= there:
        raise ConfigError(f"shock {shock.label}: the run's batches have {there} examples; use a smaller size")
    _try_batch(tried, shock)


def _try_batch(tried: Tried, shock: ChosenShock) -> None:
    """Whether the user's model has a loss on the batch that it is given."""
    if not isinstance(tried.bench, UserBench):
        return
    population, after = tried.population(), tried.spec.after
    change = shock.at(shock.shock.dose.standard).batch
    assert change is not None, "of a shock that changes batches"
    population.evaluate(change(scene_of(tried.bench, population, tried.spec.seeds[0], after, "trial"), 0))


def _check_shift(tried: Tried, shock: ChosenShock) -> None:
    data, batches = str(shock.options["data"]), tried.bench.batches
    if not (isinstance(batches, UserBatches) and batches.own):
        if data == tried.spec.data:
            raise UserCodeError(f"the run trains on {data} as it is; give shift:data=SOURCE")
        try:
            OtherData(data).source(batches)
        except ConfigError as error:
            raise UserCodeError(str(error)) from None
    _try_batch(tried, shock)


def _check_lost_moments(tried: Tried, shock: ChosenShock) -> None:
    moment = str(shock.options["moment"])
    name = tried.spec.optimizer.partition(":")[0]
    if name in OPTIMIZERS:
        kept = ["second" if slot in SECOND_MOMENTS else "first" for slot in OPTIMIZERS[name].slots]
        if not kept:
            raise UserCodeError(f"optimizer {name} keeps no moments; leave it out, or use e.g. momentum")
        if moment not in ("all", *kept):
            raise UserCodeError(f"optimizer {name} keeps no {moment} moment; use moment={kept[0]}")
        return
    population = _trained(tried, _TRIAL_STEPS)
    state = shock.at(1.0).state
    assert state is not None, "what it changes"
    state(scene_of(tried.bench, population, tried.spec.seeds[0], _TRIAL_STEPS, "trial"))


def _check_bit_flip(tried: Tried, shock: ChosenShock) -> None:
    where, layer, bit = str(shock.options["where"]), str(shock.options["layer"]), int(shock.options["bit"])
    if where == "gradient" and tried.steps_itself:
        raise UserCodeError(f"{tried.spec.model} takes its gradient itself, out of reach; use where=weight")
    if where == "activation":
        if layer:
            _check_module(tried, layer)
    elif layer and not places_of(tried.bench.model, layer):
        layout: Any = tried.bench.model.layout
        names = [place.name for place in getattr(layout, "parameters", None) or layout.tensors()]
        raise UserCodeError(f"no parameter is of a layer '{layer}'{_there_are(layer, _layers(names))}")
    if bit >= 0:
        _check_bit(tried, bit, "activations" if where == "activation" else "weights")


def _check_module(tried: Tried, layer: str) -> None:
    if not isinstance(tried.bench, UserBench):
        raise UserCodeError("where=activation takes a layer only of a model of your own; leave layer out")
    known = [name for name, _ in tried.bench.module().named_modules() if name]
    if layer not in known:
        raise UserCodeError(f"the model has no part '{layer}'{_there_are(layer, known)}")


def _check_bit(tried: Tried, bit: int, what: str) -> None:
    dtypes = getattr(tried.bench.model.layout, "dtypes", (torch.float32,))
    if what == "activations":
        dtypes = (*dtypes, DTYPES[tried.spec.dtype])
    narrow = min(8 * dtype.itemsize for dtype in dtypes)
    if bit < BITS - narrow:
        raise UserCodeError(f"its {what} have {narrow} bits, and 31 is the sign; use a bit from {BITS - narrow} on")


def _there_are(layer: str, known: list[str]) -> str:
    """The nearest, or some of those that there are."""
    if nearest(layer, known) or len(known) <= _FEW:
        return did_you_mean(layer, known)
    return f"; there are {', '.join(known[:_FEW])} and {len(known) - _FEW} more"


def _layers(names: list[str]) -> list[str]:
    """Parameters, and the parts that their names begin with."""
    parts = [name.rsplit(".", k)[0] for name in names for k in range(name.count(".") + 1)]
    return list(dict.fromkeys(parts))


def _check_half_precision(tried: Tried, shock: ChosenShock) -> None:
    dtype = str(shock.options["dtype"])
    if tried.spec.dtype == dtype:
        raise UserCodeError(f"the run is in {dtype} as it is; use another dtype")
    if not isinstance(tried.bench, UserBench):
        return
    model = tried.bench.model
    if model.layout.dtypes != (torch.float32,):
        found = ", ".join(str(dtype).removeprefix("torch.") for dtype in model.layout.dtypes)
        raise UserCodeError(f"autocast is for weights in float32, and these are in {found}; leave it out")
    if model.contract.backward is not None or (tried.steps_itself and dtype == "float16"):
        raise UserCodeError(f"{tried.spec.model} takes its gradient itself, whose loss cannot be scaled; leave it out")


_CHECKS: dict[str, Check] = {
    "bad-batch": _try_batch,
    "tiny-batch": _check_tiny_batch,
    "shift": _check_shift,
    "lost-moments": _check_lost_moments,
    "bit-flip": _check_bit_flip,
    "half-precision": _check_half_precision,
}
