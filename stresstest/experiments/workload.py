"""What the cells of a plan ask for in steps, before and while they train: what a forecast reckons with."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stresstest.experiments.base import depths_of
from stresstest.experiments.plan import Plan, no_more
from stresstest.experiments.table import EXPERIMENTS
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Cell
from stresstest.runs.forecast import Kind, Work


def work_of(plan: Plan, cell: CellPlan) -> Work:
    """One cell as a forecast sees it."""
    experiment = EXPERIMENTS[plan.command]
    size = int(cell.point.get("batch_size", plan.spec.batch_size))
    kind = Kind(cell.variant, cell.depth, cell.optimizer(plan.spec), size, shape_of(plan, cell))
    place = json.dumps([cell.variant, cell.depth, dict(cell.point)])
    steps, spread = experiment.steps(plan.spec, cell.point), experiment.spread(plan.spec)
    return Work(cell.key, kind, place, steps, spread, plan.size_of(cell) if plan.ascending else "")


def works_of(plan: Plan, cells: Sequence[CellPlan]) -> list[Work]:
    """The same of many: those of one place differ in their keys alone."""
    found: list[Work] = []
    at: dict[tuple[str, int, str], Work] = {}
    for cell in cells:
        place = cell.variant, cell.depth, json.dumps(dict(cell.point)) if cell.point else ""
        if place not in at:
            at[place] = work_of(plan, cell)
        same = at[place]
        found.append(Work(cell.key, same.kind, same.place, same.steps, same.spread, same.size))
    return found


def shape_of(plan: Plan, cell: CellPlan) -> str:
    """The settings of its model that the plan varies, but for depth and batch size; empty without any."""
    mine, first = plan.spec_of(cell), plan.spec
    return " ".join(
        f"{name} {value}" for name in ("width", "seq_len") if (value := getattr(mine, name)) != getattr(first, name)
    )


def to_come(plan: Plan, known: Sequence[CellPlan]) -> list[Work]:
    """The cells that others will ask for as they end: how many, and where, is known beforehand, but not which."""
    if plan.refine is no_more:
        return []
    spec, experiment = plan.spec, EXPERIMENTS[plan.command]
    runs, found = experiment.cost(spec).runs, []
    for variant in spec.variant:
        for depth in depths_of(spec):
            missing = runs - sum(cell.variant == variant and cell.depth == depth for cell in known)
            kind = Kind(variant, depth, spec.optimizers[0], spec.batch_size)
            one = Work("", kind, f"{variant} {depth}", experiment.steps(spec, {}), experiment.spread(spec))
            found += [one] * max(0, missing)
    return found


def number_of_cells(*plans: Plan) -> str:
    """How many cells these plans have, and how many of them others will ask for, in words."""
    known, later = sum(len(plan.cells) for plan in plans), sum(len(to_come(plan, plan.cells)) for plan in plans)
    total = known + later
    text = f"{total} cell{'s' * (total > 1)}"
    return f"{text}, {later if known else 'all'} of them chosen as the run goes on," if later else text


def steps_taken(cell: Cell) -> int:
    """The steps that a cell's training took, of one replica."""
    parts = [cell.ramp, cell.recipe, cell.shock, *cell.hold]
    return sum(int(part.get("steps", 0)) for part in parts if part)
