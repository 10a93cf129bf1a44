"""The answer of a sweep over batch sizes: up to which batch each optimizer scales, and how its LR grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stresstest.experiments.answers import (
    Answer,
    first_few,
    last_good,
    seeds_sure,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
    wider_grid,
)
from stresstest.experiments.batch_sweep.spec import FEWEST_STEPS, LR_POWERS, BatchSweepSpec
from stresstest.experiments.contest_document import row_name
from stresstest.reports.document import Fact, Verdict
from stresstest.reports.numbers import exponent_words, lr, number
from stresstest.results.records import Result, SummaryRow, TrendRow

_LARGER = 4  # times: the next batch size to look at


def answer(result: Result) -> Answer:
    """A verdict an optimizer, in the order of the spec."""
    verdicts = tuple(_verdict(trend, result) for trend in result.trends if "scaling_batch" in trend.metrics)
    metrics = [metric for trend in result.trends for metric in trend.metrics.values()]
    sure = seeds_sure(result, max(metrics, key=lambda each: each.n)) + "; all batches see as many tokens"
    return Answer(verdicts, sure, first_few(_next(result))) if verdicts else Answer()


def _verdict(trend: TrendRow, result: Result) -> Verdict:
    limit, name = trend.metrics["scaling_batch"], row_name(trend, result)
    low, high = limit.median.low, limit.median.high
    sizes = result.spec["batch_sizes"]
    brackets, _ = last_good(limit, number)
    if high is None or low is None:
        said = f"scales up to batch {number(low or sizes[-1])}, the largest{brackets}"
    else:
        said = f"use batches up to {number(low)}{brackets}; {number(high)} gives away over 10% of what it learns"
    text = f"{said}{_grows(trend)}{_best(low, trend, result)}"
    return Verdict(name, text, "mixed" if low == sizes[0] and len(sizes) > 1 else "good")


def _best(size: float | None, trend: TrendRow, result: Result) -> str:
    """The best peak LR at the largest batch size that is of use."""
    mine = [row for row in result.summary if (row.variant, row.optimizer) == (trend.variant, trend.optimizer)]
    there = [row for row in mine if row.point["batch_size"] == size]
    return f"; best LR at {number(size)}: {lr(there[0].point['peak_lr'])}" if size and there else ""


def _grows(trend: TrendRow) -> str:
    power = trend.metrics.get("batch_lr_exponent")
    return "" if power is None else f"; its max_stable_lr goes as batch^{exponent_words(power)}"


def _next(result: Result) -> Iterator[Fact | None]:
    spec = BatchSweepSpec.model_validate(result.spec)
    yield seeds_to_start(result)
    if any(trend.metrics["scaling_batch"].median.high is None for trend in result.trends if trend.metrics):
        yield _larger(result, spec)
    yield wider_grid(result, [_at_the_first(row, spec) for row in result.summary])
    yield seeds_to_be_sure(result)


def _larger(result: Result, spec: BatchSweepSpec) -> Fact | None:
    """One more batch size, with the tokens that it takes."""
    sizes = (*spec.batch_sizes, _LARGER * spec.batch_sizes[-1])
    needed = FEWEST_STEPS * sizes[-1] * spec.tokens_an_example
    settings: dict[str, Any] = {"batch_sizes": sizes} | ({"tokens": needed} if needed > spec.tokens else {})
    return try_again(result, "larger batches: the largest still scales", settings)


def _at_the_first(row: SummaryRow, spec: BatchSweepSpec) -> float:
    """A best peak LR as the grid has it, at the first batch size."""
    return float(row.point["peak_lr"] / (row.point["batch_size"] / spec.batch_sizes[0]) ** LR_POWERS[spec.lr_scaling])
