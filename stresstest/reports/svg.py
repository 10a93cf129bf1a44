"""Line charts of an HTML page: coordinates in an SVG of fixed size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.reports.numbers import number

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 260, 60, 24, 10, 16
_COLORS = ("#2456b3", "#b3261e", "#1a7f4b", "#8a5a00", "#7a3fa0", "#00798c", "#c2477f", "#5c6670")
_DASHES = ("none", "6 3", "2 3")  # told apart without colour too
_MANY_TICKS = 8

Points = Sequence[tuple[float, float]]


def svg_chart(title: str, curves: Mapping[str, Points], logarithmic: bool) -> dict[str, Any] | None:
    """Coordinates in an SVG of fixed size, y logarithmic; with a logarithmic x also dots. `None` without curves."""
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return None
    x = _Axis([a for points in curves.values() for a, _ in points], _LEFT, _WIDTH - _RIGHT, logarithmic)
    y = _Axis([b for points in curves.values() for _, b in points], _HEIGHT - _BOTTOM, _TOP, True)
    return {
        "title": title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "x_ticks": x.ticks(),
        "y_ticks": y.ticks(),
        "curves": [
            {
                "name": name,
                "color": _COLORS[i % len(_COLORS)],
                "dashes": _DASHES[i // len(_COLORS) % len(_DASHES)],
                "points": " ".join(f"{x.at(a)},{y.at(b)}" for a, b in points),
                "dots": [
                    {"x": x.at(a), "y": y.at(b), "label": f"{number(a)}, {number(b)}"} for a, b in points if logarithmic
                ],
            }
            for i, (name, points) in enumerate(curves.items())
        ],
    }


class _Axis:
    """An axis, logarithmic or not, between two coordinates."""

    def __init__(self, values: Sequence[float], start: float, stop: float, logarithmic: bool) -> None:
        self._logarithmic = logarithmic
        self._low, self._high = self._place(min(values)), self._place(max(values))
        if logarithmic and self._high - self._low < 0.1:  # a flat line belongs in the middle
            self._low, self._high = self._low - 0.5, self._high + 0.5
        self._start, self._stop = start, stop

    def at(self, value: float) -> float:
        """The coordinate of a value."""
        share = (self._place(value) - self._low) / (self._high - self._low)
        return round(self._start + share * (self._stop - self._start), 1)

    def ticks(self) -> list[dict[str, Any]]:
        """Round values: powers of ten, or 1, 2 and 5 times such, not too many."""
        inside = [v for v in self._round_values() if self._low - 1e-9 <= self._place(v) <= self._high + 1e-9]
        stride = max(1, math.ceil(len(inside) / _MANY_TICKS))
        return [{"at": self.at(value), "label": number(value)} for value in inside[::stride]]

    def _round_values(self) -> list[float]:
        if not self._logarithmic:
            decade = 10.0 ** math.floor(math.log10(self._high - self._low))
            step = next(s for s in (decade / 5, decade / 2, decade) if (self._high - self._low) / s <= _MANY_TICKS + 2)
            return [step * i for i in range(math.ceil(self._low / step), math.floor(self._high / step) + 1)]
        steps = (1.0,) if self._high - self._low >= 3.0 else (1.0, 2.0, 5.0)
        decades = range(math.floor(self._low), math.ceil(self._high) + 1)
        return [step * 10.0**decade for decade in decades for step in steps]

    def _place(self, value: float) -> float:
        return math.log10(value) if self._logarithmic else value
