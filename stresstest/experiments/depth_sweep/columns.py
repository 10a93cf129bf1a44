"""The columns of a depth sweep's tables: what was measured decides which there are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from stresstest.experiments.depth_sweep.findings import growth_words, why_failed
from stresstest.experiments.document_parts import metric_cell
from stresstest.reports.document import BRIEF, Column, Table, Tone, Value
from stresstest.reports.numbers import bracket, number
from stresstest.results.records import TRAINED, Bracket, MetricSummary, Result, SummaryRow, TrendRow

_FEW_DEPTHS = 6  # columns


@dataclass(frozen=True)
class RowColumn:
    """A column and what a row has there."""

    head: Column
    cell: Callable[[SummaryRow], Value]


def over_depths(result: Result) -> Iterator[Table]:
    """A row a variant and a column a depth of what was asked for, for a terminal that is not asked for all there is."""
    metrics = {name for row in result.summary for name in row.metrics}
    if result.spec["init_only"]:
        yield _pivot(result, "gradient 1st/last at depth", partial(median_cell, "grad_ratio"))
        return
    if any(cell.recipe for cell in result.cells):
        yield _pivot(result, "seeds that train at depth", partial(_trained, result))
    if "max_stable_lr" in metrics:
        yield _pivot(result, "max_stable_lr at depth", partial(median_cell, "max_stable_lr"))


def _pivot(result: Result, header: str, cell: Callable[[SummaryRow], Value]) -> Table:
    """The depths between the first and the last are the first to go, every other one before the rest."""
    depths = sorted({row.depth for row in result.summary})
    step = max(1, math.ceil((len(depths) - 1) / (_FEW_DEPTHS - 1)))
    kept = {*depths[::step], depths[-1]}
    at = {(row.variant, row.depth): cell(row) for row in result.summary}
    variants = dict.fromkeys(row.variant for row in result.summary)
    rows = tuple((Value(name), *(at.get((name, depth), Value("-")) for depth in depths)) for name in variants)
    columns = (Column(header), *(Column(str(depth), wide=depth not in kept) for depth in depths))
    return Table(columns, rows, formats=BRIEF)


def _trained(result: Result, row: SummaryRow) -> Value:
    """How many seeds trained."""
    mine = [c for c in result.cells if (c.variant, c.depth, c.status) == (row.variant, row.depth, "done")]
    good = sum(cell.recipe["outcome"] in TRAINED for cell in mine)
    tone: Tone = "good" if good == len(mine) else "mixed" if good else "bad"
    return Value(f"{good}/{len(mine)}", tone=tone)


def main_columns(result: Result) -> list[RowColumn]:
    """What was trained at each depth; at initialisation alone, how signal and gradient come through."""
    if result.spec["init_only"]:
        return signal_columns()
    metrics = {name for row in result.summary for name in row.metrics}
    columns = []
    if "recipe_loss" in metrics or "steps_to_target" in metrics:
        columns += [
            RowColumn(Column("fixed\nrecipe"), partial(_outcome, result)),
            _median("steps_to_target", "steps to\ntarget"),
            _median("recipe_loss", "recipe\nloss"),
        ]
    if "max_stable_lr" in metrics:
        columns.append(RowColumn(Column("max_stable_lr"), lambda row: metric_cell(row.metrics.get("max_stable_lr"))))
    if "explosion_lr" in metrics:
        columns += [_median("onset_lr", "onset_lr"), _median("explosion_lr", "explosion_lr", wide=True)]
    if "seconds_per_step" in metrics:
        columns.append(RowColumn(Column("ms per\nstep"), partial(_scaled, "seconds_per_step", 1e3)))
    if "peak_bytes" in metrics:
        columns.append(RowColumn(Column("peak\nMiB", wide=True), partial(_scaled, "peak_bytes", 2.0**-20)))
    if "grad_ratio" in metrics:
        columns.append(_median("grad_ratio", "gradient\n1st/last"))
    if "stream_growth" in metrics:
        columns.append(_median("stream_growth", "stream\ngrowth", wide=True))
    return columns


def signal_columns() -> list[RowColumn]:
    """Signal propagation at initialisation."""
    return [
        _median("grad_ratio", "gradient\n1st/last"),
        _median("grad_mismatch", "mean abs\n1st/last", wide=True),
        _median("grad_slope", "decades /\n100 blocks", wide=True),
        _median("grad_last", "gradient\nlast"),
        _median("stream_growth", "stream\ngrowth"),
        _median("branch_share", "branch\nshare", wide=True),
        RowColumn(Column("similarity"), _cosine),
        _median("jacobian_mean_square", "Jacobian\nmean sq"),
        _median("jacobian_condition", "Jacobian\ncondition", wide=True),
    ]


def trend_columns(result: Result) -> list[tuple[str, Callable[[TrendRow], Value]]]:
    """What depth does to a variant: headers, and what a row has there."""
    metrics = {name for row in result.trends for name in row.metrics}
    columns: list[tuple[str, Callable[[TrendRow], Value]]] = []
    if "max_trainable_depth" in metrics:
        columns.append(("max trainable depth", lambda row: _depths(row.metrics.get("max_trainable_depth"))))
    for name, header in (("max_stable_lr", "max_stable_lr"), ("grad", "last gradient"), ("activation", "activations")):
        if {f"{name}_exponent", f"{name}_rate"} & metrics:
            columns.append((header, partial(_growth, name)))
    return columns


def median_cell(metric: str, row: SummaryRow) -> Value:
    """The median over seeds alone."""
    return Value("-" if metric not in row.metrics else bracket(row.metrics[metric].median))


def _median(metric: str, header: str, wide: bool = False) -> RowColumn:
    return RowColumn(Column(header, wide=wide), partial(median_cell, metric))


def _growth(quantity: str, row: TrendRow) -> Value:
    return Value(growth_words(row.metrics, quantity))


def _cosine(row: SummaryRow) -> Value:
    metric = row.metrics.get("similarity")
    low = None if metric is None else metric.median.low
    return Value("-" if low is None else f"{low:.4f}" if low > 0.99 else number(low))


def _scaled(metric: str, factor: float, row: SummaryRow) -> Value:
    summary = row.metrics.get(metric)
    low = None if summary is None else summary.median.low
    return Value("-" if low is None else number(low * factor))


def _outcome(result: Result, row: SummaryRow) -> Value:
    """How many seeds trained, or how most of the others failed."""
    mine = [c for c in result.cells if (c.variant, c.depth, c.status) == (row.variant, row.depth, "done")]
    failed = [why_failed(cell, result.spec)[0] for cell in mine if cell.recipe["outcome"] not in TRAINED]
    if not failed:
        return Value(f"trains {len(mine)}/{len(mine)}", tone="good")
    return Value(f"{statistics.mode(failed)} {len(failed)}/{len(mine)}", tone="bad")


def _depths(metric: MetricSummary | None) -> Value:
    if metric is None:
        return Value("-")
    ends = list(metric.per_seed.values())
    low = statistics.median_low(-math.inf if end.low is None else end.low for end in ends)
    high = statistics.median_high(math.inf if end.high is None else end.high for end in ends)
    middle = Bracket(low=low if low > 0 else None, high=high if high < math.inf else None)
    return Value(_depth(middle), "" if metric.n == 1 else _ends(metric))


def _depth(value: Bracket) -> str:
    """Trained to here, not there."""
    if value.low is None:
        return "none" if value.high is None else f"below {value.high:.0f}"
    return f"{value.low:.0f} or more" if value.high is None else f"{value.low:.0f}, not {value.high:.0f}"


def _ends(metric: MetricSummary) -> str:
    low = "none" if metric.low is None else f"{metric.low:.0f}"
    return f"{low}..{'more' if metric.high is None else f'{metric.high:.0f}'}"
