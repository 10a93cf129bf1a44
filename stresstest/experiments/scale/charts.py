"""The pictures of a path of sizes: brackets of all seeds, the law through them, and the target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from stresstest.experiments.scale.naming import arm, cells_of, label, law_of, named_size, of_arm, size_of, target_words
from stresstest.experiments.scale.sentences import Law, between
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.reports.document import PAGE, VERBOSE, Axis, Chart, Mark, Point, Series
from stresstest.reports.numbers import bracket, lr, middle
from stresstest.results.records import Bracket, Cell, Result, TrendRow

_ROOM = 0.12  # octaves beyond the first size and the target
_ARM_APART, _SEED_APART = 0.09, 0.025  # octaves between what is drawn at one size, so that nothing is hidden
_MOST_TICKS = 9
_LINES = 4  # of text, so that the ends of the y axis are written
_ADVICE = {
    "max_stable_lr": "Stay below a variant's line; at the target, below its band to be safe.",
    "best_lr": "Where the lowest loss is; a flat line means that the LR of a small model serves a large one.",
}


def charts(result: Result, spec: ScaleSpec) -> Iterator[Chart]:
    """One of each metric: each seed as a bar, the law with its band; in a terminal medians and laws, line by line."""
    for metric in _ADVICE:
        trends = [trend for trend in result.trends if law_of(trend, metric)]
        dots = [
            _seeds(cells_of(result.cells, trend), metric, spec, trends.index(trend), len(trends)) for trend in trends
        ]
        found = [each for each in dots if each.points]
        if found:
            yield _picture(result, spec, metric, trends, found)
            yield _in_text(result, spec, metric, trends)


def _picture(result: Result, spec: ScaleSpec, metric: str, trends: Sequence[TrendRow], dots: Sequence[Series]) -> Chart:
    laws = {arm(trend): law for trend in trends if (law := law_of(trend, metric)).get("band")}
    lines = [_line(name, law) for name, law in laws.items()]
    marks = [_predicted(name, law, place, len(trends)) for place, (name, law) in enumerate(laws.items())]
    drawn = [*lines, *dots, *(mark for mark in marks if mark.points)]
    ends = [end for each in drawn for low, high in each.spans for end in (low, high) if math.isfinite(end)]
    ends += [y for each in drawn for _, y in each.points]
    target = _target(trends)
    upright = Series(
        f"target: {target_words(spec, trends[0])}", ((target, min(ends)), (target, max(ends))), kind="guide"
    )
    return Chart(
        f"{metric} over {label(spec.axis)}, both logarithmic",
        _across(result, spec, target),
        Axis(metric),
        (*drawn, upright),
        caption=_caption(metric, laws, spec, result),
        name=f"{metric.replace('_', '-')}-over-{spec.axis.replace('_', '-')}",
        formats=PAGE,
    )


def _in_text(result: Result, spec: ScaleSpec, metric: str, trends: Sequence[TrendRow]) -> Chart:
    """Medians and laws below each other on common axes."""
    mark, series = Mark("target", "T", _target(trends)), []
    for trend in trends:
        rows = [row for row in of_arm(result.summary, trend) if metric in row.metrics]
        medians = [(size_of(row, spec.axis), _centre(row.metrics[metric].median)) for row in rows]
        known = tuple((size, value) for size, value in medians if value is not None)
        series.append(Series(arm(trend), known, (mark,)))
        if (law := law_of(trend, metric)).get("band"):
            series.append(replace(_line(f"{arm(trend)} law", law), marks=(mark,), spans=()))
    title = f"{metric} over {label(spec.axis)}, both logarithmic: medians, and the law"
    across = Axis(label(spec.axis))
    return Chart(title, across, Axis(metric), tuple(series), height=_LINES, formats=VERBOSE)


def _across(result: Result, spec: ScaleSpec, target: float) -> Axis:
    """The sizes that have cells and the target, which are the ticks, as many as fit."""
    sizes = sorted({size_of(row, spec.axis) for row in result.summary})
    step = math.ceil(len(sizes) / (_MOST_TICKS - 1))
    ticks = (*sizes[::-step][::-1], target)
    return Axis(label(spec.axis), low=sizes[0] * 2.0**-_ROOM, high=target * 2.0**_ROOM, ticks=ticks)


def _target(trends: Sequence[TrendRow]) -> float:
    return float(trends[0].laws[0]["target"])


def _line(name: str, law: Law) -> Series:
    """The law's median with the interval of one new seed."""
    band = law["band"]
    notes = tuple(f"law: {lr(low)} to {lr(high)} for a new seed" for _, low, _, high in band)
    return Series(
        name,
        tuple((size, median) for size, _, median, _ in band),
        spans=tuple((low, high) for _, low, _, high in band),
        notes=notes,
    )


