"""`stresstest warmup`: the loss over warm-up x peak LR, how much warm-up it needs, and a search for the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stresstest.engine.outcomes import Reference, Rules
from stresstest.engine.schedules import DECAYS, WARMUPS, schedule
from stresstest.experiments.arms import arm_rows, arms_of, map_points
from stresstest.experiments.plan import Plan, make_plan, no_more, spelled
from stresstest.experiments.sensitivity import clipped
from stresstest.experiments.warmup.best import search_rows
from stresstest.experiments.warmup.findings import warmup_findings
from stresstest.experiments.warmup.search import Search
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.measurements.base import KEPT_SCORES, Bench, CellPlan, Measurement
from stresstest.measurements.course import recipe
from stresstest.measurements.replica import Run
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Bracket, Cell, finite
from stresstest.results.summary import Reduced
from stresstest.specs.parsing import parse_choice

# What decides which settings are trained, and not what becomes of one.
_WHICH = frozenset(
    "depth optimizer warmup warmup_steps start_lr end_lr num_lrs map trials trials_at_once sampler search_seed".split()
)

# What decides which trials a search asks for, but how many: that is a total, which may grow.
_SEARCHED = "variant optimizer warmup warmup_steps start_lr end_lr trials_at_once sampler search_seed".split()


def plan(spec: WarmupSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    shapes = tuple(dict.fromkeys(parse_choice(text, WARMUPS).label for text in spec.warmup))
    decay = parse_choice(spec.decay, DECAYS).label
    spec = spelled(spec).model_copy(update={"warmup": shapes, "decay": decay})
    points = map_points(spec) if spec.map else []
    search = {name: getattr(spec, name) for name in _SEARCHED} if spec.trials else {}
    more = Search().refine if spec.trials else no_more
    return make_plan("warmup", spec, [spec.depth], _WHICH, measure_warmup, refine=more, points=points, search=search)


def measure_warmup(bench: Bench, spec: WarmupSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Train every cell through its schedule, all of them as one population."""
    trials = [(cell.seed, _lrs(spec, cell.point)) for cell in cells]
    return [of_run(run) for run in recipe(bench, trials)]


def reduce(spec: WarmupSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant, optimizer, shape and warm-up; one over all warm-ups; the best settings; what they say."""
    mapped = map_points(spec) if spec.map else []
    rows, trends = arm_rows(arms_of(spec, [cell for cell in cells if cell.point in mapped]))
    searches = search_rows(spec, cells)
    findings = warmup_findings(trends, rows, searches, cells, spec.model_dump(mode="json"), data)
    return Reduced(rows, trends, findings, searches)


def cap(reference: Reference, rules: Rules) -> float:
    """The loss of having learned nothing: that at initialisation, or chance, where that is far above it."""
    initial = reference.initial_loss
    far = reference.chance_loss + rules.far_above_chance * abs(reference.chance_loss)
    return initial if math.isfinite(initial) and initial <= far else reference.chance_loss


def _lrs(spec: WarmupSpec, where: Mapping[str, Any]) -> Any:
    return where["peak_lr"] * schedule(where["warmup"], where["warmup_steps"], spec.decay, spec.train_steps)


def of_run(run: Run) -> Measurement:
    """What is kept of a run through a schedule: its outcome, its loss, at most that of having learned nothing."""
    most = cap(run.detector.reference, run.detector.rules)
    loss = clipped(run.validation_loss, most)
    return Measurement(
        metrics={n: Bracket.exactly(s) for n, s in run.scores.items() if n in KEPT_SCORES},
        records={"recipe": run.record() | {"validation_loss": finite(run.validation_loss), "loss": loss, "cap": most}},
        curves={"lr": np.array(run.lrs), "loss": np.array(run.losses), "grad_norm": np.array(run.grad_norms)},
    )
