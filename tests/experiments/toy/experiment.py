"""`stresstest lr-points` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Resolution, Row
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, Result, SummaryRow, count, summarise
from stresstest.results.summary import Reduced
from tests.experiments.toy.findings import best
from tests.experiments.toy.spec import LrPointsSpec

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document


class LrPoints(Experiment[LrPointsSpec]):
    """The loss at a few learning rates."""

    name = "lr-points"
    spec = LrPointsSpec
    summary = "Train at a few learning rates: which one ends lowest?"
    details = "With no options: two learning rates, three seeds; seconds."
    varies = ("peak_lr",)
    gated = ("validation_loss",)

    def plan(self, spec: LrPointsSpec) -> Plan:
        """One cell a variant, learning rate and seed."""
        from tests.experiments.toy.measure import plan

        return plan(spec)

    def metrics(self, spec: LrPointsSpec) -> dict[str, Resolution]:
        """The loss."""
        return {"validation_loss": Resolution()}

    def rows(self, spec: LrPointsSpec) -> list[Row]:
        """One a variant and learning rate."""
        at = {"optimizer": spec.optimizer, "depth": spec.depth}
        return [at | {"variant": variant, "peak_lr": lr} for variant, lr in product(spec.variant, spec.lrs)]

    def cost(self, spec: LrPointsSpec) -> Cost:
        """Every learning rate with every seed."""
        runs = len(spec.lrs) * len(spec.seeds)
        return Cost(runs, runs * spec.train_steps, spec.batch_size)

    def reduce(self, spec: LrPointsSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row a variant and learning rate."""
        rows = []
        for variant, lr in product(spec.variant, spec.lrs):
            mine = [cell for cell in cells if cell.variant == variant and cell.point["peak_lr"] == lr]
            losses = summarise("validation_loss", {cell.seed: cell.metrics["validation_loss"] for cell in mine})
            rows.append(
                SummaryRow(
                    variant=variant,
                    depth=spec.depth,
                    optimizer=spec.optimizer,
                    metrics={"validation_loss": losses},
                    outcomes=count(cell.recipe["outcome"] for cell in mine),
                    point={"peak_lr": lr},
                )
            )
        return Reduced(rows, [], best(rows))

    def document(self, result: Result) -> Document:
        """A table."""
        from tests.experiments.toy.document import document

        return document(result)
