"""What the cells of a map and a search come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.experiments.warmup.best import search_rows
from stresstest.experiments.warmup.findings import warmup_findings
from stresstest.experiments.warmup.map import arm_rows, arms_of, map_points
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell
from stresstest.results.summary import Reduced

# What decides which settings are trained, and not what becomes of one.


def reduce(spec: WarmupSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant, optimizer, shape and warm-up; one over all warm-ups; the best settings; what they say."""
    mapped = map_points(spec) if spec.map else []
    rows, trends = arm_rows(arms_of(spec, [cell for cell in cells if cell.point in mapped]))
    searches = search_rows(spec, cells)
    findings = warmup_findings(trends, rows, searches, cells, spec.model_dump(mode="json"), data)
    return Reduced(rows, trends, findings, searches)
