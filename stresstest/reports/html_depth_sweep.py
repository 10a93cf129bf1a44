"""What the HTML page of a depth sweep shows: columns, charts in SVG coordinates, Jacobians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from stresstest.findings.words import number
from stresstest.reports.depth_table import (
    depth_words,
    first_seed_cells,
    gradient_points,
    law_words,
    legend,
    main_columns,
    signal_columns,
    spectrum_words,
    stable_lr_points,
    training_rows,
    trend_columns,
    trend_legend,
)
from stresstest.reports.words import sweep_words
from stresstest.results import Result

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 260, 60, 24, 10, 16
_COLORS = ("#2456b3", "#b3261e", "#1a7f4b", "#8a5a00", "#7a3fa0", "#00798c", "#c2477f", "#5c6670")
_DASHES = ("none", "6 3", "2 3")  # told apart without colour too
_MANY_TICKS = 8
_CHARTED_DEPTHS = 4

Points = Sequence[tuple[float, float]]


def depth_sweep_facts(result: Result) -> dict[str, Any]:
    """What the template reads beside the result."""
    return {
        "setting": sweep_words(result),
        "columns": main_columns(result),
        "signal": [] if result.spec["init_only"] else signal_columns(),
        "legend": legend(result),
        "depth": lambda row: depth_words(row, result),
        "training": training_rows(result),
        "trends": trend_columns(result) if len(result.spec["depths"]) > 1 else [],
        "trend_legend": trend_legend(result),
        "charts": _charts(result),
        "spectra": _spectra(result),
    }


def _charts(result: Result) -> list[dict[str, Any]]:
    variants = list(dict.fromkeys(row.variant for row in result.summary))
    charts = [
        _chart(
            "max_stable_lr against depth",
            {variant: stable_lr_points(result.summary, variant) for variant in variants},
            "depth",
        )
    ]
    depths = sorted({row.depth for row in result.summary})
    for depth in depths[:: -max(1, len(depths) // _CHARTED_DEPTHS)]:
        charts.append(
            _chart(
                f"Gradient norm over the blocks at depth {depth}, at initialisation, seed {result.spec['seeds'][0]}",
                {cell.variant: gradient_points(cell.signal) for cell in first_seed_cells(result, depth)},
                "block",
            )
        )
    for cell in first_seed_cells(result, max(depths, default=0)):
        if cell.signals:
            curves = {"at initialisation": gradient_points(cell.signal)}
            curves |= {f"before step {step}": gradient_points(signal) for step, signal in cell.signals.items()}
            charts.append(_chart(f"Gradient norm while training: {cell.variant}, depth {cell.depth}", curves, "block"))
    return [chart for chart in charts if chart is not None]


def _chart(title: str, curves: Mapping[str, Points], over: Literal["depth", "block"]) -> dict[str, Any] | None:
    """Coordinates in an SVG of fixed size: y and depth logarithmic, blocks as they are; `None` without curves."""
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return None
    x = _Axis([a for points in curves.values() for a, _ in points], _LEFT, _WIDTH - _RIGHT, over == "depth")
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
                    {"x": x.at(a), "y": y.at(b), "label": f"{number(a)}, {number(b)}"}
                    for a, b in points
                    if over == "depth"
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


def _spectra(result: Result) -> list[dict[str, str]]:
    rows = {(row.variant, row.depth): row for row in result.summary}
    mean_square = next(column for column in signal_columns() if column.header == "Jacobian\nmean sq")
    return [
        {
            "variant": variant,
            "depth": str(depth),
            "law": law_words(cell),
            "bars": spectrum_words(cell),
            "mean_square": mean_square.text(row),
        }
        for (variant, depth), row in rows.items()
        for cell in first_seed_cells(result, depth)
        if cell.variant == variant
    ]
