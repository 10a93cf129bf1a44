"""What a path of sizes found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.experiments.break_findings import look_closer, why
from stresstest.experiments.scale.naming import (
    METRICS,
    arm,
    cells_of,
    label,
    law_of,
    named_size,
    of_arm,
    size_of,
    target_words,
)
from stresstest.experiments.scale.sentences import Law, bend_words, bent, checks, exponent, goes, unnamed
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.untrained_findings import never_trained, too_little_to_learn
from stresstest.reports.numbers import NO_DATA, failures, interval, lr, middle
from stresstest.results.records import Cell, Finding, MetricSummary, SummaryRow, TrendRow, ratios, summarise

_WIDER = 1.05  # times: an interval that is told to be wider than its law says


def scale_findings(
    rows: Sequence[SummaryRow],
    trends: Sequence[TrendRow],
    cells: Sequence[Cell],
    settings: Mapping[str, Any],
    data: Mapping[str, Any] = NO_DATA,
) -> list[Finding]:
    """All findings, the most important first; `data` says in which unit its losses are."""
    spec = ScaleSpec.model_validate(settings)
    findings = [finding for trend in trends for finding in _laws(trend, of_arm(rows, trend), spec)]
    findings += _loses_most(trends, spec)
    for trend in trends:
        done = cells_of(cells, trend)
        findings += _margin(trend, of_arm(rows, trend), spec)
        findings += _unanswered(trend, of_arm(rows, trend), spec)
        findings += never_trained(arm(trend), done, settings, data)
        findings += too_little_to_learn(arm(trend), done, settings, data, "sizes and seeds")
        findings += _not_monotone(trend, done, spec)
        findings += _explained(trend, done, cells, spec)
    findings += look_closer(findings, cells)
    findings += failures(cells)
    return findings


def margin(row: SummaryRow) -> MetricSummary | None:
    """How many times max_stable_lr is best_lr, seed by seed; `None` where a seed's two are not known."""
    if not set(METRICS) <= row.metrics.keys():
        return None
    stable, best = (row.metrics[name] for name in METRICS)
    found = ratios(stable.per_seed, best.per_seed)
    return summarise("max_stable_lr", found) if found else None


def _laws(trend: TrendRow, rows: Sequence[SummaryRow], spec: ScaleSpec) -> Iterator[Finding]:
    """What the law of each metric says, or why there is none; whether it bends."""
    name = arm(trend)
    for law in filter(None, (law_of(trend, metric) for metric in METRICS)):
        metric = law["metric"]
        if "no_law" in law:
            text = f"{name}: no law of {metric}: {law['no_law'].removeprefix('no law: ')}."
            yield Finding(kind="no-law", subject=name, text=text)
            continue
        yield Finding(kind="law", subject=name, text=_law(name, law, trend, rows, spec))
        if bent(law):
            yield Finding(kind="bend", subject=name, text=f"{name}: {metric} {bend_words(law)}.")


def _law(name: str, law: Law, trend: TrendRow, rows: Sequence[SummaryRow], spec: ScaleSpec) -> str:
    predicted, target = law["predicted"], target_words(spec, trend)
    if predicted is None:
        said = f"no number for {target}: {unnamed(law, rows, spec.axis)}"
    else:
        ends = f"{lr(predicted['low'])}..{lr(predicted['high'])}"
        said = f"at {target} {lr(predicted['median'])} ({ends} for 9 of 10 new seeds{_widened(law)})"
    bend = "" if bent(law) else "; ".join(["", *filter(None, [bend_words(law)])])
    return f"{name}: {law['metric']} {goes(law, spec.axis)}; {said}. Its own check: {checks([law]).words}{bend}."


def _widened(law: Law) -> str:
    factor = law.get("width_factor", 1.0)
    return f", {factor:.1f} times as wide as the law says, as its leave-outs ask" if factor >= _WIDER else ""


