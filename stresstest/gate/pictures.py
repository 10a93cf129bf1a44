"""A verdict as pictures: the change of each line with its limit, and both sides seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

from stresstest.gate.judge import NOWHERE
from stresstest.gate.records import PASSES, UNDECIDED, CheckVerdict, GatedRow, GateLine, LimitLine
from stresstest.gate.verdict_words import median_interval
from stresstest.reports.document import PAGE, Axis, Chart, Series, Tone
from stresstest.reports.numbers import bracket, with_unit
from stresstest.results.metrics import METRICS
from stresstest.results.records import Bracket
from stresstest.scenario.thresholds import parse_threshold

_MOST_ROWS = 40  # of a picture
_MOST_ROOM = 6  # of these for one line
_MARGIN = 0.04  # of an axis, beyond its outermost values
_UNITS = {"oct": "octaves"}
_WORST_FIRST = ("regressed", "errored", *UNDECIDED, *PASSES)

Line = GateLine | LimitLine
L = TypeVar("L", GateLine, LimitLine)
K = TypeVar("K")


def verdict_pictures(verdict: CheckVerdict) -> Iterator[Chart]:
    """What changed, a picture for each unit of change; then the values, a picture for each metric."""
    lines: list[Line] = [*verdict.lines, *verdict.limits]
    names = row_names({id(line): line.place for line in lines})
    tested = [line for line in verdict.lines if line.n]
    for unit, some in _grouped(tested, lambda line: line.unit):
        yield _forest(unit, some, names)
    for metric, some in _grouped(tested, lambda line: line.metric):
        yield _both_sides(metric, some, names)
    for metric, those in _grouped(
        [limit for limit in verdict.limits if _has_values(limit)], lambda limit: limit.metric
    ):
        yield _limits(metric, those, names)


def _has_values(limit: LimitLine) -> bool:
    return limit.head is not None and any(_drawn_at(value) is not None for value in limit.head.per_seed.values())


def line_tone(line: GateLine) -> Tone:
    """What a verdict is: good, bad, or undecided."""
    return "bad" if line.verdict in ("regressed", "errored") else "good" if line.verdict in PASSES else "mixed"


def _grouped(lines: Sequence[L], key: Callable[[L], str]) -> list[tuple[str, list[L]]]:
    """Lines by a name, in the order in which the names come first; of too many those that pass are left out first."""
    found: dict[str, list[L]] = {}
    for line in lines:
        found.setdefault(key(line), []).append(line)
    return [(name, _worst(some)) for name, some in found.items()]


def _worst(lines: list[L]) -> list[L]:
    worst = set(map(id, sorted(lines, key=_rank)[:_MOST_ROWS]))
    return [line for line in lines if id(line) in worst]


def _rank(line: Line) -> int:
    return int(line.passed) if isinstance(line, LimitLine) else _WORST_FIRST.index(line.verdict)


def row_names(places: Mapping[K, GatedRow]) -> dict[K, str]:
    """Where each row stands, without what all of them have in common."""
    found = {key: _parts(place) for key, place in places.items()}
    told: dict[str, set[str]] = {}
    for parts in found.values():
        for part, words in parts.items():
            told.setdefault(part, set()).add(words)
    needed = {"variant"} | {part for part, words in told.items() if len(words) > 1}
    return {
        key: " ".join(words for part, words in parts.items() if part in needed and words) or parts["experiment"]
        for key, parts in found.items()
    }


def _parts(place: GatedRow) -> dict[str, str]:
    depth = {} if place.depth is None else {"depth": f"depth {place.depth}"}
    point = {key: f"{key.replace('_', ' ')} {value}" for key, value in place.point.items()}
    common = {"experiment": place.experiment, "variant": place.variant, **depth, "optimizer": place.optimizer}
    return common | point


def _forest(unit: str, lines: Sequence[GateLine], names: Mapping[int, str]) -> Chart:
    """The change of each line: its seeds, their median with its interval, and the largest loss that passes."""
    known = [end for line in lines for pair in line.differences.values() for end in pair if _is_known(end)]
    low, high = _ends([0.0, *known, *(-line.tolerance for line in lines)], log=False)
    several = len({line.metric for line in lines}) > 1
    rows = [f"{line.metric} {names[id(line)]}" if several else names[id(line)] for line in lines]
    seeds, medians, limits = [], [], []

    def within(value: float | None, open_end: float) -> float:
        return open_end if value is None else min(high, max(low, value))

    for place, line in enumerate(lines):
        for seed, (least, most) in line.differences.items():
            at = within(least if least is not None else most, low)
            seeds.append(_Dot(at, 2.0 * place, "", f"seed {seed}: {_change(least, most, unit)}"))
        ends = median_interval(line)
        at = within(line.median[0] if line.median[0] is not None else line.median[1], low)
        said = f"{line.verdict}: {_change(*line.median, unit)}"
        span = (within(ends[0], low), within(ends[1], high))
        medians.append(_Dot(at, 2.0 * place + 1.0, line_tone(line), said, span))
        limits.append(_upright(-line.tolerance, 2.0 * place, 2.0 * place + 1.0))
    words = _UNITS.get(unit, unit)
    return Chart(
        f"Change from base to head, {words}",
        Axis(f"change, {words}; below 0: worse", log=False, low=low, high=high),
        Axis("", names=_spaced(rows, 2)),
        (_dots("seed", seeds), *_by_tone("median", medians), *limits),
        caption=(
            "Each row has its seeds above, and below them their median with its interval: a circle where the line "
            "passes, a cross where it regressed, a third shape where nothing is known yet. Dashed: the largest loss "
            "that passes; what is left of it does not."
        ),
        name="change-in-" + {"%": "per-cent"}.get(unit, words or "value"),
        formats=PAGE,
    )


def _both_sides(metric: str, lines: Sequence[GateLine], names: Mapping[int, str]) -> Chart:
    """The values of both sides, each seed's joined."""
    room = _room(max(line.n for line in lines))
    before, after = [], []
    for place, line in enumerate(lines):
        if line.base is None or line.head is None:
            continue
        for (seed, pair), up in zip(line.differences.items(), _heights(line.n, place, room), strict=True):
            base, head = line.base.per_seed[seed], line.head.per_seed[seed]
            start, end = _drawn_at(base), _drawn_at(head)
            note = f"seed {seed}: {bracket(base)} -> {bracket(head)} ({_change(*pair, line.unit)})"
            if start is not None:
                before.append(_Dot(start, up, "", note))
            if end is not None:
                after.append(_Dot(end, up, line_tone(line), note, (end if start is None else start, end)))
    return Chart(
        f"{metric} of base and head, seed by seed",
        _axis(metric, [dot.at for dot in (*before, *after)]),
        Axis("", names=_spaced([names[id(line)] for line in lines], room)),
        (_dots("base", before), *_by_tone("head", after)),
        caption=(
            "A line joins both values of a seed; the head's is a circle where the row passes, a cross where it "
            "regressed, a third shape where nothing is known yet. A value beyond the range that was searched stands "
            "at its end; a base's dot alone: the head has no value."
        ),
        name=f"{metric.replace('_', '-')}-by-seed",
        formats=PAGE,
    )