def _predicted(name: str, law: Law, place: int, count: int) -> Series:
    """What the law says of the target, where it may be named."""
    predicted = law["predicted"]
    if predicted is None:
        return Series(name, (), kind="dots")
    at = law["target"] * 2.0 ** (_ARM_APART * (place - (count - 1) / 2))
    note = f"predicted for {law['target']:.0f}, a new seed: {between(predicted)}"
    span = (predicted["low"], predicted["high"])
    return Series(name, ((at, predicted["median"]),), kind="dots", spans=(span,), notes=(note,))


def _seeds(cells: Sequence[Cell], metric: str, spec: ScaleSpec, place: int, count: int) -> Series:
    """Each seed's bracket as a bar around its centre; one with an open side is not drawn."""
    points: list[Point] = []
    spans: list[Point] = []
    notes: list[str] = []
    seeds = list(spec.seeds)
    for cell in cells:
        found = cell.metrics.get(metric, Bracket(low=None, high=None))
        if not found.low or not found.high:
            continue
        aside = _ARM_APART * (place - (count - 1) / 2)
        aside += _SEED_APART * (seeds.index(cell.seed) - (len(seeds) - 1) / 2)
        size = size_of(cell, spec.axis)
        points.append((size * 2.0**aside, math.sqrt(found.low * found.high)))
        spans.append((found.low, found.high))
        notes.append(f"seed {cell.seed}, {named_size(spec.axis, size)}, {_sides(found)}")
    name = arm(cells[0]) if cells else ""
    return Series(name, tuple(points), kind="dots", spans=tuple(spans), notes=tuple(notes))


def _sides(found: Bracket) -> str:
    return bracket(found) if found.low == found.high else f"{lr(found.low)} to {lr(found.high)}"


def _centre(found: Bracket) -> float | None:
    return math.sqrt(found.low * found.high) if found.low and found.high else None


def _caption(metric: str, laws: dict[str, Law], spec: ScaleSpec, result: Result) -> str:
    several = len(result.spec["seeds"]) > 1
    bars = "A bar is what one seed's holds leave open" if metric == "max_stable_lr" else "A dot is one seed"
    parts = [_ADVICE[metric], f"{bars}{', seeds and variants side by side' * several}."]
    if laws:
        parts.append("Line: the law; band: where one new seed lies 9 times in 10.")
    parts.append("Upright: the target." if all(law["predicted"] for law in laws.values()) else _short_of(laws))
    return " ".join([*parts, *_not_drawn(result, spec, metric)])


def _short_of(laws: dict[str, Law]) -> str:
    short = [name for name, law in laws.items() if law["predicted"] is None]
    return f"Upright: the target, for which no number of {', '.join(short)} is named, so that the law ends before."


def _not_drawn(result: Result, spec: ScaleSpec, metric: str) -> Iterator[str]:
    """Medians with an open side."""
    found = [
        f"{arm(row)} at {named_size(spec.axis, size_of(row, spec.axis))} ({middle(row.metrics[metric])})"
        for row in result.summary
        if metric in row.metrics and _centre(row.metrics[metric].median) is None
    ]
    if found:
        yield f"Not drawn, for most seeds have no answer in the range that was tried: {', '.join(found)}."
