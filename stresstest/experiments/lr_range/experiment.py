"""`stresstest lr-range`: ramp the learning rate until the loss explodes, then check by holding it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.experiments.lr_range.findings import lr_range_findings
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan, make_plan, spelled
from stresstest.measurements.boundary import measure_boundary
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell
from stresstest.results.summary import Reduced, ranked_rows


def plan(spec: LrRangeSpec) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training."""
    spec = spelled(spec)
    return make_plan("lr-range", spec, [spec.depth], frozenset({"depth"}), measure_boundary)


def reduce(spec: LrRangeSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant, the strongest first, and what they say."""
    rows = ranked_rows(cells, spec.optimizer)
    return Reduced(rows, [], lr_range_findings(rows, cells, spec.model_dump(mode="json"), data))
