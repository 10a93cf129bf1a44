"""What the shocks of a run come to: a row a variant, shock and guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from stresstest.experiments.shock.findings import shock_findings
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, SummaryRow, count, summarise
from stresstest.results.summary import Reduced


def reduce(spec: ShockSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
    """One row a variant, shock and guard, in their order, and what they say."""
    done: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if cell.status == "done" and "shock" in cell.point:
            point = dict(cell.point)
            key = (cell.variant, cell.depth, point.pop("shock"), point.pop("guard", ""))
            point.pop("peak_lr")
            done.setdefault((*key, *point.items()), []).append(cell)
    keys = [
        (variant, depth, shock, guard, *size.items())
        for variant, (depth, size), shock, guard in product(spec.variant, spec.sizes, spec.shock, spec.guards)
    ]
    rows = [_row(spec, done[key]) for key in keys if key in done]
    return Reduced(rows, [], shock_findings(rows, cells, spec, data))


def _row(spec: ShockSpec, cells: Sequence[Cell]) -> SummaryRow:
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    return SummaryRow(
        variant=cells[0].variant,
        depth=cells[0].depth,
        optimizer=spec.optimizer,
        metrics={
            name: summarise(name, {cell.seed: cell.metrics[name] for cell in cells if name in cell.metrics})
            for name in names
        },
        outcomes=count(cell.shock["outcome"] for cell in cells),
        point=dict(cells[0].point),
    )
