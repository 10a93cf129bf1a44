"""The columns of a depth sweep's tables, for every format: what was measured decides which there are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from stresstest.findings.depth_sweep import growth_words, why_failed
from stresstest.findings.words import bracket, interval, number
from stresstest.results import Bracket, Cell, MetricSummary, Result, SummaryRow, TrendRow, summarise

_BLOCKS = "▁▂▃▄▅▆▇█"


class Column(NamedTuple):
    """A header in one or two lines, and a row's text."""

    header: str
    text: Callable[[SummaryRow], str]
    wide: bool = False  # left out where there is little room


def main_columns(result: Result) -> list[Column]:
    """What was trained at each depth; at initialisation alone, how signal and gradient come through."""
    metrics = {name for row in result.summary for name in row.metrics}
    columns = []
    if "recipe_loss" in metrics or "steps_to_target" in metrics:
        columns += [
            Column("fixed\nrecipe", lambda row: _outcome(row, result.cells, result.spec)),
            Column("steps to\ntarget", _value("steps_to_target")),
            Column("recipe\nloss", _value("recipe_loss")),
        ]
    if "max_stable_lr" in metrics:
        columns.append(Column("max stable lr", _with_interval("max_stable_lr")))
    if "explosion_lr" in metrics:
        columns += [
            Column("onset\nlr", _value("onset_lr")),
            Column("explosion\nlr", _value("explosion_lr"), wide=True),
        ]
    if "seconds_per_step" in metrics:
        columns.append(Column("ms a\nstep", lambda row: _scaled(row, "seconds_per_step", 1e3)))
    if "peak_bytes" in metrics:
        columns.append(Column("peak\nMiB", lambda row: _scaled(row, "peak_bytes", 2.0**-20), wide=True))
    columns += [
        Column("gradient\n1st/last", _value("grad_ratio")),
        Column("stream\ngrowth", _value("stream_growth"), wide=bool(columns)),
    ]
    return columns if not result.spec["init_only"] else signal_columns()


def signal_columns() -> list[Column]:
    """Signal propagation at initialisation."""
    return [
        Column("gradient\n1st/last", _value("grad_ratio")),
        Column("mean abs\n1st/last", _value("grad_mismatch"), wide=True),
        Column("decades /\n100 blocks", _value("grad_slope"), wide=True),
        Column("gradient\nlast", _value("grad_last")),
        Column("stream\ngrowth", _value("stream_growth")),
        Column("branch\nshare", _value("branch_share"), wide=True),
        Column("simi-\nlarity", _cosine),
        Column("Jacobian\nmean sq", _value("jacobian_mean_square")),
        Column("Jacobian\ncondition", _value("jacobian_condition"), wide=True),
    ]


class TrainingRow(NamedTuple):
    """The signal of one variant and depth before a step of the fixed recipe; step 0 is initialisation."""

    step: int
    row: SummaryRow


def training_rows(result: Result) -> list[TrainingRow]:
    """The signals that were taken while training, over the seeds that got as far; empty without probe_steps."""
    rows = []
    for at in result.summary:
        mine = [c for c in result.cells if (c.variant, c.depth) == (at.variant, at.depth) and c.signals]
        steps = sorted({step for cell in mine for step in cell.signals})
        for step in (0, *steps) if steps else ():
            signals = {c.seed: c.signals.get(step, {}) if step else c.signal for c in mine}
            values: dict[str, dict[int, Bracket]] = {}
            for seed, signal in signals.items():
                for name, value in signal.get("metrics", {}).items():
                    values.setdefault(name, {})[seed] = Bracket.model_validate(value)
            metrics = {name: summarise(name, by_seed) for name, by_seed in values.items()}
            rows.append(TrainingRow(step, at.model_copy(update={"metrics": metrics})))
    return rows


def trend_columns(result: Result) -> list[tuple[str, Callable[[TrendRow], str]]]:
    """What depth does to a variant."""
    metrics = {name for row in result.trends for name in row.metrics}
    columns: list[tuple[str, Callable[[TrendRow], str]]] = []
    if "max_trainable_depth" in metrics:
        columns.append(("max trainable depth", lambda row: _depths(row.metrics.get("max_trainable_depth"))))
    for name, header in (("max_stable_lr", "max_stable_lr"), ("grad", "last gradient"), ("activation", "activations")):
        if {f"{name}_exponent", f"{name}_rate"} & metrics:
            columns.append((header, partial(_growth, name)))
    return columns


