"""A chart as coordinates of an SVG of fixed size, which stands in a page where scripts are blocked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.reports.charts import Scale, drawn, scales
from stresstest.reports.document import Axis, Chart, Point, Series
from stresstest.reports.numbers import number
from stresstest.reports.palette import COLORS, dashes_text

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 276, 72, 40, 10, 16
_ROW, _NAMES_LEFT = 34, 150  # height of a named place of y, and room for its name
_BEYOND = 9.0  # lengths of an axis that a line may leave it by


def static_charts(chart: Chart) -> list[dict[str, Any]]:
    """The coordinates of a chart and of what stands below it; none where there is nothing to draw."""
    if not drawn(chart):
        return []
    x, _ = scales(chart)
    colors = color_places(chart)
    shown = [part for part in parts(chart) if drawn(part)]
    left = _NAMES_LEFT if any(part.y.names for part in shown) else _LEFT  # one for all: their x axis is the same
    return [_static(part, x, left, colors) for part in shown]


def parts(chart: Chart) -> list[Chart]:
    """A chart, and what stands below it."""
    return [chart, *(parts(chart.below) if chart.below else [])]


def color_places(chart: Chart) -> dict[str, int]:
    """The place of each name, which gives its colour and dash: those of a key in its order, then the others."""
    every = [series.name for part in parts(chart) for series in part.series]
    return {name: i for i, name in enumerate(dict.fromkeys([*_colored(chart), *every]))}


def keyed(chart: Chart) -> list[str]:
    """The names that a key tells apart: none of a lone series, nor of dots whose colours are their tones'."""
    return _colored(chart) if len(color_places(chart)) > 1 else []


def _colored(chart: Chart) -> list[str]:
    """The names of what is drawn in a colour of its own."""
    series = [
        each for part in parts(chart) for each in part.series if each.name and (each.points or each.kind != "dots")
    ]
    return list(dict.fromkeys(each.name for each in series if not (each.tones and all(each.tones))))


@dataclass(frozen=True)
class _Frame:
    """Where the values of one chart lie in its picture."""

    chart: Chart
    x: Scale
    y: Scale
    left: int

    @property
    def height(self) -> int:
        return _TOP + _BOTTOM + _ROW * len(self.chart.y.names) if self.chart.y.names else _HEIGHT

    def across(self, value: float, beyond: float = 0.0) -> float:
        return round(self.left + self.x.share(value, beyond) * (_WIDTH - _RIGHT - self.left), 1)

    def up(self, value: float, beyond: float = 0.0) -> float:
        return round(self.height - _BOTTOM - self.y.share(value, beyond) * (self.height - _BOTTOM - _TOP), 1)

    def line(self, points: Sequence[Point]) -> str:
        """Cut off at the ends of the axes by what shows it."""
        return " ".join(f"{self.across(a, _BEYOND)},{self.up(b, _BEYOND)}" for a, b in points)


def _static(chart: Chart, x: Scale, left: int, colors: dict[str, int]) -> dict[str, Any]:
    frame = _Frame(chart, x, scales(chart)[1], left)
    series = sorted(drawn(chart), key=lambda each: each.kind != "seed")
    return {
        "label": chart.title,
        "width": _WIDTH,
        "height": frame.height,
        "left": left,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": frame.height - _BOTTOM,
        "x_ticks": [{"at": frame.across(at), "label": label} for at, label in _ticks(chart.x, x)],
        "y_ticks": [{"at": frame.up(at), "label": label} for at, label in _ticks(chart.y, frame.y)],
        "x_label": chart.x.label,
        "y_label": chart.y.label,
        "reference": _reference(frame),
        "series": [_shapes(each, frame, colors[each.name]) for each in series],
    }


def _shapes(each: Series, frame: _Frame, place: int) -> dict[str, Any]:
    """A series as a line, dots and a band, in the colour and with the dashes of its place."""
    dotted = each.kind == "dots" or (frame.chart.dots and each.kind == "line")
    return {
        "name": each.name,
        "kind": each.kind,
        "color": COLORS[place % len(COLORS)],
        "dashes": "none" if each.kind == "seed" else dashes_text(place),
        "points": "" if each.kind == "dots" else frame.line(_corners(each)),
        "dots": _dots(each, frame) if dotted else [],
        "band": "" if frame.chart.y.names or each.kind == "dots" else _band(each, frame),
    }


def _dots(each: Series, frame: _Frame) -> list[dict[str, Any]]:
    found = []
    for i, (a, b) in enumerate(each.points):
        note = f"{each.notes[i]}, " if each.notes else ""
        label = f"{note}{number(a)}" + ("" if frame.chart.y.names else f", {number(b)}")
        tone = each.tones[i] if each.tones else ""
        dot = {"x": frame.across(a), "y": frame.up(b), "label": label, "tone": tone, "span": _ends(each, i, frame)}
        found.append(dot)
    return found


def _ends(each: Series, i: int, frame: _Frame) -> list[float]:
    """[x, y] of both ends of a dot's interval, along x where y has names."""
    if not each.spans or not all(map(math.isfinite, each.spans[i])):
        return []
    (x, y), (low, high) = each.points[i], each.spans[i]
    ends = [(low, y), (high, y)] if frame.chart.y.names else [(x, low), (x, high)]
    return [place for a, b in ends for place in (frame.across(a), frame.up(b))]


def _band(each: Series, frame: _Frame) -> str:
    low = [(x, span[0]) for (x, _), span in zip(each.points, each.spans, strict=False)]
    high = [(x, span[1]) for (x, _), span in zip(each.points, each.spans, strict=False)]
    return frame.line([*low, *reversed(high)])


def _reference(frame: _Frame) -> dict[str, Any] | None:
    """The ends of a named level, and where its name stands; `None` of one that lies outside."""
    chart, scale = frame.chart, frame.x if frame.chart.y.names else frame.y
    if chart.reference is None or not scale.low <= chart.reference[1] <= scale.high:
        return None
    words, level = chart.reference
    name = f"{words} {level:.4g}"
    if chart.y.names:
        at = frame.across(level)
        return {"name": name, "ends": [at, _TOP, at, frame.height - _BOTTOM], "x": at + 4, "y": _TOP}
    at = frame.up(level)
    return {"name": name, "ends": [frame.left, at, _WIDTH - _RIGHT, at], "x": frame.left + 4, "y": at - 4}


def _ticks(axis: Axis, scale: Scale) -> list[tuple[float, str]]:
    if axis.names:
        return [(float(place), name) for place, name in enumerate(axis.names)]
    return [(value, number(value)) for value in axis.ticks or scale.ticks()]


def _corners(series: Series) -> Sequence[tuple[float, float]]:
    """The points of a line; of steps, both ends of each."""
    if series.kind != "steps":
        return series.points
    rights = [x for x, _ in series.points[1:]] + [math.nan]
    steps = [end for (x, y), right in zip(series.points[:-1], rights, strict=False) for end in ((x, y), (right, y))]
    return [*steps, series.points[-1]]