def _loses_most(trends: Sequence[TrendRow], spec: ScaleSpec) -> Iterator[Finding]:
    """Whose boundary falls fastest along the path, beside the one that keeps most."""
    known = [(trend, law) for trend in trends if "exponent" in (law := law_of(trend, "max_stable_lr"))]
    if len(known) < 2:
        return
    ranked = sorted(known, key=lambda each: float(each[1]["exponent"]["median"]))
    (worst, steep), (best, flat) = ranked[0], ranked[-1]
    if steep["exponent"]["high"] < flat["exponent"]["low"]:
        text = (
            f"{arm(worst)} loses most with size: its max_stable_lr goes as {spec.axis}^{exponent(steep['exponent'])}, "
            f"that of {arm(best)} as {spec.axis}^{exponent(flat['exponent'])}."
        )
        yield Finding(kind="loses-most", subject=arm(worst), text=text)
        return
    names = ", ".join(arm(trend) for trend, _ in known)
    text = f"Not separable: the exponents of {names} have intervals that overlap; further sizes tell them apart."
    yield Finding(kind="not-separable", subject=",".join(arm(trend) for trend, _ in known), text=text)


def _margin(trend: TrendRow, rows: Sequence[SummaryRow], spec: ScaleSpec) -> Iterator[Finding]:
    """Whether the best LR keeps its distance to the boundary from the smallest size to the largest."""
    known = [(row, found) for row in rows if (found := margin(row)) and found.low and found.high]
    if len(known) < 2:
        return
    (first, before), (last, after) = known[0], known[-1]
    at, until = (named_size(spec.axis, size_of(row, spec.axis)) for row in (first, last))
    told = f"best_lr lies {_times(before)} below max_stable_lr at {at}, {_times(after)} at {until}"
    apart = (before.low or 0.0) > (after.high or 0.0) or (after.low or 0.0) > (before.high or 0.0)
    verdict = "that margin changes with size, so do not carry over one from the other" if apart else "no change seen"
    yield Finding(kind="margin", subject=arm(trend), text=f"{arm(trend)}: {told}: {verdict}.")


def _times(found: MetricSummary) -> str:
    return f"{middle(found)} times ({interval(found)})" if found.n > 1 else f"{middle(found)} times"


def _unanswered(trend: TrendRow, rows: Sequence[SummaryRow], spec: ScaleSpec) -> Iterator[Finding]:
    """Sizes at which most seeds train at the highest LR that was tried: a bound, which the law takes as one."""
    medians = [(row, row.metrics["max_stable_lr"].median) for row in rows if "max_stable_lr" in row.metrics]
    found = [f"{size_of(row, spec.axis):.0f}" for row, median in medians if median.low and median.high is None]
    if found:
        text = (
            f"{arm(trend)} trains at the highest LR that was tried at {label(spec.axis)} {', '.join(found)}; the law "
            "takes it as a bound. Raise --end-lr for an answer."
        )
        yield Finding(kind="unanswered", subject=arm(trend), text=text)


def _not_monotone(trend: TrendRow, done: Sequence[Cell], spec: ScaleSpec) -> Iterator[Finding]:
    odd = [
        f"{named_size(spec.axis, size_of(cell, spec.axis))} seed {cell.seed}"
        for cell in done
        if not cell.ramp.get("hold_monotone", True)
    ]
    if odd:
        text = (
            f"{arm(trend)}: stability is not monotone in the LR at {', '.join(odd)}; max_stable_lr is the last LR "
            "below the first break."
        )
        yield Finding(kind="not-monotone", subject=arm(trend), text=text)


def _explained(trend: TrendRow, done: Sequence[Cell], cells: Sequence[Cell], spec: ScaleSpec) -> Iterator[Finding]:
    """Why the largest size breaks, which is most like the target."""
    said = [cell for cell in done if cell.why]
    largest = max((size_of(cell, spec.axis) for cell in said), default=0.0)
    mine = [cell for cell in said if size_of(cell, spec.axis) == largest]
    if mine:
        yield from why(f"{arm(trend)} ({named_size(spec.axis, largest)})", mine, cells)
