"""What the cells of a path come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.experiments.scale.path import NAMES
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, SummaryRow
from stresstest.results.summary import Reduced, depth_rows


def reduce(spec: ScaleSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant and size, the smallest first."""
    rows: list[SummaryRow] = []
    for variant in spec.variant:
        for size in spec.places:
            point = {NAMES[axis]: value for axis, value in size.items() if axis != "depth"}
            depth = size.get("depth", spec.depth)
            mine = [c for c in cells if (c.variant, c.depth) == (variant, depth) and dict(c.point) == point]
            rows += [row.model_copy(update={"point": point}) for row in depth_rows(mine, spec.optimizer)]
    return Reduced(rows, [], [])