def stable_lr_points(rows: Sequence[SummaryRow], variant: str) -> list[tuple[float, float]]:
    """(depth, max_stable_lr) of a variant where both sides of the median are known."""
    points = []
    for row in rows:
        metric = row.metrics.get("max_stable_lr")
        if row.variant == variant and metric is not None and metric.median.low and metric.median.high:
            points.append((float(row.depth), metric.median.low))
    return points


def gradient_points(signal: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(block, gradient norm) where that is a positive number."""
    pairs = zip(signal["blocks"], signal["grad_norm"], strict=True)
    return [(float(block), norm) for block, norm in pairs if norm]


def histogram(cell: Cell) -> tuple[str, float, float] | None:
    """(bars, log10 of the ends) of the singular values above zero; `None` where the Jacobian is not finite."""
    jacobian = cell.signal.get("jacobian")
    if not jacobian or not jacobian["shares"]:
        return None
    shares, edges = jacobian["shares"], jacobian["log10_edges"]
    most = max(shares)
    bars = "".join(" " if not share else _BLOCKS[round(share / most * (len(_BLOCKS) - 1))] for share in shares)
    return bars, edges[0], edges[-1]


def law_words(cell: Cell) -> str:
    """How the stream grows over the blocks of one cell."""
    law = cell.signal.get("stream_law")
    if law is None:
        return "-"
    if law["law"] == "flat":
        return "flat"
    return f"block^{law['rate']:.2g}" if law["law"] == "power" else f"{law['rate']:.4g}^block"


def _growth(quantity: str, row: TrendRow) -> str:
    return growth_words(row.metrics, quantity)


def _value(metric: str) -> Callable[[SummaryRow], str]:
    return lambda row: "-" if metric not in row.metrics else bracket(row.metrics[metric].median)


def _cosine(row: SummaryRow) -> str:
    metric = row.metrics.get("similarity")
    low = None if metric is None else metric.median.low
    return "-" if low is None else f"{low:.4f}" if low > 0.99 else number(low)


def _with_interval(metric: str) -> Callable[[SummaryRow], str]:
    def text(row: SummaryRow) -> str:
        if metric not in row.metrics:
            return "-"
        return f"{bracket(row.metrics[metric].median)} ({interval(row.metrics[metric])})"

    return text


def _scaled(row: SummaryRow, metric: str, factor: float) -> str:
    summary = row.metrics.get(metric)
    low = None if summary is None else summary.median.low
    return "-" if low is None else number(low * factor)


def _outcome(row: SummaryRow, cells: Sequence[Cell], spec: Mapping[str, Any]) -> str:
    """How many seeds trained, and how most of the others failed."""
    mine = [c for c in cells if (c.variant, c.depth, c.status) == (row.variant, row.depth, "done")]
    failed = [why_failed(cell, spec)[0] for cell in mine if cell.recipe["outcome"] not in ("stable", "spiked")]
    if not failed:
        return f"trains {len(mine)}/{len(mine)}"
    word = max(failed, key=failed.count)
    return f"{word} {len(failed)}/{len(mine)}"


def _depths(metric: MetricSummary | None) -> str:
    if metric is None:
        return "-"
    ends = list(metric.per_seed.values())
    low = statistics.median_low(-math.inf if end.low is None else end.low for end in ends)
    high = statistics.median_high(math.inf if end.high is None else end.high for end in ends)
    middle = Bracket(low=low if low > 0 else None, high=high if high < math.inf else None)
    return _depth(middle) if metric.n == 1 else f"{_depth(middle)} ({_ends(metric)})"


def _depth(value: Bracket) -> str:
    """Trained to here, not there."""
    if value.low is None:
        return "none" if value.high is None else f"below {value.high:.0f}"
    return f"{value.low:.0f} or more" if value.high is None else f"{value.low:.0f}, not {value.high:.0f}"


def _ends(metric: MetricSummary) -> str:
    low = "none" if metric.low is None else f"{metric.low:.0f}"
    return f"{low}..{'more' if metric.high is None else f'{metric.high:.0f}'}"
