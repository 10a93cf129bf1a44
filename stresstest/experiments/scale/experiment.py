"""`stresstest scale` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Part, Resolution, Row
from stresstest.experiments.resolution import HOLDS_SPREAD, boundary_steps, exact, hold_metrics
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import Size, named, shown_by
from stresstest.reports.numbers import NO_DATA, size_name
from stresstest.results.records import Cell, Result

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document
    from stresstest.results.summary import Reduced

_BEST_HOLDS = 3.2  # beside those of a boundary: on down to the LR of the lowest loss, as counted
_COORDS_STEPS = 15.0  # ten, and a look after each
_OF_THE_LAW = ("max_stable_lr_exponent", "best_lr_exponent")
_OF_THE_TARGET = ("max_stable_lr_at", "best_lr_at")


class Scale(Experiment[ScaleSpec]):
    """The boundary along growing sizes, its law, and a size that was not measured."""

    name = "scale"
    spec = ScaleSpec
    summary = "Measure the boundary along growing sizes and predict that of a size which you cannot afford to break."
    details = (
        "With no options: pre-ln and post-ln at widths 32 to 256, three seeds, and what width 512 will take; under 10 "
        "minutes on 2 cores. Each fit leaves out its largest sizes, predicts them, and says whether it was right. "
        "`--coords` checks in seconds which layer moves more in a wider model."
    )
    source = "Wortsman et al. 2023; Everett et al. 2024; Yang et al. 2022; Dey et al. 2025"
    varies = ("width", "batch_size", "seq_len", "train_steps", "parametrization")
    gated = ("max_stable_lr",)

    def plan(self, spec: ScaleSpec) -> Plan:
        """One cell a variant, size and seed."""
        from stresstest.experiments.scale.measure import plan

        return plan(spec)

    def metrics(self, spec: ScaleSpec) -> dict[str, Resolution]:
        """Of each size, and of the law over all of them, at the target."""
        if spec.coords:
            return exact(("change_exponent",), over_all=True)
        found = hold_metrics(spec) | exact(("best_lr",))
        return found | exact((*_OF_THE_TARGET, *_OF_THE_LAW), over_all=True)

    def rows(self, spec: ScaleSpec) -> list[Row]:
        """One a size, and one over all of them, which is about the target."""
        found: list[Row] = []
        for variant, optimizer, each in product(spec.variant, spec.optimizers, spec.parametrization):
            at = {"variant": variant, "optimizer": optimizer, **shown_by(each, spec.parametrization)}
            if spec.coords:
                found.append(at)
                continue
            for size in spec.places:
                found.append(at | {"depth": spec.depth} | named(size))
            found.append(at | {name: value for name, value in named(spec.beyond).items() if name != "depth"})
        return found

    def cost(self, spec: ScaleSpec) -> Cost:
        """Every size, in steps of one."""
        each = [self._cost_of(spec, size) for size in spec.places]
        return Cost(sum(one.runs for one in each), sum(one.steps for one in each), max(one.batch_size for one in each))

    def parts(self, spec: ScaleSpec) -> list[Part[ScaleSpec]]:
        """Each size, which is what a step costs by."""
        found = []
        for size in spec.places:
            sized = spec.model_copy(update={**size, "parametrization": spec.parametrization[0]})
            found.append(Part(size_name(named(size)), sized, sized.depth, self._cost_of(spec, size)))
        return found

    def _cost_of(self, spec: ScaleSpec, size: Size) -> Cost:
        runs = len(spec.seeds) * len(spec.parametrization)
        return Cost(runs, round(runs * self.steps(spec, named(size))), size.get("batch_size", spec.batch_size))

    def steps(self, spec: ScaleSpec, point: Mapping[str, Any]) -> float:
        """A ramp and its holds, which may be longer at a larger size; or the steps of a coordinate check."""
        if spec.coords:
            return _COORDS_STEPS
        sized = spec.model_copy(update={"hold_steps": point.get("train_steps", spec.hold_steps)})
        return boundary_steps(sized) + _BEST_HOLDS * sized.hold_steps

    def spread(self, spec: ScaleSpec) -> float:
        """A search takes as many holds as it needs."""
        return super().spread(spec) if spec.coords else HOLDS_SPREAD

    def reduce(self, spec: ScaleSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row a variant and size, one of its target, one over all sizes, and what they say."""
        from stresstest.experiments.scale.coords.rows import reduce as checked
        from stresstest.experiments.scale.rows import reduce

        if spec.coords:
            return checked(spec, cells)
        return reduce(spec, cells, data)

    def document(self, result: Result) -> Document:
        """The law's picture, sizes, exponents, and how far to trust them."""
        from stresstest.experiments.scale.coords.document import document as checked
        from stresstest.experiments.scale.document import document

        return checked(result) if result.spec.get("coords") else document(result)
