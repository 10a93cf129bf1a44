"""How learning rates are planned and trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stresstest.experiments.plan import Plan, canonical, make_plan
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.course import recipe
from stresstest.measurements.scheduled import of_run
from stresstest.results.records import Bracket
from tests.experiments.toy.spec import LrPointsSpec


def plan(spec: LrPointsSpec) -> Plan:
    """One cell a learning rate and seed."""
    points = [{"peak_lr": lr} for lr in spec.lrs]
    return make_plan("lr-points", canonical(spec), [spec.depth], frozenset({"depth", "lrs"}), measure, points=points)


def measure(bench: Bench, spec: LrPointsSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Train every cell at its learning rate."""
    runs = recipe(bench, [(cell.seed, np.full(spec.train_steps, cell.point["peak_lr"])) for cell in cells])
    found = [of_run(run) for run in runs]
    for one in found:
        one.metrics = {"validation_loss": Bracket.exactly(one.records["recipe"]["loss"])}
    return found
