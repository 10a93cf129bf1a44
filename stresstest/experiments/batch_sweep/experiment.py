"""`stresstest batch-sweep` as an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Resolution, Row
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.resolution import exact, grid_metrics
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, Result

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document
    from stresstest.results.summary import Reduced

_OVER_BATCHES = ("scaling_batch", "batch_lr_exponent")


class BatchSweep(Experiment[BatchSweepSpec]):
    """The largest stable LR, and the loss at equal tokens, against the batch size."""

    name = "batch-sweep"
    spec = BatchSweepSpec
    summary = "Grow the batch size at a fixed budget of tokens: up to which size does each optimizer scale?"
    details = (
        "With no options: AdamW and LAMB at batch sizes 32 to 2,048, six peak LRs with sqrt scaling, three seeds, half "
        "a million tokens per run."
    )
    source = "You et al. 2019 (LAMB)"
    varies = ("batch_size",)
    gated = ("max_stable_lr",)

    def plan(self, spec: BatchSweepSpec) -> Plan:
        """One cell an optimizer, batch size, peak LR and seed."""
        from stresstest.experiments.batch_sweep.measure import plan

        return plan(spec)

    def metrics(self, spec: BatchSweepSpec) -> dict[str, Resolution]:
        """Of each batch size, and over all of them."""
        return grid_metrics(spec) | exact(_OVER_BATCHES, over_all=True)

    def rows(self, spec: BatchSweepSpec) -> list[Row]:
        """One a batch size, and one over all of them."""
        found: list[Row] = []
        for variant, optimizer in product(spec.variant, spec.optimizers):
            at = {"variant": variant, "optimizer": optimizer}
            found += [*(at | {"depth": spec.depth, "batch_size": size} for size in spec.batch_sizes), at]
        return found

    def cost(self, spec: BatchSweepSpec) -> Cost:
        """Every optimizer at every batch size and peak LR, in steps of the largest batch."""
        runs = len(spec.seeds) * len(spec.optimizer) * spec.num_lrs * len(spec.batch_sizes)
        return Cost(runs, runs * spec.steps(max(spec.batch_sizes)), max(spec.batch_sizes))

    def steps(self, spec: BatchSweepSpec, point: Mapping[str, Any]) -> float:
        """Fewer, the larger the batch."""
        return float(spec.steps(point.get("batch_size", max(spec.batch_sizes))))

    def reduce(self, spec: BatchSweepSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row an optimizer and batch size, one over all sizes, and what they say."""
        from stresstest.experiments.batch_sweep.rows import reduce

        return reduce(spec, cells, data)

    def document(self, result: Result) -> Document:
        """Tables by batch size and over all."""
        from stresstest.experiments.batch_sweep.document import document

        return document(result)
