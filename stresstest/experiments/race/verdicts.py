"""The answer of a race: who is first at the target, by how much, and who cannot be told from whom."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from stresstest.experiments.answers import (
    ENOUGH_SEEDS,
    Answer,
    first_few,
    more_seeds,
    seeds_sure,
    seeds_to_be_sure,
    seeds_to_start,
    try_again,
    wider_grid,
)
from stresstest.experiments.race.findings import entrant
from stresstest.experiments.race.rows import speedups, targets_of
from stresstest.experiments.race.spec import RaceSpec
from stresstest.reports.document import Fact, Verdict
from stresstest.reports.numbers import interval, loss_unit, lr, middle, with_unit
from stresstest.results.records import MetricSummary, Result, SummaryRow, summarise


def answer(result: Result) -> Answer:
    """A verdict an entrant, the fastest first."""
    ranked = sorted(result.summary, key=_steps)
    if not ranked:
        return Answer()
    behind = {entrant(row, result.spec): _times_the_steps(row, ranked[0]) for row in ranked[1:]}
    unclear = [name for name, times in behind.items() if times is not None and not _separate(times)]
    first, *others = ranked
    verdicts = [_first(first, unclear, result), *(_other(row, first, behind, result) for row in others)]
    return Answer(tuple(verdicts), _sure(result), first_few(_next(result, unclear)))


def target_words(result: Result) -> str:
    """The loss that was raced to, with its unit: the median over seeds where each has its own."""
    if result.spec["target_loss"] is not None:
        return with_unit(f"{result.spec['target_loss']:.4g}", loss_unit(result.data))
    targets = targets_of(RaceSpec.model_validate(result.spec), result.cells)
    known = [value for value in targets.values() if math.isfinite(value)]
    return with_unit(f"{statistics.median(known):.4g}", loss_unit(result.data)) if known else "unknown"


def _steps(row: SummaryRow) -> float:
    metric = row.metrics.get("steps_to_target")
    return math.inf if metric is None or metric.median.high is None else metric.median.high


def _times_the_steps(row: SummaryRow, first: SummaryRow) -> MetricSummary | None:
    """How many times the steps of the first it takes, paired by seed; `None` where no seed tells."""
    mine, theirs = (each.metrics.get("steps_to_target") for each in (row, first))
    if mine is None or theirs is None:
        return None
    by_seed = [{int(seed): value for seed, value in metric.per_seed.items()} for metric in (mine, theirs)]
    shared = by_seed[0].keys() & by_seed[1].keys()
    found = speedups(*({seed: values[seed] for seed in sorted(shared)} for values in by_seed))
    return summarise("speedup", found) if found else None


def _separate(times: MetricSummary) -> bool:
    """Whether it is slower over the whole interval, of more than one seed."""
    return times.n > 1 and times.low is not None and times.low > 1.0


def _first(row: SummaryRow, unclear: list[str], result: Result) -> Verdict:
    name = entrant(row, result.spec)
    if math.isinf(_steps(row)):
        return Verdict(name, _not_there(result), "bad")
    said = f"{_at(row)}; {', '.join(unclear)} may be as fast" if unclear else _at(row)
    return Verdict(name, f"first: {said}", "mixed" if unclear else "good")


def _other(row: SummaryRow, first: SummaryRow, behind: dict[str, MetricSummary | None], result: Result) -> Verdict:
    name, leader = entrant(row, result.spec), entrant(first, result.spec)
    times = behind[name]
    if math.isinf(_steps(row)):
        return Verdict(name, _not_there(result), "bad")
    if times is None:
        return Verdict(name, _at(row))
    brackets = f" ({interval(times)})" if times.n > 1 else ""
    if _separate(times):
        return Verdict(name, f"slower: {_at(row)}, {middle(times)} times as many as {leader}{brackets}")
    return Verdict(name, f"not separable from {leader}: {_at(row)}, {middle(times)} times as many{brackets}", "mixed")


def _at(row: SummaryRow) -> str:
    return f"{middle(row.metrics['steps_to_target'])} steps at LR {lr(row.point['peak_lr'])}"


def _not_there(result: Result) -> str:
    return f"does not reach the target in {result.spec['train_steps']} steps at any LR"


def _sure(result: Result) -> str:
    metric = max((row.metrics["validation_loss"] for row in result.summary), key=lambda each: each.n)
    return f"{seeds_sure(result, metric)}; target: training loss {target_words(result)}"


def _next(result: Result, unclear: list[str]) -> Iterator[Fact | None]:
    spec = result.spec
    yield seeds_to_start(result)
    yield wider_grid(result, [row.point["peak_lr"] for row in result.summary])
    if any(math.isinf(_steps(row)) for row in result.summary):
        yield try_again(result, "more steps: some did not reach the target", {"train_steps": 2 * spec["train_steps"]})
    if unclear:
        number = max(ENOUGH_SEEDS, 2 * len(spec["seeds"]))
        yield more_seeds(result, number, f"{number} seeds may tell {', '.join(unclear)} from the first")
    yield seeds_to_be_sure(result)
