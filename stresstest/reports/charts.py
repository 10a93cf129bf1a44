"""Axes with their ticks, and line charts in text: eight dots to a character in braille and one in ASCII."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import TypeVar

from stresstest.reports.document import Axis, Chart, Heatmap, Picture, Point, Series, Tiles

# Bit of each dot in a braille cell, by column and row from the top (Unicode 2800 block).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))

Value = TypeVar("Value")

MOST_LINES = 300  # of seeds, of one chart: more of them are a band
_MOST_DOTS = 2000  # of a series
_MOST_DOTS_OF_A_CHART = 6000
_MANY_TICKS = 8
_FEW_TICKS = 3
_FLAT = 0.05  # of a unit or decade: a line that spans less belongs in the middle


@dataclass(frozen=True)
class Scale:
    """An axis with its ends, and where a value lies between them."""

    log: bool
    low: float
    high: float

    def share(self, value: float, beyond: float = 0.0) -> float:
        """0 at the low end, 1 at the high one; what lies more than so many lengths beyond an end is there."""
        low, high = self._place(self.low), self._place(self.high)
        return min(1.0 + beyond, max(-beyond, (self._place(value) - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Round values between the ends, not too many: decades, or 1, 2 and 5 times such, or equal steps."""
        found = self._decades() if self.log else []
        if len(found) < _FEW_TICKS:
            found = self._steps()
        return found[:: math.ceil(len(found) / _MANY_TICKS)] if found else []

    def _decades(self) -> list[float]:
        low, high = math.log10(self.low), math.log10(self.high)
        factors = (1.0,) if high - low >= 3.0 else (1.0, 2.0, 5.0)
        decades = range(math.floor(low), math.ceil(high) + 1)
        return [v for v in (factor * 10.0**d for d in decades for factor in factors) if self._inside(v)]

    def _steps(self) -> list[float]:
        span = self.high - self.low
        decade = 10.0 ** math.floor(math.log10(span))
        step = next(s for s in (decade / 5, decade / 2, decade, 2 * decade) if span / s <= _MANY_TICKS)
        if self.low.is_integer() and self.high.is_integer():
            step = max(1.0, step)  # blocks are counted
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{step * i:.12g}") for i in range(first, last + 1)]

    def _inside(self, value: float) -> bool:
        return self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)

    def _place(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value) if value > 0.0 else -math.inf


def scale_of(axis: Axis, values: Sequence[float]) -> Scale:
    """The axis over these values; where it has ends of its own they count."""
    low = min(values) if axis.low is None else axis.low
    high = max(low, max(values) if axis.high is None else axis.high)
    if axis.log and math.log10(high / low) < _FLAT:
        return Scale(True, low / math.sqrt(10.0), high * math.sqrt(10.0))
    if not axis.log and high - low <= abs(high) * 1e-9:
        return Scale(False, low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2)
    return Scale(axis.log, low, high)


def drawn(chart: Chart) -> list[Series]:
    """The series of a chart with the points that its axes can show; a line needs two of them."""
    found = []
    for series in chart.series:
        shown = _on_axes(series.points, chart)
        if len(shown) > (series.kind != "dots"):
            found.append(series if len(shown) == len(series.points) else _with_points(series, shown))
    return found


def _with_points(series: Series, places: Sequence[int]) -> Series:
    """A series with some of its points, and what belongs to them."""
    return replace(
        series,
        points=_some(series.points, places),
        spans=_some(series.spans, places),
        tones=_some(series.tones, places),
        notes=_some(series.notes, places),
    )


def _some(values: Sequence[Value], places: Sequence[int]) -> tuple[Value, ...]:
    return tuple(values[i] for i in places) if values else ()


