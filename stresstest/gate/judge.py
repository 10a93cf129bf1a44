"""Results against thresholds: each line's values, differences and verdict."""

from __future__ import annotations

import math
import statistics as st
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate import statistics
from stresstest.gate.records import GatedRow, GateLine, LimitLine
from stresstest.gate.thresholds import matches, result_rows
from stresstest.results.metrics import METRICS, unit_of
from stresstest.results.records import Bracket, MetricSummary, Result
from stresstest.scenario.thresholds import OPERATORS, Threshold, octaves

_BY_DOSE = ("shock_tolerance", "break_tolerance")  # whose range is all the doses there are: nothing lies beyond
NOWHERE = 100.0  # octaves: what trains at no learning rate is worse than what does by at least as much

Results = Mapping[str, Result]  # by experiment
Same = Callable[[GatedRow], bool]  # whether both sides' cells of a row are equal to the last bit, curves too


@dataclass(frozen=True)
class InterimLook:
    """One look at both sides: which lines are open, out of how many, and the error rate that this look spends."""

    lines: int
    alpha: float
    resolutions: Mapping[tuple[str, str], float]  # by experiment and metric
    reproduce: Mapping[str, str]  # by experiment


def places(threshold: Threshold, results: Results) -> list[GatedRow]:
    """The rows of the results that a threshold speaks of."""
    found = []
    for name, result in results.items():
        if threshold.experiment in ("", name):
            rows = [_place(name, result, row) for row in result_rows(result, threshold.metric)]
            found += [place for place in rows if matches(threshold, as_row(place))]
    return found


def as_row(place: GatedRow) -> dict[str, Any]:
    """What a selector is held against."""
    depth = {} if place.depth is None else {"depth": place.depth}
    return {"variant": place.variant, "optimizer": place.optimizer, **depth, **place.point}


def _place(experiment: str, result: Result, row: Any) -> GatedRow:
    """Without what the row was found to be best at, in which two sides may differ."""
    varies = EXPERIMENTS[result.command].varies
    return GatedRow(
        experiment=experiment,
        variant=row.variant,
        depth=getattr(row, "depth", None),
        optimizer=row.optimizer,
        point={name: value for name, value in row.point.items() if name in varies},
    )


def summary_at(results: Results, place: GatedRow, metric: str) -> MetricSummary | None:
    """A metric in one row of one experiment; `None` where it has none."""
    result = results.get(place.experiment)
    if result is None:
        return None
    for row in result.summary if place.depth is not None else result.trends:
        if _place(place.experiment, result, row) == place:
            return row.metrics.get(metric)
    return None


def judge(
    asked: Sequence[tuple[Threshold, GatedRow]], head: Results, base: Results, same: Same, look: InterimLook
) -> list[GateLine]:
    """The lines of these thresholds and places at one look; their p-values are adjusted together."""
    lines: list[GateLine] = []
    tested: list[tuple[int, list[tuple[float, float]]]] = []
    for threshold, place in asked:
        line = _line(threshold, place, head, base, look)
        bounds = _bounds(line)
        if line.verdict == "inconclusive" and same(place):
            line = line.model_copy(update={"verdict": "identical", "p": None})
        elif line.verdict == "inconclusive":
            tested.append((len(lines), bounds))
        lines.append(line)
    decided = statistics.decide([(bounds, lines[k].tolerance) for k, bounds in tested], look.alpha, look.lines)
    for (number, _), (verdict, p) in zip(tested, decided, strict=True):
        needed = statistics.seeds_needed(max(look.lines, len(tested)), look.alpha)
        reason = f"at least {needed} seeds are needed for a verdict" * (verdict == "insufficient-seeds")
        lines[number] = lines[number].model_copy(update={"verdict": verdict, "p": p, "reason": reason})
    return lines


def _line(threshold: Threshold, place: GatedRow, head: Results, base: Results, look: InterimLook) -> GateLine:
    """A line with its values and differences: `inconclusive` until it is tested, or why it cannot be."""
    metric = threshold.metric
    ours, theirs = summary_at(head, place, metric), summary_at(base, place, metric)
    common = {
        "place": place,
        "metric": metric,
        "threshold": threshold.text,
        "level": threshold.level,
        "base": theirs,
        "head": ours,
        "unit": "oct" if threshold.in_octaves else _unit(threshold, head.get(place.experiment)),
        "tolerance": octaves(threshold) if threshold.in_octaves else threshold.tolerance,
        "alpha": look.alpha,
        "resolution": look.resolutions.get((place.experiment, metric), 0.0),
        "reproduce": look.reproduce.get(place.experiment, ""),
    }
    if ours is None:
        return GateLine(**common, verdict="no-data", reason="the head has no value")
    if theirs is None:
        return GateLine(**common, verdict="no-baseline", reason="the base has no value")
    shared = [seed for seed in ours.per_seed if seed in theirs.per_seed]
    if not shared:
        return GateLine(**common, verdict="incomparable", reason="base and head share no seed")
    found = {seed: difference(threshold, ours.per_seed[seed], theirs.per_seed[seed]) for seed in shared}
    middle = statistics.middle(list(found.values()))
    line = GateLine(
        **common,
        verdict="inconclusive",
        n=len(shared),
        differences={seed: (_number(low), _number(high)) for seed, (low, high) in found.items()},
        median=(_number(middle[0]), _number(middle[1])),
    )
    beyond = [_beyond(ours.per_seed[seed]) for seed in shared if _beyond(ours.per_seed[seed])]
    alike = len(beyond) == len(shared) and beyond == [_beyond(theirs.per_seed[seed]) for seed in shared]
    if alike and metric not in _BY_DOSE:
        remedy = "widen the range of learning rates" if "above" in beyond else "neither base nor head trains"
        return line.model_copy(update={"verdict": "no-data", "reason": f"beyond the range with every seed; {remedy}"})
    return line


