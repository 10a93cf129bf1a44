"""How shocks are planned and trained: the boundary of one seed, then each shock of every seed beside its twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from stresstest.errors import ConfigError
from stresstest.experiments.plan import Plan, canonical, make_plan, no_more
from stresstest.experiments.shock.arm import Arm
from stresstest.experiments.shock.checks import check_shocks
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.experiments.sizes.models import check_growth, name_of
from stresstest.experiments.sizes.path import AXES, NAMES
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.boundary import measure_boundary
from stresstest.results.records import Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import RunStore
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model
from stresstest.user_model.preflight import Preflight, preflight

# What decides which shocks there are, and not what becomes of one.
_WHICH = frozenset({"depth", "shock", "guard", "peak_lr", "lr_share"})


def plan(spec: ShockSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    if is_user_model(spec.model):
        check_growth(spec)
    first = spec.places[0] if spec.path else {}
    spec = canonical(spec.model_copy(update=first), sweeps_depth="depth" in spec.path)
    peak, search = spec.peak_lr, {name: getattr(spec, name) for name in ("shock", "guard", "lr_share", "peak_lr")}
    places = [
        (depth, {**size, **point})
        for depth, size in spec.sizes
        for point in ([{}] if peak is None else [_point(*pair, peak) for pair in _pairs(spec)])
    ]
    more = no_more if peak is not None else refine
    listed = {name for name, axis in AXES.items() if axis in spec.path}
    not_in_key = frozenset({*_WHICH, *listed, *spec.path})
    depths = [places[0][0]]
    made = make_plan(
        "shock", spec, depths, not_in_key, measure_shocks, refine=more, places=places, search=search, sized=of_size
    )
    if peak is None:
        made.cells[:] = [cell for cell in made.cells if cell.seed == spec.seeds[0]]
    check_shocks(made, spec)
    spec = spec.model_copy(update={"kernel": made.spec.kernel})  # as that of each cell
    return replace(made, together=_arm, owns=_seen(made, spec), ascending=bool(spec.path))


def of_size(spec: ShockSpec, depth: int, point: Mapping[str, Any]) -> ShockSpec:
    """The settings of a cell at its place of the path."""
    sized = {axis: point[NAMES[axis]] for axis in spec.path if NAMES[axis] in point}
    return spec.model_copy(update=sized | ({"depth": depth} if "depth" in spec.path else {})) if spec.path else spec


def _seen(made: Plan, spec: ShockSpec) -> dict[TrainingSpec, Preflight]:
    """What is seen of the user's model at each size."""
    found: dict[TrainingSpec, Preflight] = {}
    for depth, point in spec.sizes if made.own is not None and spec.path else []:
        sized = of_size(spec, depth, point)
        try:
            found[sized] = preflight(sized, [depth], made.device)
        except ConfigError as error:
            raise type(error)(f"{name_of(depth, point, spec)}: {error}") from None
    return found


def refine(plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
    """The cells of every variant whose boundary is known, at its share of that."""
    spec = plan.spec
    assert isinstance(spec, ShockSpec), "the plan of a shock"
    found = []
    for variant, (depth, size) in product(spec.variant, spec.sizes):
        stable = _boundary(variant, depth, size, cells)
        if stable is not None:
            points = [{**size, **_point(*pair, spec.lr_share * stable)} for pair in _pairs(spec)]
            found += [plan.cell(variant, depth, seed, point) for seed in spec.seeds for point in points]
    return found


def _boundary(variant: str, depth: int, size: Mapping[str, Any], cells: Sequence[Cell]) -> float | None:
    """The max_stable_lr of a variant and size; `None` where it is not known, or nothing trained."""
    for cell in cells:
        if (cell.variant, cell.depth, dict(cell.point)) == (variant, depth, dict(size)):
            return cell.metrics["max_stable_lr"].low if "max_stable_lr" in cell.metrics else None
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
