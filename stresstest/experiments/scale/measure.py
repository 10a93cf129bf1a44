"""How a path of growing sizes is planned and trained: at each size the boundary, and the LR of the lowest loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stresstest.errors import ConfigError
from stresstest.experiments.plan import Place, Plan, canonical, check_memory, make_plan, resolve_device
from stresstest.experiments.scale.path import AXES, NAMES, Size, known_by, named
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.boundary import measure_boundary
from stresstest.specs.base import TrainingSpec, is_user_model
from stresstest.user_model.preflight import Preflight, preflight

_FEWEST_SIZES = 3  # for a law


def plan(spec: ScaleSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training.

    Sizes that do not fit the memory are left out, which the plan says.
    """
    spec = _canonical(spec)
    fitting, too_large = _that_fit(spec, [place_of(size, spec) for size in spec.places])
    places = [(depth, {**point, **known_by(each)}) for depth, point in fitting for each in spec.parametrization]
    not_in_key = frozenset({*AXES, *spec.path, "depth", "target", "parametrization"})
    made = make_plan("scale", spec, [places[0][0]], not_in_key, measure_sizes, sized=of_size, places=places)
    owns: dict[TrainingSpec, Preflight] = {}
    if made.own is not None:
        owns, larger = _tried(spec, places[1:], made.device)
        too_large = larger or too_large
        fit = {of_size(spec, *places[0]), *owns}
        made.cells[:] = [cell for cell in made.cells if made.spec_of(cell) in fit]
    left = {(cell.depth, *(value for value in cell.point.values() if isinstance(value, int))) for cell in made.cells}
    if too_large and len(left) < _FEWEST_SIZES:
        raise ConfigError(f"{len(left)} sizes of the path fit, and a law takes {_FEWEST_SIZES}: {too_large}")
    said = (f"{len(spec.places) - len(left)} sizes are left out: {too_large}",) if too_large else ()
    return replace(made, owns=owns, said=said, ascending=True)


def _canonical(spec: ScaleSpec) -> ScaleSpec:
    """At the smallest size, in every parametrization."""
    asked, found = spec.parametrization, spec
    for each in asked:
        first = spec.model_copy(update={**spec.places[0], "parametrization": each})
        found = canonical(first, sweeps_depth="depth" in spec.path)
    return found.model_copy(update={"parametrization": asked})


def _that_fit(spec: ScaleSpec, places: Sequence[Place]) -> tuple[list[Place], str]:
    """The places whose built-in models fit the memory, and why the next one does not."""
    if is_user_model(spec.model):
        return list(places), ""
    found: list[Place] = []
    device = resolve_device(spec.device)
    for depth, point in places:
        try:
            for variant in spec.variant:
                check_memory(of_size(spec, depth, point), variant, depth, ("train",), device)
        except ConfigError as error:
            if not found:
                raise
            return found, f"{name_of(depth, point, spec)}: {error}"
        found.append((depth, point))
    return found, ""


def _tried(spec: ScaleSpec, places: Sequence[Place], device: str) -> tuple[dict[TrainingSpec, Preflight], str]:
    """What is seen of the user's model at these places, up to one that does not fit the memory, and why."""
    found: dict[TrainingSpec, Preflight] = {}
    for depth, point in places:
        sized = of_size(spec, depth, point)
        try:
            seen = preflight(sized, [depth], device)
            for variant in spec.variant:
                check_memory(sized, variant, depth, ("train",), device, seen)
        except ConfigError as error:
            where = f"{name_of(depth, point, spec)}: {error}"
            if "memory" not in str(error) and "are free" not in str(error):
                raise type(error)(where) from None
            return found, where
        found[sized] = seen
    return found, ""


def name_of(depth: int, point: Mapping[str, Any], spec: ScaleSpec) -> str:
    """A size in words: "width 512, depth 8"."""
    size = ({"depth": depth} if "depth" in spec.path else {}) | dict(point)
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in size.items())


def of_size(spec: ScaleSpec, depth: int, point: Mapping[str, Any]) -> ScaleSpec:
    """The settings of a cell at its place of the path."""
    update: dict[str, Any] = {axis: point[name] for axis, name in NAMES.items() if name in point}
    update["parametrization"] = point.get("parametrization", "sp")
    return spec.model_copy(update=update | ({"depth": depth} if "depth" in spec.path else {}))


def place_of(size: Size, spec: ScaleSpec) -> Place:
    """Depth and point of a size."""
    point = named(size)
    return point.pop("depth", spec.depth), point


def measure_sizes(bench: Bench, spec: ScaleSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Ramp and hold at one size, on down to the LR of the lowest loss."""
    return measure_boundary(bench, spec, cells, best=True)
