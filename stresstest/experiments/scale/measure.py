"""How a path of growing sizes is planned and trained: at each size the boundary, and the LR of the lowest loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stresstest.errors import ConfigError, TooLargeError
from stresstest.experiments.plan import Place, Plan, canonical, check_memory, make_plan, resolve_device
from stresstest.experiments.scale.coords.measure import measure_coords
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.models import check_growth, name_of, place_of
from stresstest.experiments.sizes.path import AXES, FEWEST_SIZES, NAMES, known_by, named, parse_target
from stresstest.measurements.base import Bench, CellPlan, Measurement
from stresstest.measurements.boundary import measure_boundary
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model
from stresstest.user_model.preflight import Preflight, preflight


def plan(spec: ScaleSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training.

    Sizes that do not fit the memory are left out, which the plan says.
    """
    if is_user_model(spec.model):
        check_growth(spec)
    spec = _canonical(spec)
    fitting, too_large = _that_fit(spec, [place_of(size, spec) for size in spec.places])
    places = [(depth, {**point, **known_by(each)}) for depth, point in fitting for each in spec.parametrization]
    listed = {name for name, axis in AXES.items() if axis in spec.path}  # what does not grow is in the key, as empty
    not_in_key = frozenset({*listed, *spec.path, "depth", "target", "parametrization"})
    made = make_plan("scale", spec, [places[0][0]], not_in_key, measure_sizes, sized=of_size, places=places)
    spec = spec.model_copy(update={"kernel": made.spec.kernel})  # as that of each cell
    owns: dict[TrainingSpec, Preflight] = {}
    if made.own is not None:
        owns, too_large = _tried(spec, places, made.device, made.own)
        made.cells[:] = [cell for cell in made.cells if made.spec_of(cell) in owns]
    left = {(cell.depth, *(value for value in cell.point.values() if isinstance(value, int))) for cell in made.cells}
    if too_large and len(left) < FEWEST_SIZES:
        raise ConfigError(f"{too_large}: {len(left)} of the path's sizes fit, and a law takes {FEWEST_SIZES}")
    number = len(spec.places) - len(left)
    beyond = f", and {number - 1} larger with it" if number > 1 else ""
    said = (f"left out, as it does not fit: {too_large}{beyond}",) if too_large else ()
    return replace(made, owns=owns, said=said, ascending=True)


def _canonical(spec: ScaleSpec) -> ScaleSpec:
    """At the smallest size, in every parametrization."""
    asked, found = spec.parametrization, spec
    for each in asked:
        first = spec.model_copy(update={**spec.places[0], "parametrization": each})
        found = canonical(first, sweeps_depth="depth" in spec.path)
    target = named(parse_target(spec.target, list(spec.path))) if spec.target else {}
    spelt = ",".join(f"{name}={value}" for name, value in target.items())
    return found.model_copy(update={"parametrization": asked, "target": spelt})


def _that_fit(spec: ScaleSpec, places: Sequence[Place]) -> tuple[list[Place], str]:
    """The places whose built-in models fit the memory, and why the next one does not."""
    if is_user_model(spec.model):
        return list(places), ""
    device = resolve_device(spec.device)
    for number, (depth, point) in enumerate(places):
        try:
            for variant in spec.variant:
                check_memory(of_size(spec, depth, point), variant, depth, ("train",), device)
        except TooLargeError as error:
            if number == 0:
                raise TooLargeError(f"{name_of(depth, point, spec)}: {error}") from None
            return list(places[:number]), f"{name_of(depth, point, spec)} ({error.brief})"
    return list(places), ""


def _tried(
    spec: ScaleSpec, places: Sequence[Place], device: str, first: Preflight
) -> tuple[dict[TrainingSpec, Preflight], str]:
    """What is seen of the user's model at these places, up to one that does not fit the memory, and why.

    `first` is what was seen at the first one; a longer training is that of the same model.
    """
    found: dict[TrainingSpec, Preflight] = {}
    seen = {_as_long(of_size(spec, *places[0]), spec): first}
    for depth, point in places:
        sized = of_size(spec, depth, point)
        shape, name = _as_long(sized, spec), name_of(depth, point, spec)
        try:
            seen[shape] = seen.get(shape) or preflight(sized, [depth], device)
            for variant in spec.variant:
                check_memory(sized, variant, depth, ("train",), device, seen[shape])
        except TooLargeError as error:
            return found, f"{name} ({error.brief})"
        except ConfigError as error:
            raise type(error)(f"{name}: {error}") from None
        found[sized] = seen[shape]
    return found, ""


def _as_long(sized: ScaleSpec, spec: ScaleSpec) -> ScaleSpec:
    return sized.model_copy(update={"hold_steps": spec.hold_steps})


def of_size(spec: ScaleSpec, depth: int, point: Mapping[str, Any]) -> ScaleSpec:
    """The settings of a cell at its place of the path."""
    update: dict[str, Any] = {axis: point[name] for axis, name in NAMES.items() if name in point}
    update["parametrization"] = point.get("parametrization", "sp")
    return spec.model_copy(update=update | ({"depth": depth} if "depth" in spec.path else {}))


def measure_sizes(bench: Bench, spec: ScaleSpec, cells: Sequence[CellPlan]) -> list[Measurement]:
    """Ramp and hold at one size, on down to the LR of the lowest loss; or the coordinate check."""
    if spec.coords:
        return measure_coords(bench, spec, cells)
    return measure_boundary(bench, spec, cells, best=True)
