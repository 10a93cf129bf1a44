"""A specification of Vega-Lite with its data as columns of numbers, which charts and maps come to.

Colours stand as `@name` of a palette, so that one specification serves pages and pictures, light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stresstest.reports.palette import Palette

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
WIDTH = 560
_DIGITS = 5
HOVER = "_hover"
Columns = dict[str, list[Any]]
Json = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A specification without its data, and its data: by dataset, columns by name.

    names: of the series that can be put on and off by the parameter `hidden`, in the order of their colours.
    least: pixels of width below which it cannot be read.
    """

    spec: Json
    data: Mapping[str, Columns]
    names: tuple[str, ...] = ()
    least: int = 120

    def whole(self, palette: Palette) -> Json:
        """The specification with its data and colours, which any reader of Vega-Lite draws."""
        spec = _without_hover(colored(self.spec, palette))
        datasets = {name: rows(columns) for name, columns in self.data.items()}
        config = colored(CONFIG, palette)
        return {"$schema": SCHEMA, "background": palette["paper"], "config": config, "datasets": datasets, **spec}


CONFIG: Json = {
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": "@ink",
        "titleColor": "@ink",
        "gridColor": "@line",
        "domainColor": "@dim",
        "tickColor": "@dim",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 180,
        "labelOverlap": "greedy",
        "labelSeparation": 6,
        "labelFlush": True,
    },
    "legend": {
        "labelColor": "@ink",
        "titleColor": "@ink",
        "labelFontSize": 12,
        "labelLimit": 260,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 2.2,
        "symbolSize": 120,
        "orient": "bottom",
        "columns": 3,
    },
    "title": {"color": "@ink", "fontSize": 14, "anchor": "start", "fontWeight": 600},
    "view": {"stroke": None},
}


def _without_hover(value: Any) -> Any:
    """A specification without the unseen points that tell a pointer what it is over."""
    if isinstance(value, dict):
        return {key: _without_hover(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_hover(each) for each in value if not (isinstance(each, dict) and _is_hover(each))]
    return value


def _is_hover(layer: Json) -> bool:
    return str(layer.get("name", "")).endswith(HOVER)


def rows(columns: Columns) -> list[Json]:
    """Columns as rows."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def colored(spec: Any, palette: Palette) -> Any:
    """A specification with the colours of a palette."""
    if isinstance(spec, dict):
        return {key: colored(value, palette) for key, value in spec.items()}
    if isinstance(spec, list):
        return [colored(value, palette) for value in spec]
    if isinstance(spec, str) and spec.startswith("@"):
        return palette.get(spec[1:], spec)
    return spec


def digits(value: float) -> float | None:
    """A number to five digits; none where it is not finite."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def quoted(text: str) -> str:
    """A string of Vega's expressions."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ")
    return f"'{escaped}'"
