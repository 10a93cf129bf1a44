"""How a race is planned and trained: every entrant at each peak LR of one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.engine.schedules import DECAYS, schedule
from stresstest.experiments.arms import grid_lrs, point
from stresstest.experiments.plan import Plan, canonical, make_plan
from stresstest.experiments.race.spec import RaceSpec
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.course import recipe
from stresstest.measurements.scheduled import of_run, progress
from stresstest.results.records import Bracket
from stresstest.specs.parsing import parse_choice

_WHICH = frozenset({"depth", "optimizer", "start_lr", "end_lr", "num_lrs", "warmup_steps", "target_loss"})


def plan(spec: RaceSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    spec = canonical(spec).model_copy(update={"decay": parse_choice(spec.decay, DECAYS).label})
    points = [
        point(optimizer, "linear", spec.warmup_steps, lr) for optimizer in spec.optimizer for lr in grid_lrs(spec)
    ]
    return make_plan("race", spec, [spec.depth], _WHICH, measure_race, points=points)


def measure_race(bench: Bench, spec: RaceSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Train every cell through its schedule, all of them as one population."""
    trials = [(cell.seed, _lrs(spec, cell.point)) for cell in cells]
    found = []
    for run in recipe(bench, trials):
        one = of_run(run)
        one.records["recipe"]["progress"] = progress(run)
        one.metrics["seconds_per_step"] = Bracket.exactly(run.seconds_per_step)
        found.append(one)
    return found


def _lrs(spec: RaceSpec, where: Mapping[str, Any]) -> Any:
    return where["peak_lr"] * schedule(where["warmup"], where["warmup_steps"], spec.decay, spec.train_steps)
