"""Line charts: dots in text, eight to a character in braille and one in ASCII, and coordinates of an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.reports.document import Axis, Chart, Point, Series
from stresstest.reports.numbers import number

# Bit of each dot in a braille cell, by column and row from the top (Unicode 2800 block).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 276, 72, 40, 10, 16
_COLORS = 8  # of the page's style
_DASHES = ("none", "6 3", "2 3")  # told apart without colour too
_MANY_TICKS = 8
_FEW_TICKS = 3
_FLAT = 0.05  # of a unit or decade: a line that spans less belongs in the middle


@dataclass(frozen=True)
class Scale:
    """An axis with its ends, and where a value lies between them."""

    log: bool
    low: float
    high: float

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one; values beyond are at the end."""
        low, high = self._place(self.low), self._place(self.high)
        value = min(self.high, max(self.low, value))
        return (self._place(value) - low) / (high - low)

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
        return math.log10(value) if self.log else value


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
    """The lines of a chart that have more than one point that its axes can show."""
    found = []
    for series in chart.series:
        points = tuple(
            (x, y)
            for x, y in series.points
            if math.isfinite(x) and math.isfinite(y) and (x > 0 or not chart.x.log) and (y > 0 or not chart.y.log)
        )
        if len(points) > 1:
            found.append(Series(series.name, points, series.marks))
    return found


def scales(chart: Chart) -> tuple[Scale, Scale]:
    """The x and y axis of what is drawn."""
    points = [point for series in drawn(chart) for point in series.points]
    return scale_of(chart.x, [x for x, _ in points]), scale_of(chart.y, [y for _, y in points])


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


def svg_charts(chart: Chart) -> list[dict[str, Any]]:
    """Coordinates of an SVG of fixed size, or of one for each line where they are drawn apart; none without lines."""
    lines = drawn(chart)
    if not lines:
        return []
    x, y = scales(chart)
    if chart.apart:
        return [_svg(chart, series.name, [series], x, y) for series in lines]
    return [_svg(chart, "", lines, x, y)]


def _svg(chart: Chart, name: str, lines: Sequence[Series], x: Scale, y: Scale) -> dict[str, Any]:
    def across(value: float) -> float:
        return round(_LEFT + x.share(value) * (_WIDTH - _RIGHT - _LEFT), 1)

    def up(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - y.share(value) * (_HEIGHT - _BOTTOM - _TOP), 1)

    level = chart.reference if chart.reference and y.low <= chart.reference[1] <= y.high else None
    return {
        "name": name,
        "label": f"{chart.title}, {name}" if name else chart.title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": _HEIGHT - _BOTTOM,
        "x_ticks": [{"at": across(value), "label": number(value)} for value in x.ticks()],
        "y_ticks": [{"at": up(value), "label": number(value)} for value in y.ticks()],
        "x_label": chart.x.label,
        "y_label": chart.y.label,
        "reference": level and {"name": level[0], "at": up(level[1])},
        "curves": [
            {
                "name": series.name,
                "color": i % _COLORS,
                "dashes": _DASHES[i // _COLORS % len(_DASHES)],
                "points": " ".join(f"{across(a)},{up(b)}" for a, b in series.points),
                "dots": [{"x": across(a), "y": up(b), "label": f"{number(a)}, {number(b)}"} for a, b in series.points]
                * chart.dots,
            }
            for i, series in enumerate(lines)
        ],
        "marks": [
            {"x": across(mark.x), "label": f"{mark.name} {number(mark.x)}", "tone": mark.tone}
            for series in lines
            for mark in series.marks
        ],
    }
