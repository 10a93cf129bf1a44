"""How shocks are planned and trained: the boundary of one seed, then each shock of every seed beside its twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stresstest.experiments.plan import Plan, canonical, make_plan, no_more
from stresstest.experiments.shock.arm import Arm
from stresstest.experiments.shock.checks import check_shocks
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.boundary import measure_boundary
from stresstest.results.records import Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import RunStore

# What decides which shocks there are, and not what becomes of one.
_WHICH = frozenset({"depth", "shock", "guard", "peak_lr", "lr_share"})


def plan(spec: ShockSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    spec = canonical(spec)
    points = [] if spec.peak_lr is None else [_point(*pair, spec.peak_lr) for pair in _pairs(spec)]
    search = {"shock": spec.shock, "guard": spec.guard, "lr_share": spec.lr_share, "peak_lr": spec.peak_lr}
    more = no_more if spec.peak_lr is not None else refine
    points = points or [{}]
    made = make_plan("shock", spec, [spec.depth], _WHICH, measure_shocks, points=points, refine=more, search=search)
    if spec.peak_lr is None:
        made.cells[:] = [cell for cell in made.cells if cell.seed == spec.seeds[0]]
    check_shocks(made, spec)
    return replace(made, together=_arm)


def refine(plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
    """The cells of every variant whose boundary is known, at its share of that."""
    spec = plan.spec
    assert isinstance(spec, ShockSpec), "the plan of a shock"
    found = []
    for variant in spec.variant:
        peak = peak_lr(spec, variant, cells)
        if peak is not None:
            points = [_point(shock, guard, peak) for shock, guard in _pairs(spec)]
            found += [plan.cell(variant, spec.depth, seed, point) for seed in spec.seeds for point in points]
    return found


def peak_lr(spec: ShockSpec, variant: str, cells: Sequence[Cell]) -> float | None:
    """The learning rate that a variant trains at; `None` where its boundary is not known, or nothing trained."""
    if spec.peak_lr is not None:
        return spec.peak_lr
    for cell in cells:
        if cell.variant == variant and "shock" not in cell.point and "max_stable_lr" in cell.metrics:
            stable = cell.metrics["max_stable_lr"].low
            return None if stable is None else spec.lr_share * stable
    return None


def _pairs(spec: ShockSpec) -> list[tuple[str, str]]:
    return [(shock, guard) for guard in spec.guards for shock in spec.shock]


def _point(shock: str, guard: str, peak: float) -> dict[str, Any]:
    return {"shock": shock, **({"guard": guard} if guard else {}), "peak_lr": peak}


def _arm(cell: CellPlan) -> tuple[Any, ...]:
    """What the cells share that branch from one run."""
    return (cell.seed, cell.point.get("guard", ""), cell.point.get("peak_lr"))


def measure_shocks(bench: Bench, spec: ShockSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Each cell's shock at every dose that is asked for, beside the twin of its seed; or the boundary."""
    arms: dict[tuple[Any, ...], list[CellPlan]] = {}
    for cell in cells:
        arms.setdefault(_arm(cell), []).append(cell)
    found: dict[str, Measurement] = {}
    for (seed, guard, peak), mine in arms.items():
        if peak is None:
            found |= zip((cell.key for cell in mine), measure_boundary(bench, spec, mine), strict=True)
            continue
        arm = Arm(bench, spec, seed, guard, peak)
        found |= {cell.key: arm.measure(parse_shock(cell.point["shock"])) for cell in mine}
    return [found[cell.key] for cell in cells]
