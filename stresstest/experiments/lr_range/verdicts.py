"""The answer of an LR range test: up to which constant LR each variant trains."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from stresstest.experiments.answers import (
    Answer,
    first_few,
    last_good,
    lrs_apart,
    rounded,
    seeds_sure,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
)
from stresstest.experiments.lr_range.findings import done_by_variant, first_break, flat_at_boundary
from stresstest.reports.document import Fact, Verdict
from stresstest.reports.numbers import lr
from stresstest.results.records import Cell, Result, SummaryRow

_BROKE: Mapping[str, str] = {
    "relapsed": "loses what it learned",
    "failed-to-train": "never learns",
    "exploded": "explodes",
    "nonfinite": "becomes NaN or infinite",
}  # after an LR: shorter than in the findings, which name the outcome
_WIDER = 16.0  # times: how far a range goes beyond one whose end was reached
_WEAK = 2.0  # times: a variant that takes so much less than the best may need a warm-up
_UNLIKE = 4.0  # times between the ends of an interval: more, and the seeds say different things
_SETTINGS_OF_RAMP_AND_HOLD = (
    *("ramp", "start_lr", "end_lr", "num_steps", "hold_steps", "hold_resolution", "theory", "probes", "lr_window"),
    *("parallel", "variant"),
)


def answer(result: Result) -> Answer:
    """A verdict a variant, the strongest first."""
    done = done_by_variant(result.cells)
    verdicts = tuple(_verdict(row, done[row.variant]) for row in result.summary)
    return Answer(verdicts, _sure(result), first_few(_next(result, done)) if result.summary else ())


def _verdict(row: SummaryRow, done: Sequence[Cell]) -> Verdict:
    metric = row.metrics["max_stable_lr"]
    low, high = metric.median.low, metric.median.high
    if low is None:
        return Verdict(row.variant, f"trains at no LR that was held: it {_at_the_smallest(done)}", "bad")
    trained, apart = last_good(metric, lr)
    if flat_at_boundary(done):
        above = "the top of the range" if high is None else f"{lr(high)} breaks it"
        harmless = f"{lr(low)}{trained} does no harm, but there is too little to learn"
        return Verdict(row.variant, f"{harmless}; {above}", "dull")
    if high is None:
        return Verdict(row.variant, f"use LR up to {lr(low)} or more{trained}, the top of the range", "good")
    how = _BROKE.get(first_break(done), "breaks")
    return Verdict(
        row.variant, f"use LR up to {lr(low)}{trained}; at {lr(high)} it {how}", "mixed" if apart > _UNLIKE else "good"
    )


def _at_the_smallest(done: Sequence[Cell]) -> str:
    """What becomes of most seeds of a variant at the smallest LR that they were held at."""
    outcomes = [min(cell.hold, key=lambda trial: float(trial["lr"]))["outcome"] for cell in done if cell.hold]
    return _BROKE.get(statistics.mode(outcomes), "breaks") if outcomes else "breaks"


def _sure(result: Result) -> str:
    """How many seeds, and how finely LRs were tried."""
    metric = max((row.metrics["max_stable_lr"] for row in result.summary), key=lambda each: each.n, default=None)
    return f"{seeds_sure(result, metric)}; {lrs_apart(result)}" if metric else ""


def _next(result: Result, done: Mapping[str, Sequence[Cell]]) -> Iterator[Fact | None]:
    spec, rows = result.spec, result.summary
    stable = {row.variant: row.metrics["max_stable_lr"].median for row in rows}
    if any(bracket.low is not None and bracket.high is None for bracket in stable.values()):
        top = _WIDER * spec["end_lr"]
        yield try_again(result, "a wider range: the highest LR of this one still trains", {"end_lr": rounded(top)})
    yield seeds_to_start(result)
    stuck = [row.variant for row in rows if first_break(done[row.variant]) == "failed-to-train"]
    if stuck or any(bracket.low is None for bracket in stable.values()):
        why = "longer holds tell a slow plateau from a collapse"
        yield try_again(result, why, {"hold_steps": 2 * spec["hold_steps"]})
    yield _warmup(result)
    yield seeds_to_be_sure(result)


def _warmup(result: Result) -> Fact | None:
    """A map of warm-ups around the boundary of the weakest variant."""
    known = [(row.metrics["max_stable_lr"].median.low, row.variant) for row in result.summary]
    lrs = [(low, variant) for low, variant in known if low is not None]
    if not lrs or (len(lrs) > 1 and max(lrs)[0] < _WEAK * min(lrs)[0]):
        return None
    low, variant = min(lrs)
    around = {"variant": variant, "start_lr": rounded(low / 2), "end_lr": rounded(16 * low)}
    why = f"a warm-up map of {variant}: how far a warm-up raises its LR"
    return try_again(result, why, around, "warmup", _SETTINGS_OF_RAMP_AND_HOLD)
