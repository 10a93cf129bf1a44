"""What a sweep over batch sizes found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.experiments.batch_sweep.spec import LR_POWERS
from stresstest.reports.numbers import bracket, exponent_words, interval, lr, middle, number
from stresstest.results.records import Finding, SummaryRow, TrendRow, ratios, summarise


def batch_findings(rows: Sequence[SummaryRow], trends: Sequence[TrendRow], spec: Mapping[str, Any]) -> list[Finding]:
    """Where each optimizer stops scaling, how its LR grows, and who is better at the largest batch."""
    return [*_scaling(trends, spec), *_compared(rows, spec), *_at_the_end(rows, spec)]


def _scaling(trends: Sequence[TrendRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    for trend in trends:
        name = _name(trend, spec)
        limit, power = trend.metrics.get("scaling_batch"), trend.metrics.get("batch_lr_exponent")
        if limit is None:
            continue
        grows = "" if power is None else f" Its max_stable_lr goes as batch^{exponent_words(power)}."
        if limit.median.high is None:
            text = f"{name} scales up to the largest batch, {bracket(limit.median)[2:]} ({interval(limit)} over seeds)."
        else:
            far = f"{name} scales up to batch {bracket(limit.median)} ({interval(limit)} over seeds)"
            text = f"{far}; larger batches lose more than 10 % of the smallest batch's loss reduction."
        text += grows
        yield Finding(kind="scaling", subject=name, text=text)


def _compared(rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    """The lowest losses at the smallest and the largest batch, paired by seed against the first optimizer."""
    for variant in spec["variant"]:
        for size in dict.fromkeys((spec["batch_sizes"][0], spec["batch_sizes"][-1])):
            here = {r.optimizer: r for r in rows if r.variant == variant and r.point["batch_size"] == size}
            if spec["optimizer"][0] not in here:
                continue
            first = here.pop(spec["optimizer"][0]).metrics["validation_loss"]
            for optimizer, row in here.items():
                paired = summarise("speedup", ratios(row.metrics["validation_loss"].per_seed, first.per_seed))
                text = (
                    f"At batch {size} {optimizer} ends at {middle(paired)} times the loss of {spec['optimizer'][0]} "
                    f"({interval(paired)} over {paired.n} seeds)."
                )
                yield Finding(kind="compared-batch", subject=optimizer, text=text)


def _at_the_end(rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    """Where the best peak LR is an end of the scaled grid, the loss might be lower beyond it."""
    first = spec["batch_sizes"][0]
    power = LR_POWERS[spec["lr_scaling"]]
    for edge, which in ((spec["start_lr"], "lowest"), (spec["end_lr"], "highest")):
        hit = [
            f"{_name(row, spec)} at batch {row.point['batch_size']}"
            for row in rows
            if abs(row.point["peak_lr"] / (edge * (row.point["batch_size"] / first) ** power) - 1.0) < 1e-6
        ]
        if hit and spec["num_lrs"] > 1:
            beyond = f"--start-lr {number(edge / 4)}" if which == "lowest" else f"--end-lr {number(edge * 4)}"
            names = ", ".join(hit)
            text = (
                f"The best peak LR of {names} is the {which} of its grid ({lr(edge)} at batch {first}): try {beyond}."
            )
            yield Finding(kind="end-of-grid", subject=which, text=text)


def _name(row: SummaryRow | TrendRow, spec: Mapping[str, Any]) -> str:
    return row.optimizer if len(spec["variant"]) == 1 else f"{row.variant}, {row.optimizer}"
