"""A chart as coordinates of an SVG of fixed size, which stands in a page where scripts are blocked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stresstest.reports.charts import Scale, drawn, scales
from stresstest.reports.document import Axis, Chart, Series
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


def _static(chart: Chart, x: Scale, left: int, colors: dict[str, int]) -> dict[str, Any]:
    series, (_, y) = drawn(chart), scales(chart)
    height = _TOP + _BOTTOM + _ROW * len(chart.y.names) if chart.y.names else _HEIGHT

    def across(value: float, beyond: float = 0.0) -> float:
        return round(left + x.share(value, beyond) * (_WIDTH - _RIGHT - left), 1)

    def up(value: float, beyond: float = 0.0) -> float:
        return round(height - _BOTTOM - y.share(value, beyond) * (height - _BOTTOM - _TOP), 1)

    def line(points: Sequence[tuple[float, float]]) -> str:
        """Cut off at the ends of the axes by what shows it."""
        return " ".join(f"{across(a, _BEYOND)},{up(b, _BEYOND)}" for a, b in points)

    def shapes(each: Series) -> dict[str, Any]:
        place = colors[each.name]
        return {
            "name": each.name,
            "kind": each.kind,
            "color": COLORS[place % len(COLORS)],
            "dashes": "none" if each.kind == "seed" else dashes_text(place),
            "points": line(_corners(each)) * (each.kind != "dots"),
            "dots": _dots(each) * (each.kind == "dots" or (chart.dots and each.kind == "line")),
            "band": "" if chart.y.names or each.kind == "dots" else _band(each),
        }

    def _dots(each: Series) -> list[dict[str, Any]]:
        found = []
        for i, (a, b) in enumerate(each.points):
            note = f"{each.notes[i]}, " if each.notes else ""
            up_words = "" if chart.y.names else f", {number(b)}"
            span = _ends(each, i)
            tone = each.tones[i] if each.tones else ""
            found.append(
                {"x": across(a), "y": up(b), "label": f"{note}{number(a)}{up_words}", "tone": tone, "span": span}
            )
        return found

    def _ends(each: Series, i: int) -> list[float]:
        """[x, y] of both ends of a dot's interval, along x where y has names."""
        if not each.spans or not all(map(math.isfinite, each.spans[i])):
            return []
        (x_at, y_at), (low, high) = each.points[i], each.spans[i]
        if chart.y.names:
            return [across(low), up(y_at), across(high), up(y_at)]
        return [across(x_at), up(low), across(x_at), up(high)]

    def _band(each: Series) -> str:
        low = [(a, span[0]) for (a, _), span in zip(each.points, each.spans, strict=False)]
        high = [(a, span[1]) for (a, _), span in zip(each.points, each.spans, strict=False)]
        return line([*low, *reversed(high)])

    def _reference() -> dict[str, Any] | None:
        """The ends of a named level, and where its name stands."""
        scale = x if chart.y.names else y
        level = math.nan if chart.reference is None else chart.reference[1]
        if chart.reference is None or not scale.low <= level <= scale.high:
            return None
        name = f"{chart.reference[0]} {level:.4g}"
        if chart.y.names:
            at = across(level)
            return {"name": name, "ends": [at, _TOP, at, height - _BOTTOM], "x": at + 4, "y": _TOP}
        at = up(level)
        return {"name": name, "ends": [left, at, _WIDTH - _RIGHT, at], "x": left + 4, "y": at - 4}

    return {
        "label": chart.title,
        "width": _WIDTH,
        "height": height,
        "left": left,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": height - _BOTTOM,
        "x_ticks": [{"at": across(at), "label": label} for at, label in _ticks(chart.x, x)],
        "y_ticks": [{"at": up(at), "label": label} for at, label in _ticks(chart.y, y)],
        "x_label": chart.x.label,
        "y_label": chart.y.label,
        "reference": _reference(),
        "series": [shapes(each) for each in sorted(series, key=lambda each: each.kind != "seed")],
    }


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
