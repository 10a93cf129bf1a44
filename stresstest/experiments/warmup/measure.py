"""How a map of warm-up x peak LR is planned and trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.engine.schedules import DECAYS, WARMUPS, schedule
from stresstest.experiments.plan import Plan, canonical, make_plan, no_more
from stresstest.experiments.warmup.map import map_points
from stresstest.experiments.warmup.search import Search
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.course import recipe
from stresstest.measurements.scheduled import of_run
from stresstest.specs.parsing import parse_choice

# What decides which settings are trained, and not what becomes of one.

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
    spec = canonical(spec).model_copy(update={"warmup": shapes, "decay": decay})
    points = map_points(spec) if spec.map else []
    search = {name: getattr(spec, name) for name in _SEARCHED} if spec.trials else {}
    more = Search().refine if spec.trials else no_more
    return make_plan("warmup", spec, [spec.depth], _WHICH, measure_warmup, refine=more, points=points, search=search)


def measure_warmup(bench: Bench, spec: WarmupSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Train every cell through its schedule, all of them as one population."""
    trials = [(cell.seed, _lrs(spec, cell.point)) for cell in cells]
    return [of_run(run) for run in recipe(bench, trials)]


def _lrs(spec: WarmupSpec, where: Mapping[str, Any]) -> Any:
    return where["peak_lr"] * schedule(where["warmup"], where["warmup_steps"], spec.decay, spec.train_steps)