def fewer(chart: Chart) -> Chart:
    """A chart of very many seeds with the lines of 300 of them and 2,000 dots of a series, evenly chosen.

    Of many series it has fewer of each: 6,000 in all.
    """
    dotted = sum(each.kind == "dots" for each in chart.series)
    most_dots = min(_MOST_DOTS, _MOST_DOTS_OF_A_CHART // max(1, dotted))
    lines = Counter(each.name for each in chart.series if each.kind == "seed")
    most = max(2, MOST_LINES // max(1, len(lines)))  # of each name
    seen: Counter[str] = Counter()
    series = []
    for each in chart.series:
        kept = each
        if each.kind == "seed":
            seen[each.name] += 1
            if _is_left_out(seen[each.name] - 1, lines[each.name], most):
                continue
        elif each.kind == "dots" and len(each.points) > most_dots:
            number = len(each.points)
            kept = _with_points(each, [i for i in range(number) if not _is_left_out(i, number, most_dots)])
        series.append(kept)
    below = fewer(chart.below) if chart.below else None
    same = below is chart.below and len(series) == len(chart.series) and all(map(is_, series, chart.series))
    return chart if same else replace(chart, series=tuple(series), below=below)


def _is_left_out(place: int, number: int, most: int) -> bool:
    """Whether the one at this place is not among the so many that are spread evenly over all of them."""
    return number > most and place * most // number == (place - 1) * most // number and place > 0


def thinned(chart: Chart, every: int) -> Chart:
    """A chart whose lines have about one of so many points: the lowest and the highest of each stretch."""
    if every == 1:
        return chart
    series = []
    for each in chart.series:
        kept = _lowest_and_highest([y for _, y in each.points], 2 * every)
        series.append(each if each.kind == "dots" else _with_points(each, kept))
    below = thinned(chart.below, every) if chart.below else None
    return replace(chart, series=tuple(series), below=below)


def _lowest_and_highest(values: Sequence[float], stretch: int) -> list[int]:
    """The places of both in each stretch; one that is not finite counts as the highest."""
    kept: set[int] = set()
    for start in range(0, len(values), stretch):
        places = range(start, min(start + stretch, len(values)))
        kept |= {min(places, key=lambda i: values[i]), max(places, key=lambda i: _height(values[i]))}
    return sorted(kept)


def _height(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def is_empty(picture: Picture) -> bool:
    """Whether there is nothing to draw."""
    if isinstance(picture, Tiles):
        return not any(row for _, row in picture.rows)
    if isinstance(picture, Heatmap):
        return not picture.rows or not picture.columns
    return not any(len(_on_axes(series.points, picture)) > (series.kind != "dots") for series in picture.series)


def _on_axes(points: Sequence[Point], chart: Chart) -> list[int]:
    """The places of the points that the axes of a chart can show."""
    left, down = (-math.inf if not axis.log or axis.names else 0.0 for axis in (chart.x, chart.y))
    return [i for i, (x, y) in enumerate(points) if left < x < math.inf and down < y < math.inf]


def lines_of(chart: Chart) -> list[Series]:
    """What a terminal draws of a chart: its lines, without those of single seeds; dots where they have no line."""
    series = drawn(chart)
    lines = {each.name for each in series if each.kind in ("line", "steps")}
    return [
        each for each in series if each.kind in ("line", "steps") or (_is_scattered(each) and each.name not in lines)
    ]


def _is_scattered(series: Series) -> bool:
    return series.kind == "dots" and len(series.points) > 1


def scales(chart: Chart, shown: Sequence[Series] | None = None) -> tuple[Scale, Scale]:
    """The x and y axis of what is drawn, whatever stands below it included."""
    series = drawn(chart) if shown is None else shown
    points = [point for each in series for point in each.points]
    across = [x for x, _ in points]
    if shown is None and chart.below is not None and chart.x.low is None:
        across += [x for each in drawn(chart.below) for x, _ in each.points]
    spans = [(low, high) for each in series for low, high in each.spans if math.isfinite(low) and math.isfinite(high)]
    up = [y for _, y in points]
    along = across if chart.y.names else up
    along += [end for span in spans for end in span if end > 0 or not (chart.x if chart.y.names else chart.y).log]
    last = len(chart.y.names) - 0.5  # the first name is at the top
    return _axis_scale(chart.x, across), Scale(False, last, -0.5) if chart.y.names else _axis_scale(chart.y, up)


def _axis_scale(axis: Axis, values: Sequence[float]) -> Scale:
    return Scale(False, -0.5, len(axis.names) - 0.5) if axis.names else scale_of(axis, values)


def text_chart(points: Sequence[Point], width: int, height: int, x: Scale, y: Scale, ascii_only: bool) -> list[str]:
    """`height` lines of `width` characters. Neighbouring points are joined, so that a jump stays visible."""
    across, down = (1, 1) if ascii_only else (2, 4)
    cells = [[0] * width for _ in range(height)]
    places = [(column_of(a, width * across, x), round((1.0 - y.share(b)) * (height * down - 1))) for a, b in points]
    for column, row in _joined(places):
        cells[row // down][column // across] |= 1 if ascii_only else _BITS[column % 2][row % 4]
    if ascii_only:
        return ["".join("*" if cell else " " for cell in line) for line in cells]
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in line) for line in cells]


def column_of(value: float, width: int, x: Scale) -> int:
    """The column of a value of x."""
    return round(x.share(value) * (width - 1))


def _joined(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Every dot of the lines between places, each joined to the one before it."""
    (column, row), *others = places
    for next_column, next_row in others:
        last = row
        for here in range(column, next_column + 1):
            share = (here - column) / (next_column - column) if next_column > column else 1.0
            wanted = round(row + share * (next_row - row))
            yield from ((here, between) for between in range(min(last, wanted), max(last, wanted) + 1))
            last = wanted
        column, row = next_column, next_row