def _unit(threshold: Threshold, head: Result | None) -> str:
    """Of differences: per cent, the metric's, or of a loss that of the head's losses."""
    if threshold.unit == "%":
        return "%"
    return unit_of(threshold.metric, {} if head is None else head.data)


def _bounds(line: GateLine) -> list[tuple[float, float]]:
    return [
        (-math.inf if low is None else low, math.inf if high is None else high)
        for low, high in line.differences.values()
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _beyond(value: Bracket) -> str:
    return "below" if value.low is None else "above" if value.high is None else ""


def difference(threshold: Threshold, head: Bracket, base: Bracket) -> tuple[float, float]:
    """The least and largest change that fits two values, negative where the head is worse.

    Of a bracket the known end counts (both sides search one grid); two values beyond the same end of the
    range are equal within it. To train at no learning rate is worse than any of them.
    """
    if _beyond(head) and _beyond(head) == _beyond(base):
        return 0.0, 0.0
    (h0, h1), (b0, b1) = _range(head, threshold.metric), _range(base, threshold.metric)
    if threshold.in_octaves:
        low, high = _octaves(h0) - _octaves(b1), _octaves(h1) - _octaves(b0)
    elif threshold.unit == "%":
        low, high = _per_cent(h0, b1), _per_cent(h1, b0)
    else:
        low, high = h0 - b1, h1 - b0
    low, high = -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high
    if low == high and math.isinf(low):
        low, high = (low, -NOWHERE) if low < 0 else (NOWHERE, high)
    return (low, high) if threshold.falls else (-high, -low)


def nowhere(value: Bracket, metric: str) -> bool:
    """Whether no learning rate that was held trained, and it is not known whether they were too large or too small."""
    return metric == "max_stable_lr" and value.low is None and value.high is None


def _range(value: Bracket, metric: str) -> tuple[float, float]:
    if nowhere(value, metric):
        return 0.0, 0.0
    if value.low is None:
        return -math.inf, math.inf if value.high is None else value.high
    return value.low, math.inf if value.high is None else value.low


def _octaves(value: float) -> float:
    return math.log2(value) if 0.0 < value < math.inf else -math.inf if value <= 0.0 else math.inf


def _per_cent(head: float, base: float) -> float:
    if base == 0.0 or not math.isfinite(base):
        return 0.0 if head == base else math.copysign(math.inf, head - base)
    return 100.0 * (head - base) / abs(base)


def limits(thresholds: Iterable[Threshold], results: Results, reproduce: Mapping[str, str]) -> list[LimitLine]:
    """Absolute thresholds, row by row; a threshold on nothing fails."""
    lines = []
    for threshold in thresholds:
        found = places(threshold, results)
        if not found:
            nowhere = GatedRow(experiment=threshold.experiment, variant="", depth=None, optimizer="")
            lines.append(_limit(threshold, nowhere, None, ""))
        lines += [
            _limit(threshold, place, summary_at(results, place, threshold.metric), reproduce.get(place.experiment, ""))
            for place in found
        ]
    return lines


def _limit(threshold: Threshold, place: GatedRow, summary: MetricSummary | None, reproduce: str) -> LimitLine:
    common = {
        "place": place,
        "metric": threshold.metric,
        "threshold": threshold.text,
        "level": threshold.level,
        "head": summary,
        "reproduce": reproduce,
    }
    if summary is None:
        return LimitLine(**common, passed=False, value="", reason="the head has no value")
    low, high = aggregate(threshold, summary)
    holds = OPERATORS[threshold.operator]
    ends = {holds(low, threshold.limit), holds(high, threshold.limit)}
    between = threshold.operator in ("==", "!=") and low != high
    passed = ends == {True} and not between
    reason = "" if passed or (ends == {False} and not between) else "the value is only known to lie beyond the range"
    return LimitLine(**common, passed=passed, value=_shown(threshold.metric, low, high), reason=reason)


def _shown(metric: str, low: float, high: float) -> str:
    if low == high:
        return "none" if metric == "max_stable_lr" and high == 0.0 else f"{low:.4g}"
    return f"> {low:.4g}" if high == math.inf else f"< {high:.4g}"


def aggregate(threshold: Threshold, summary: MetricSummary) -> tuple[float, float]:
    """The aggregate over seeds, between its least and largest possible value: both, where all are known.

    avg of a learning rate is the geometric mean; p(N) interpolates between order statistics.
    """
    log = METRICS[threshold.metric].scale == "log2"
    ranges = [_range(value, threshold.metric) for value in summary.per_seed.values()]
    low, high = (_aggregate(threshold, sorted(values), log) for values in zip(*ranges, strict=True))
    return low, high


def _aggregate(threshold: Threshold, values: list[float], log: bool) -> float:
    if threshold.aggregation == "min":
        return values[0]
    if threshold.aggregation == "max":
        return values[-1]
    if log:
        values = [_octaves(value) for value in values]
    found = _mean(values) if threshold.aggregation == "avg" else _quantile(values, threshold.rank / 100.0)
    if log:
        return 2.0**found if math.isfinite(found) else 0.0 if found < 0 else math.inf
    return found


def _mean(values: Sequence[float]) -> float:
    return values[0] if math.isinf(values[0]) else st.fmean(values)


def _quantile(values: Sequence[float], q: float) -> float:
    """Between order statistics; between a value and an unbounded one, the unbounded one."""
    place = q * (len(values) - 1)
    low, high = values[math.floor(place)], values[math.ceil(place)]
    if low == high or math.isinf(low):
        return low
    return low + (place - math.floor(place)) * (high - low)
