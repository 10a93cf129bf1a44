"""Reduce cells to one row a variant and depth, and a variant's rows to how they change with depth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stresstest.results.records import (
    TRAINED,
    Bracket,
    Cell,
    Finding,
    MetricSummary,
    SearchRow,
    SummaryRow,
    TrendRow,
    count,
    ratios,
    summarise,
)

_AT_START = {"grad": "grad_last", "activation": "activation_rms"}  # what may also grow geometrically with depth
_ENOUGH_DEPTHS = 3  # for an exponent
_CLEARLY = 0.25  # of the other's squared error: a fit is clearly better


@dataclass(frozen=True)
class Reduced:
    """What an experiment's cells come to."""

    summary: list[SummaryRow]
    trends: list[TrendRow]
    findings: list[Finding]
    searches: list[SearchRow] = field(default_factory=list)


def ranked_rows(cells: Sequence[Cell], optimizer: str) -> list[SummaryRow]:
    """One row for each variant of a single depth that has a finished cell, the strongest first."""
    rows = depth_rows(cells, optimizer)
    rows.sort(key=_strength, reverse=True)
    weakest = next((row for row in reversed(rows) if stable_lr(row) is not None), None)
    return [_beside(row, weakest) for row in rows]


def depth_rows(cells: Sequence[Cell], optimizer: str) -> list[SummaryRow]:
    """One row for each variant and depth that has a finished cell: variants as they came, depths ascending."""
    groups: dict[str, dict[int, list[Cell]]] = {}
    for cell in cells:
        if cell.status == "done":
            groups.setdefault(cell.variant, {}).setdefault(cell.depth, []).append(cell)
    return [
        _row(variant, depth, by_depth[depth], optimizer)
        for variant, by_depth in groups.items()
        for depth in sorted(by_depth)
    ]


def trend_rows(cells: Sequence[Cell], optimizer: str) -> list[TrendRow]:
    """One row for each variant with a finished cell: what depth does to it."""
    groups: dict[str, dict[int, list[Cell]]] = {}
    for cell in cells:
        if cell.status == "done":
            groups.setdefault(cell.variant, {}).setdefault(cell.seed, []).append(cell)
    return [TrendRow(variant=variant, optimizer=optimizer, metrics=_trends(by)) for variant, by in groups.items()]


def stable_lr(row: SummaryRow) -> float | None:
    """The median max_stable_lr; `None` where no held LR trained."""
    metric = row.metrics.get("max_stable_lr")
    return None if metric is None else metric.median.low


def trainable_depth(cells: Sequence[Cell]) -> Bracket | None:
    """From the last depth at which one seed's fixed recipe trained to the first at which it did not.

    Cells without a result (out of memory, crashed) say nothing; `None` where no cell says anything.
    """
    told = sorted((c for c in cells if c.status == "done" and c.recipe), key=lambda c: c.depth)
    if not told:
        return None
    low = None
    for cell in told:
        if cell.recipe["outcome"] not in TRAINED:
            return Bracket(low=low, high=cell.depth)
        low = cell.depth
    return Bracket(low=low, high=None)


def exponent(values: Mapping[int, Bracket]) -> Bracket | None:
    """b of value ~ depth^b by least squares in log-log: all that fits the brackets, of one seed.

    The slope is linear in the values, so its ends are where each value is at the end of its bracket
    that the slope's weight asks for. Open brackets are left out; `None` below three depths.
    """
    known = _known(values)
    if len(known) < _ENOUGH_DEPTHS:
        return None
    logs = {depth: math.log(depth) for depth in known}
    mean = statistics.fmean(logs.values())
    spread = sum((x - mean) ** 2 for x in logs.values())
    weights = {depth: (x - mean) / spread for depth, x in logs.items()}
    low = sum(weight * known[depth][weight < 0.0] for depth, weight in weights.items())
    high = sum(weight * known[depth][weight >= 0.0] for depth, weight in weights.items())
    return Bracket(low=low, high=high)


def rate(values: Mapping[int, Bracket]) -> Bracket | None:
    """b of value ~ b^depth by least squares, where that fits clearly better than a power of depth."""
    known = _known(values)
    if len(known) < _ENOUGH_DEPTHS:
        return None
    logs, depths = [low for low, _ in known.values()], list(known)
    geometric, power = _fit(depths, logs), _fit([math.log(depth) for depth in depths], logs)
    return Bracket.exactly(math.exp(geometric[0])) if geometric[1] < _CLEARLY * power[1] else None


def _known(values: Mapping[int, Bracket]) -> dict[int, tuple[float, float]]:
    """Logs of both sides by depth, where both are positive numbers."""
    return {
        depth: (math.log(value.low), math.log(value.high))
        for depth, value in sorted(values.items())
        if value.low is not None and value.high is not None and 0.0 < value.low <= value.high < math.inf
    }


def _fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(slope, squared error) of a line."""
    slope, intercept = statistics.linear_regression(x, y)
    return slope, sum((intercept + slope * a - b) ** 2 for a, b in zip(x, y, strict=True))


def _trends(by_seed: Mapping[int, Sequence[Cell]]) -> dict[str, MetricSummary]:
    depths = {seed: bracket for seed, cells in by_seed.items() if (bracket := trainable_depth(cells))}
    metrics = {"max_trainable_depth": summarise("max_trainable_depth", depths)} if depths else {}
    metrics |= _summary("max_stable_lr_exponent", exponent, _by_depth(by_seed, "max_stable_lr"))
    for quantity, metric in _AT_START.items():
        values = _by_depth(by_seed, metric)
        geometric = _summary(f"{quantity}_rate", rate, values)
        most = geometric and 2 * geometric[f"{quantity}_rate"].n > len(values)
        metrics |= geometric if most else _summary(f"{quantity}_exponent", exponent, values)
    return metrics


def _by_depth(by_seed: Mapping[int, Sequence[Cell]], metric: str) -> dict[int, dict[int, Bracket]]:
    return {
        seed: {cell.depth: cell.metrics[metric] for cell in cells if metric in cell.metrics}
        for seed, cells in by_seed.items()
    }


def _summary(
    name: str, of: Callable[[Mapping[int, Bracket]], Bracket | None], by_seed: Mapping[int, Mapping[int, Bracket]]
) -> dict[str, MetricSummary]:
    fits = {seed: fit for seed, values in by_seed.items() if (fit := of(values))}
    return {name: summarise(name, fits)} if fits else {}


def _row(variant: str, depth: int, cells: Sequence[Cell], optimizer: str) -> SummaryRow:
    per_seed: dict[str, dict[int, Bracket]] = {}
    for cell in cells:
        for name, value in cell.metrics.items():
            per_seed.setdefault(name, {})[cell.seed] = value
    metrics = {name: summarise(name, values) for name, values in per_seed.items()}
    judged = [cell.recipe or cell.ramp for cell in cells]
    return SummaryRow(
        variant=variant,
        depth=depth,
        optimizer=optimizer,
        metrics=metrics,
        outcomes=count(record["outcome"] for record in judged if record),
        curve=_median_curve([cell.ramp["curve"] for cell in cells if cell.ramp]),
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
