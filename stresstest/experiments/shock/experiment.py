"""`stresstest shock` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Part, Resolution, Row
from stresstest.experiments.resolution import boundary_steps, exact
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.sizes.path import Size, named
from stresstest.reports.numbers import NO_DATA, size_name
from stresstest.results.records import Cell, Result

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document
    from stresstest.results.summary import Reduced

_DOSES = 4.5  # that a search asks for, as counted
_DAMAGE = ("peak_excess", "recovery_steps", "lasting_damage", "lasting_share")
_TOLERANCES = ("shock_tolerance", "break_tolerance")


class ShockTest(Experiment[ShockSpec]):
    """Twins with and without a disturbance: what a run survives."""

    name = "shock"
    spec = ShockSpec
    summary = "Disturb a run beside its undisturbed twin: what it survives, and how much of it."
    details = (
        "With no options: five variants, four shocks, three seeds, each at a quarter of its own boundary; about 4 "
        "minutes on 2 cores. `stresstest list shocks` has all shocks, `list guards` what might save a run."
    )
    source = ""
    varies = ("width", "batch_size", "seq_len", "shock", "guard")
    gated = ("shock_tolerance",)

    def plan(self, spec: ShockSpec) -> Plan:
        """The boundary of one seed a variant, and then a cell a variant, shock, guard and seed."""
        from stresstest.experiments.shock.measure import plan

        return plan(spec)

    def metrics(self, spec: ShockSpec) -> dict[str, Resolution]:
        """Of each shock; no tolerance where every shock has one dose alone."""
        searched = any(shock.only is None for shock in spec.shocks)
        return exact(_DAMAGE) | (dict.fromkeys(_TOLERANCES, Resolution(1.0)) if searched else {})

    def rows(self, spec: ShockSpec) -> list[Row]:
        """One a variant, shock and guard."""
        return [
            {"variant": variant, "optimizer": spec.optimizer, "depth": depth, **size, "shock": shock}
            | ({"guard": guard} if guard else {})
            for variant, (depth, size), shock, guard in product(spec.variant, spec.sizes, spec.shock, spec.guards)
        ]

    def cost(self, spec: ShockSpec) -> Cost:
        """The boundary of one seed, and the shocks of all."""
        each, number = self._cost_of(spec, {}), max(1, len(spec.places))
        return Cost(number * each.runs, number * each.steps, max(spec.path.get("batch_size", (spec.batch_size,))))

    def parts(self, spec: ShockSpec) -> list[Part[ShockSpec]]:
        """Each size along a path."""
        found = []
        for size in spec.places:
            sized = spec.model_copy(update=size)
            found.append(Part(size_name(named(size)), sized, sized.depth, self._cost_of(spec, size)))
        return found or super().parts(spec)

    def _cost_of(self, spec: ShockSpec, size: Size) -> Cost:
        runs = len(spec.seeds) * len(spec.shock) * len(spec.guards)
        boundary = 0 if spec.peak_lr is not None else boundary_steps(spec)
        steps = round(runs * self._shock_steps(spec)) + boundary
        return Cost(runs + (boundary > 0), steps, size.get("batch_size", spec.batch_size))

    def steps(self, spec: ShockSpec, point: Mapping[str, Any]) -> float:
        """Its doses and its share of the twins; of a cell without a shock, those of a boundary."""
        return self._shock_steps(spec) if point.get("shock") else boundary_steps(spec)

    def _shock_steps(self, spec: ShockSpec) -> float:
        doses = sum(1.0 if shock.only is not None or shock.shock.dose.is_switch else _DOSES for shock in spec.shocks)
        twins = spec.after + (1 + spec.nulls) * spec.horizon
        return (doses * spec.horizon + twins) / len(spec.shock)

    def spread(self, spec: ShockSpec) -> float:
        """A search takes as many doses as it needs."""
        return 0.3

    def reduce(self, spec: ShockSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row a variant, shock and guard, and what they say."""
        from stresstest.experiments.shock.rows import reduce

        return reduce(spec, cells, data)

    def document(self, result: Result) -> Document:
        """What became of each at the standard dose, the tolerances, the curves beside their twins."""
        from stresstest.experiments.shock.document import document

        return document(result)

    def asks_for_more(self, spec: ShockSpec) -> str:
        """The shocks are planned once the boundary is known."""
        return "" if spec.peak_lr is not None else "a boundary that is not known yet (give --peak-lr)"
