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
    rows = []
    for variant, shock, guard in product(spec.variant, spec.shock, spec.guards):
        mine = [cell for cell in of(cells, variant, shock, guard) if cell.status == "done"]
        if mine:
            rows.append(_row(spec, mine, guard))
    return Reduced(rows, [], shock_findings(rows, cells, spec, data))


def of(cells: Sequence[Cell], variant: str, shock: str, guard: str = "") -> list[Cell]:
    """The cells of a variant, shock and guard."""
    return [
        cell
        for cell in cells
        if (cell.variant, cell.point.get("shock"), cell.point.get("guard", "")) == (variant, shock, guard)
    ]


def _row(spec: ShockSpec, cells: Sequence[Cell], guard: str) -> SummaryRow:
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    first = cells[0]
    return SummaryRow(
        variant=first.variant,
        depth=spec.depth,
        optimizer=spec.optimizer,
        metrics={
            name: summarise(name, {cell.seed: cell.metrics[name] for cell in cells if name in cell.metrics})
            for name in names
        },
        outcomes=count(cell.shock["outcome"] for cell in cells),
        point={
            "shock": first.point["shock"],
            **({"guard": guard} if spec.guard else {}),
            "peak_lr": first.point["peak_lr"],
        },
    )
