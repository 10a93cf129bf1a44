"""Charts and maps as Vega-Lite specifications, with their data as columns of numbers.

Colours stand as `@name` of a palette, so that one specification serves pages and pictures, light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.reports.charts import Scale, drawn, scales
from stresstest.reports.document import Axis, Chart, Heatmap, Picture, Series, SeriesKind
from stresstest.reports.palette import COLORS, DASHES, Palette
from stresstest.reports.svg import color_places, parts

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_DIGITS = 5
_HEIGHT, _ROW = 240, 26  # pixels, of a chart and of a named place of its y axis
_PLACE = 30  # pixels, of a row of a map
_WIDTH = 560
_LEFT = 76  # pixels for the labels of a y axis, where parts stand under each other
_HOVER = "_hover"
_TONES = ("good", "mixed", "dull", "bad", "")
_SHAPES = ("circle", "triangle-up", "square", "cross", "circle")
Columns = dict[str, list[Any]]
Json = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """A specification without its data, and its data: by dataset, columns by name.

    names: of the series that can be put on and off by the parameter `hidden`, in the order of their colours.
    """

    spec: Json
    data: Mapping[str, Columns]
    names: tuple[str, ...] = ()

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
    return str(layer.get("name", "")).endswith(_HOVER)


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


def plot_of(picture: Picture) -> Plot:
    """The plot of a chart or of a map."""
    return _map(picture) if isinstance(picture, Heatmap) else _chart(picture)


def _chart(chart: Chart) -> Plot:
    shown = [part for part in parts(chart) if drawn(part)]
    names = tuple(color_places([series.name for part in parts(chart) for series in part.series]))
    data: dict[str, Columns] = {}
    views = []
    across = _position(chart.x, scales(chart)[0], "x")
    for i, part in enumerate(shown):
        layers = _layers(part, f"p{i}", data, names, across if len(shown) > 1 else None)
        views.append({"width": _WIDTH, "height": _high(part), "layer": layers})
    spec: Json = {"title": chart.title, "params": [{"name": "hidden", "value": []}]}
    if len(views) == 1:
        return Plot({**spec, **views[0]}, data, names)
    return Plot({**spec, "vconcat": views, "spacing": 14, "resolve": {"scale": {"x": "shared"}}}, data, names)


def _high(chart: Chart) -> int:
    return _ROW * len(chart.y.names) if chart.y.names else _HEIGHT


def _layers(chart: Chart, name: str, data: dict[str, Columns], names: Sequence[str], shared: Json | None) -> list[Json]:
    """The layers of one view, the first of which can be zoomed; their data go to `data`.

    shared: the x position of all views, where there are several.
    """
    series = drawn(chart)
    along, up = scales(chart)
    x, y = shared or _position(chart.x, along, "x"), _position(chart.y, up, "y")
    if shared:
        y["axis"] = {**y["axis"], "minExtent": _LEFT, "maxExtent": _LEFT}
    color = {"field": "series", "type": "nominal", "scale": _colors(names), "legend": {"title": None, "columns": 3}}
    dash = {"field": "series", "type": "nominal", "scale": _dashes(names), "legend": None}
    base = {"x": x, "y": y, "color": color}
    layers: list[Json] = []

    data[name] = _columns(series)

    def add(test: str, mark: Json, encoding: Json) -> None:
        kept = [{"filter": each} for each in ("indexof(hidden, datum.series) < 0", test)]
        layer = {"data": {"name": name}, "transform": kept, "mark": {"clip": True, **mark}}
        layers.append({**layer, "encoding": {**encoding, "tooltip": _tooltip(chart)}})

    kinds = {each.kind for each in series}
    if any(each.spans for each in series):
        _add_spans(chart, base, add, kinds)
    line = {"type": "line", "strokeWidth": 2.4}
    looks: dict[str, tuple[Json, Json]] = {
        "guide": ({"type": "line", "strokeWidth": 1.4, "strokeDash": [5, 4]}, base),
        "steps": ({**line, "interpolate": "step-after"}, {**base, "strokeDash": dash}),
        "line": (line, {**base, "strokeDash": dash}),
        "seed": (
            {"type": "line", "strokeWidth": 1, "opacity": 0.75},
            {**base, "detail": {"field": "line", "type": "nominal"}},
        ),
    }
    for kind, (mark, encoding) in looks.items():
        if kind in kinds:
            add(f"datum.kind == '{kind}'", mark, encoding)
    if chart.dots and "line" in kinds:
        add("datum.kind == 'line'", {"type": "point", "filled": True, "size": 46, "opacity": 1}, base)
    if kinds - {"dots"}:
        add("datum.kind != 'dots'", {"type": "point", "filled": True, "size": 60, "opacity": 0}, base)
        layers[-1]["name"] = f"{name}{_HOVER}"
    tones = {tone for each in series if each.kind == "dots" for tone in each.tones or ("",)}
    for tone, shape in zip(_TONES, _SHAPES, strict=True):
        if tone in tones:
            dot = {"type": "point", "filled": True, "size": 60, "opacity": 1, "shape": shape}
            look = {"x": x, "y": y} if tone else base
            add(
                f"datum.kind == 'dots' && datum.tone == '{tone}'",
                {**dot, **({"color": f"@{tone}"} if tone else {})},
                look,
            )
    layers += _reference(chart, data, name)
    if layers and not chart.x.names:
        select = {"type": "interval", "encodings": ["x"] if chart.y.names else ["x", "y"], **_ZOOM}
        layers[0] = {"params": [{"name": f"zoom_{name}", "select": select, "bind": "scales"}], **layers[0]}
    return layers


_ZOOM: Json = {
    "zoom": "wheel![event.ctrlKey || event.metaKey]",
    "translate": "[pointerdown[event.pointerType == 'mouse'], window:pointerup] > window:pointermove!",
}


def _add_spans(chart: Chart, base: Json, add: Callable[[str, Json, Json], None], kinds: set[SeriesKind]) -> None:
    """Bands around lines, and bars through dots: along x where y has names."""
    along = "x" if chart.y.names else "y"
    between = {**base, along: {**base[along], "field": "low"}, f"{along}2": {"field": "high"}}
    if "line" in kinds and not chart.y.names:
        add("datum.kind == 'line' && isValid(datum.low)", {"type": "area", "opacity": 0.18}, between)
    if "dots" in kinds or chart.y.names:
        add("datum.kind == 'dots' && isValid(datum.low)", {"type": "rule", "strokeWidth": 2}, between)


def _reference(chart: Chart, data: dict[str, Columns], name: str) -> list[Json]:
    """A named level of y, if it is within the axis."""
    _, scale = scales(chart)
    if chart.reference is None or not scale.low <= chart.reference[1] <= scale.high:
        return []
    words, level = chart.reference
    data[f"{name}-level"] = {"y": [digits(level)], "words": [f"{words} {level:.4g}"]}
    y = _position(chart.y, scale, "y")
    rule = {"mark": {"type": "rule", "strokeDash": [3, 4], "color": "@dim", "strokeWidth": 1.6}, "encoding": {"y": y}}
    label = {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -3, "color": "@ink", "fontSize": 11}
    place = {"y": y, "x": {"value": 0}, "text": {"field": "words"}}
    return [{"data": {"name": f"{name}-level"}, "layer": [rule, {"mark": label, "encoding": place}]}]


def _position(axis: Axis, scale: Scale, direction: str) -> Json:
    """The encoding of one direction: its scale over what is drawn, its title and labels."""
    ends = [scale.low, scale.high]
    domain = ends if direction == "x" or not axis.names else [scale.high, scale.low]
    kind = "log" if scale.log else "linear"
    named: Json = {}
    if axis.names:
        quoted = ", ".join("'" + _quoted(name) + "'" for name in axis.names)
        named = {"values": list(range(len(axis.names))), "labelExpr": f"[{quoted}][datum.value]", "grid": False}
    reverse = {"reverse": True} if direction == "y" and axis.names else {}
    return {
        "field": direction,
        "type": "quantitative",
        "title": axis.label,
        "axis": {"format": "~g", "tickCount": 7, **named, "title": axis.label},
        "scale": {"type": kind, "domain": domain, "nice": False, **({} if scale.log else {"zero": False}), **reverse},
    }


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ")


def _colors(names: Sequence[str]) -> Json:
    found = [f"@{COLORS[i % len(COLORS)]}" for i in range(len(names))]
    return {"domain": list(names), "range": found}


def _dashes(names: Sequence[str]) -> Json:
    found = [list(DASHES[i // len(COLORS) % len(DASHES)]) or [1, 0] for i in range(len(names))]
    return {"domain": list(names), "range": found}


def _columns(series: Sequence[Series]) -> Columns:
    """The points of all series as columns, with what else some of them have."""
    found: Columns = {"x": [], "y": [], "series": [], "line": [], "kind": []}
    extra: Columns = {"low": [], "high": [], "tone": [], "note": []}
    for number, each in enumerate(series):
        count = len(each.points)
        found["x"] += [digits(x) for x, _ in each.points]
        found["y"] += [digits(y) for _, y in each.points]
        found["series"] += [each.name] * count
        found["line"] += [number] * count
        found["kind"] += [each.kind] * count
        extra["low"] += [digits(low) for low, _ in each.spans] or [None] * count
        extra["high"] += [digits(high) for _, high in each.spans] or [None] * count
        extra["tone"] += each.tones or [""] * count
        extra["note"] += each.notes or [""] * count
    used = {name: column for name, column in extra.items() if name == "tone" or any(column)}
    return {**found, **used}


def _tooltip(chart: Chart) -> list[Json]:
    numbers = [(name, axis.label) for name, axis in (("x", chart.x), ("y", chart.y)) if not axis.names]
    if any(each.spans for each in chart.series):
        numbers += [("low", "low"), ("high", "high")]
    found: list[Json] = [{"field": "series", "type": "nominal", "title": "series"}]
    found += [{"field": name, "type": "quantitative", "title": title, "format": ".4~g"} for name, title in numbers]
    if any(each.notes for each in chart.series):
        found.append({"field": "note", "type": "nominal", "title": "what"})
    return found


def digits(value: float) -> float | None:
    """A number to five digits; none where it is not finite."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _map(heatmap: Heatmap) -> Plot:
    columns: Columns = {"across": [], "down": [], "text": [], "tone": [], "note": [], "value": []}
    for label, cells in heatmap.rows:
        for column, cell in zip(heatmap.columns, cells, strict=True):
            columns["across"].append(column)
            columns["down"].append(label)
            columns["text"].append(f"{cell.text}{cell.mark}")
            columns["tone"].append(cell.tone)
            columns["note"].append(cell.tooltip)
            columns["value"].append(None if cell.value is None else digits(cell.value))
    labels = [label for label, _ in heatmap.rows]
    x = {"field": "across", "type": "ordinal", "sort": list(heatmap.columns), "title": heatmap.across}
    y = {"field": "down", "type": "ordinal", "sort": labels, "title": heatmap.down}
    place = {"x": {**x, "axis": {"labelAngle": 0, "grid": False}}, "y": {**y, "axis": {"grid": False}}}
    tooltip = [
        {"field": "down", "type": "nominal", "title": heatmap.down},
        {"field": "across", "type": "nominal", "title": heatmap.across},
        {"field": "text", "type": "nominal", "title": "value"},
        {"field": "note", "type": "nominal", "title": "what"},
    ]
    tiles = {
        "mark": {"type": "rect", "stroke": "@paper", "strokeWidth": 1},
        "encoding": {**place, "color": _tile_colors(heatmap), "tooltip": tooltip},
    }
    layers: list[Json] = [tiles]
    if heatmap.values is None:
        words = {
            "mark": {"type": "text", "color": "@ink", "fontSize": 11},
            "encoding": {**place, "text": {"field": "text"}},
        }
        layers.append(words)
    high = _PLACE * len(labels) if heatmap.values is None else max(120, min(_HEIGHT, _PLACE * len(labels)))
    return Plot(
        {"title": heatmap.title, "width": _WIDTH, "height": high, "data": {"name": "map"}, "layer": layers},
        {"map": columns},
    )


def _tile_colors(heatmap: Heatmap) -> Json:
    """By tone, or by the value from light to dark."""
    if heatmap.values is None:
        fills = [f"@{tone}-fill" if tone else "@paper" for tone in _TONES]
        scale: Json = {"domain": list(_TONES), "range": fills}
        return {"field": "tone", "type": "nominal", "scale": scale, "legend": None}
    axis = heatmap.values
    low_high = [] if axis.low is None or axis.high is None else [axis.low, axis.high]
    scale = {"type": "log" if axis.log else "linear", "scheme": "viridis", **({"domain": low_high} if low_high else {})}
    legend = {"title": axis.label, "format": "~g", "orient": "right", "gradientLength": 100}
    return {"field": "value", "type": "quantitative", "scale": scale, "legend": legend}
