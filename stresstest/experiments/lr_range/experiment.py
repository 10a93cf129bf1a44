"""`stresstest lr-range` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Resolution, Row
from stresstest.experiments.lr_range.findings import lr_range_findings
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.resolution import HOLDS_SPREAD, boundary_steps, hold_metrics
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, Result
from stresstest.results.summary import Reduced, ranked_rows

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document


class LrRange(Experiment[LrRangeSpec]):
    """Ramp the learning rate until the loss explodes, then hold it."""

    name = "lr-range"
    spec = LrRangeSpec
    summary = "Ramp the learning rate every step until the loss explodes, then hold it to check."
    details = "With no options: five norm variants, three seeds, on generated text; about 2 minutes on 2 cores."
    source = "Smith 2017; Shleifer et al. 2021 (NormFormer), Fig. 5"
    varies = ()
    gated = ("max_stable_lr",)

    def plan(self, spec: LrRangeSpec) -> Plan:
        """One cell a variant and seed."""
        from stresstest.experiments.lr_range.measure import plan

        return plan(spec)

    def metrics(self, spec: LrRangeSpec) -> dict[str, Resolution]:
        """Those of ramp and hold."""
        return hold_metrics(spec)

    def rows(self, spec: LrRangeSpec) -> list[Row]:
        """One a variant."""
        pairs = product(spec.variant, spec.optimizers)
        return [{"variant": variant, "optimizer": optimizer, "depth": spec.depth} for variant, optimizer in pairs]

    def cost(self, spec: LrRangeSpec) -> Cost:
        """A ramp and its holds."""
        return Cost(len(spec.seeds), len(spec.seeds) * boundary_steps(spec), spec.batch_size)

    def spread(self, spec: LrRangeSpec) -> float:
        """A search takes as many holds as it needs."""
        return HOLDS_SPREAD

    def reduce(self, spec: LrRangeSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row a variant, the strongest first, and what they say."""
        rows = ranked_rows(cells, spec.optimizer)
        return Reduced(rows, [], lr_range_findings(rows, cells, spec.model_dump(mode="json"), data))

    def document(self, result: Result) -> Document:
        """A table of variants, and a chart of each."""
        from stresstest.experiments.lr_range.document import document

        return document(result)
