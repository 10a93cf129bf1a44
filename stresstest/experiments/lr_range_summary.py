"""Reduce the cells of an LR range test to one row a variant, strongest first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from stresstest.results import (
    Bracket,
    Cell,
    MetricSummary,
    SummaryRow,
    count,
    ratios,
    summarise,
)


def summary_rows(cells: Sequence[Cell], depth: int, optimizer: str) -> list[SummaryRow]:
    """One row for each variant that has a finished cell."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.status == "done":
            groups.setdefault(cell.variant, []).append(cell)
    rows = [_row(variant, group, depth, optimizer) for variant, group in groups.items()]
    rows.sort(key=_strength, reverse=True)
    weakest = next((row for row in reversed(rows) if stable_lr(row) is not None), None)
    return [_beside(row, weakest) for row in rows]


def stable_lr(row: SummaryRow) -> float | None:
    """The median max_stable_lr; `None` where no held LR trained."""
    metric = row.metrics.get("max_stable_lr")
    return None if metric is None else metric.median.low


def _row(variant: str, cells: Sequence[Cell], depth: int, optimizer: str) -> SummaryRow:
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    metrics = {
        name: summarise(name, {cell.seed: cell.metrics[name] for cell in cells if name in cell.metrics})
        for name in names
    }
    return SummaryRow(
        variant=variant,
        depth=depth,
        optimizer=optimizer,
        metrics=metrics,
        outcomes=count(cell.ramp["outcome"] for cell in cells),
        curve=_median_curve([cell.ramp["curve"] for cell in cells]),
    )


def _strength(row: SummaryRow) -> tuple[float, float]:
    onset = row.metrics.get("onset_lr")
    onset_lr = 0.0 if onset is None else onset.median.low or 0.0
    return stable_lr(row) or 0.0, onset_lr


def _beside(row: SummaryRow, weakest: SummaryRow | None) -> SummaryRow:
    if weakest is None:
        return row
    return row.model_copy(update={"times_weakest": _paired(row.metrics, weakest.metrics)})


def _paired(ours: Mapping[str, MetricSummary], theirs: Mapping[str, MetricSummary]) -> MetricSummary | None:
    if "max_stable_lr" not in ours or "max_stable_lr" not in theirs:
        return None
    paired: dict[int, Bracket] = ratios(ours["max_stable_lr"].per_seed, theirs["max_stable_lr"].per_seed)
    return summarise("max_stable_lr", paired) if paired else None


def _median_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Median loss over the seeds that got as far, while at least half of them did."""
    losses: dict[float, list[float]] = {}
    for curve in curves:
        for lr, loss in curve:
            losses.setdefault(lr, []).append(loss)
    enough = math.ceil(len(curves) / 2)
    return [(lr, statistics.median(values)) for lr, values in sorted(losses.items()) if len(values) >= enough]