def _limits(metric: str, limits: Sequence[LimitLine], names: Mapping[int, str]) -> Chart:
    """The head's values against its limits."""
    room = _room(max(limit.head.n for limit in limits if limit.head is not None))
    values, levels = [], []
    for place, limit in enumerate(limits):
        per_seed = limit.head.per_seed if limit.head is not None else {}
        for (seed, value), up in zip(per_seed.items(), _heights(len(per_seed), place, room), strict=True):
            if (at := _drawn_at(value)) is not None:
                note = f"seed {seed}: {bracket(value)}, {limit.threshold}"
                values.append(_Dot(at, up, "good" if limit.passed else "bad", note))
        level = parse_threshold(metric, limit.threshold).limit
        levels.append(_upright(level, place * room, (place + 1) * room - 1.0))
    return Chart(
        f"{metric} against its limit",
        _axis(metric, [*(dot.at for dot in values), *(level.points[0][0] for level in levels)]),
        Axis("", names=_spaced([f"{names[id(limit)]} {limit.threshold}" for limit in limits], room)),
        (*levels, *_by_tone("head", values)[:2]),
        caption="Each seed, a circle where the limit holds and a cross where it does not. Dashed: the limit.",
        name=f"{metric.replace('_', '-')}-limits",
        formats=PAGE,
    )


@dataclass(frozen=True)
class _Dot:
    """A value at a height, with what became of it, and what it stretches over."""

    at: float
    up: float
    tone: Tone
    note: str
    span: tuple[float, float] | None = None


def _dots(name: str, dots: Sequence[_Dot]) -> Series:
    return Series(
        name,
        tuple((dot.at, dot.up) for dot in dots),
        kind="dots",
        spans=tuple(dot.span for dot in dots if dot.span is not None),
        tones=tuple(dot.tone for dot in dots),
        notes=tuple(dot.note for dot in dots),
    )


def _by_tone(name: str, dots: Sequence[_Dot]) -> list[Series]:
    """A series for each tone."""
    words: dict[Tone, str] = {"bad": "worse", "good": "passes", "mixed": "not known"}
    return [_dots(f"{name}, {said}", [dot for dot in dots if dot.tone == tone]) for tone, said in words.items()]


def _axis(metric: str, values: Sequence[float]) -> Axis:
    log = METRICS[metric].scale == "log2"
    known = [value for value in values if value > 0.0 or not log]
    low, high = _ends(known, log) if known else (None, None)
    return Axis(metric, log, low, high)


def _ends(values: Sequence[float], log: bool) -> tuple[float, float]:
    """A little beyond the lowest and the highest, so that each is drawn whole."""
    low, high = min(values), max(values)
    if log:
        return low / (high / low) ** _MARGIN / 1.05, high * (high / low) ** _MARGIN * 1.05
    margin = _MARGIN * (high - low) or abs(high) or 1.0
    return low - margin, high + margin


def _room(seeds: int) -> int:
    """Rows of a picture for the seeds of a line."""
    return min(_MOST_ROOM, max(1, math.ceil(seeds / 2)))


def _spaced(names: Sequence[str], room: int) -> tuple[str, ...]:
    """Each name beside the first of its rows."""
    return tuple(part for name in names for part in (name, *[""] * (room - 1)))


def _heights(count: int, place: int, room: int) -> list[float]:
    return [place * room - 0.5 + room * (0.08 + 0.84 * (i + 0.5) / count) for i in range(count)]


def _upright(x: float, first: float, last: float) -> Series:
    return Series("limit", ((x, first - 0.4), (x, last + 0.4)), kind="guide")


def _drawn_at(value: Bracket) -> float | None:
    return value.low if value.low is not None else value.high


def _is_known(value: float | None) -> TypeGuard[float]:
    """Whether a change is one in size, and not from or to where nothing trains."""
    return value is not None and abs(value) < NOWHERE


def _change(least: float | None, most: float | None, unit: str) -> str:
    """A change in words."""
    if most is not None and most <= -NOWHERE:
        return "no longer trains"
    if least is not None and least >= NOWHERE:
        return "trains only now"
    ends = dict.fromkeys("?" if end is None else f"{end:+.3g}" for end in (least, most))
    return with_unit(" to ".join(ends), unit)
