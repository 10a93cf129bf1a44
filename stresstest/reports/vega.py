"""Charts as Vega-Lite specifications."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

from stresstest.reports.charts import Scale, drawn, scales
from stresstest.reports.document import Axis, Chart, Heatmap, Picture, Series, Tiles, Tone
from stresstest.reports.palette import COLORS, dashes
from stresstest.reports.plot import HOVER, WIDTH, Columns, Json, Plot, digits, quoted
from stresstest.reports.svg import color_places, keyed, parts
from stresstest.reports.vega_map import map_plot
from stresstest.reports.vega_tiles import tiles_plot

_KEY = 700  # square pixels of a line in a legend, long enough for its dashes
_HEIGHT, _ROW = 240, 34  # pixels, of a chart and of a named place of its y axis
_ROOM = 6  # pixels, between the ends of an axis and what is drawn, whose dots would be cut
_LEFT, _MOST_LEFT, _LETTER = 76, 190, 6.5  # pixels for the labels of y, where parts stand under each other
_CROSS = "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z"  # Vega's own looks like a plus
_SHAPES: dict[Tone, str] = {"good": "circle", "mixed": "triangle-up", "dull": "square", "bad": _CROSS, "": "circle"}
_BEYOND = {True: 10, False: 50}  # times the length of an axis, logarithmic or not: where lines end that leave it
_DECADES = 307  # of the numbers that there are, on either side of 1
_NAME, _LINE = 28, 14  # characters of a line of a name beside an axis, and pixels of its height
_LABEL_ENDS = (0.3, 0.7)  # of the width: between them a label stands in the middle of its level


def plot_of(picture: Picture) -> Plot:
    """The plot of a chart or of a map."""
    if isinstance(picture, Tiles):
        return tiles_plot(picture)
    return map_plot(picture) if isinstance(picture, Heatmap) else _chart(picture)


def _chart(chart: Chart) -> Plot:
    shown = [part for part in parts(chart) if drawn(part)]
    names = tuple(keyed(chart))
    data: dict[str, Columns] = {}
    views = []
    across = _position(chart.x, scales(chart)[0], "x")
    for i, part in enumerate(shown):
        layers = _layers(part, f"p{i}", data, names, (across, _left(shown)) if len(shown) > 1 else None)
        views.append({"width": WIDTH, "height": _high(part), "layer": layers})
    spec: Json = {"title": chart.title, "params": [{"name": "hidden", "value": []}]}
    if len(views) == 1:
        return Plot({**spec, **views[0]}, data, names)
    return Plot({**spec, "vconcat": views, "spacing": 14, "resolve": {"scale": {"x": "shared"}}}, data, names)


def _high(chart: Chart) -> int:
    if not chart.y.names:
        return _HEIGHT
    return max(_ROW, _LINE * max(len(_lines(name)) for name in chart.y.names) + 6) * len(chart.y.names)


def _lines(name: str) -> list[str]:
    """A long name in lines that fit beside an axis."""
    return textwrap.wrap(name, _NAME, break_on_hyphens=False) or [""]


def _centred(lines: list[str], count: int) -> list[str]:
    """So many lines, with empty ones above and below: a label hangs from the middle of its first line."""
    above = (count - len(lines)) // 2
    return ["\u200b"] * above + lines + ["\u200b"] * (count - len(lines) - above)


def _left(views: Sequence[Chart]) -> int:
    """Pixels for the longest of the names beside them."""
    longest = max((len(line) for view in views for name in view.y.names for line in _lines(name)), default=0)
    return max(_LEFT, min(_MOST_LEFT, round(_LETTER * longest) + 8))


def _layers(
    chart: Chart, name: str, data: dict[str, Columns], names: Sequence[str], shared: tuple[Json, int] | None
) -> list[Json]:
    """The layers of one view, the first of which can be zoomed; their data go to `data`.

    shared: the x position of all views and the room beside them, where there are several.
    """
    series = drawn(chart)
    along, up = scales(chart)
    x, y = _position(chart.x, along, "x"), _position(chart.y, up, "y")
    if shared:
        x, left = shared
        y["axis"] = {**y["axis"], "minExtent": left, "maxExtent": left}
    size = {} if all(each.kind == "dots" for each in series) else {"symbolSize": _KEY, "symbolType": "stroke"}
    legend = {"title": None, "columns": 3, **size} if names else None
    names = names or tuple(color_places(chart))
    color = {"field": "series", "type": "nominal", "scale": _colors(names), "legend": legend}
    dash = {"field": "series", "type": "nominal", "scale": _dashes(names), "legend": legend}
    base = {"x": x, "y": y, "color": color}
    layers: list[Json] = []

    data[name] = _columns(series)

    def add(test: str, mark: Json, encoding: Json) -> None:
        kept = [{"filter": each} for each in ("indexof(hidden, datum.series) < 0", test)]
        layer = {"data": {"name": name}, "transform": kept, "mark": {"clip": True, **mark}}
        layers.append({**layer, "encoding": {**encoding, "tooltip": _tooltip(chart)}})

    kinds = {each.kind for each in series}
    banded = any(each.spans for each in series if each.kind in ("line", "guide")) and not chart.y.names
    if banded:
        band = _between(chart, base)
        for kind in ("guide", "line"):
            add(f"datum.kind == '{kind}' && isValid(datum.low)", {"type": "area", "opacity": 0.18}, band)
    looks = _looks(base, dash)
    for kind, (mark, encoding) in looks.items():
        if kind in kinds:
            add(f"datum.kind == '{kind}'", mark, encoding)
            layers[-1]["transform"] += [] if chart.y.names else [_near(up)]
    if chart.dots and "line" in kinds:
        add("datum.kind == 'line'", {"type": "point", "filled": True, "size": 46, "opacity": 1}, base)
    if kinds - {"dots"}:
        add("datum.kind != 'dots'", {"type": "point", "filled": True, "size": 60, "opacity": 0}, base)
        layers[-1]["name"] = f"{name}{HOVER}"
    _add_dots(chart, series, base, add)
    layers += _reference(chart, data, name)
    if layers and not chart.x.names:
        select = {"type": "interval", "encodings": ["x"] if chart.y.names else ["x", "y"], **_ZOOM}
        layers[0] = {"params": [{"name": f"zoom_{name}", "select": select, "bind": "scales"}], **layers[0]}
    return layers


def _looks(base: Json, dash: Json) -> dict[str, tuple[Json, Json]]:
    """The mark and the encoding of each kind of line, the lowest first."""
    line = {"type": "line", "strokeWidth": 2.4}
    each_by_itself = {**base, "detail": {"field": "line", "type": "nominal"}}
    return {
        "guide": ({"type": "line", "strokeWidth": 1.4, "strokeDash": [5, 4]}, each_by_itself),
        "steps": ({**line, "interpolate": "step-after"}, {**base, "strokeDash": dash}),
        "line": (line, {**base, "strokeDash": dash}),
        "seed": ({"type": "line", "strokeWidth": 1, "opacity": 0.75}, each_by_itself),
    }


_ZOOM: Json = {
    "zoom": "wheel![event.ctrlKey || event.metaKey]",
    "translate": "[pointerdown[event.pointerType == 'mouse'], window:pointerup] > window:pointermove!",
}


Add = Callable[[str, Json, Json], None]


def _add_dots(chart: Chart, series: Sequence[Series], base: Json, add: Add) -> None:
    """Dots with their intervals, those of a tone in its colour and shape."""
    dots = [each for each in series if each.kind == "dots"]
    tones = {tone for each in dots for tone in each.tones or ("",)}
    for tone in (tone for tone in _SHAPES if tone in tones):
        test = f"datum.kind == 'dots' && datum.tone == '{tone}'"
        color = {"color": f"@{tone}"} if tone else {}
        look = {"x": base["x"], "y": base["y"]} if tone else base
        if any(each.spans for each in dots):
            add(f"{test} && isValid(datum.low)", {"type": "rule", "strokeWidth": 2, **color}, _between(chart, look))
        add(test, {"type": "point", "filled": True, "size": 60, "opacity": 1, "shape": _SHAPES[tone], **color}, look)


def _near(scale: Scale) -> Json:
    """Lines that leave the axis end soon beyond it: over a million pixels some readers of files draw no dashes."""
    beyond = _BEYOND[scale.log]
    if scale.log:
        down, up = math.log10(scale.low), math.log10(scale.high)
        low, high = (
            10.0 ** max(down - beyond * (up - down), -_DECADES),
            10.0 ** min(up + beyond * (up - down), _DECADES),
        )
    else:
        span = beyond * (scale.high - scale.low)
        low, high = scale.low - span, scale.high + span
    return {"calculate": f"clamp(datum.y, {low:.6g}, {high:.6g})", "as": "y"}


def _between(chart: Chart, base: Json) -> Json:
    """From the low to the high end of an interval: along x where y has names."""
    along = "x" if chart.y.names else "y"
    return {**base, along: {**base[along], "field": "low"}, f"{along}2": {"field": "high"}}


def _reference(chart: Chart, data: dict[str, Columns], name: str) -> list[Json]:
    """A named level of y, or of x where y has names, if it is within the axis."""
    along = "x" if chart.y.names else "y"
    scale = scales(chart)[along == "y"]
    if chart.reference is None or not scale.low <= chart.reference[1] <= scale.high:
        return []
    words, level = chart.reference
    data[f"{name}-level"] = {along: [digits(level)], "words": [f"{words} {level:.4g}"]}
    at = _position(chart.x if along == "x" else chart.y, scale, along)
    rule = {
        "mark": {"type": "rule", "strokeDash": [3, 4], "color": "@dim", "strokeWidth": 1.6},
        "encoding": {along: at},
    }
    label = {"type": "text", "baseline": "bottom", "dy": -3, "color": "@ink", "fontSize": 11}
    beside: Json = (
        {"dx": 4, "align": "left"} if along == "y" else {"clip": False, "align": _aligned(scale.share(level))}
    )
    place = {along: at, "text": {"field": "words"}, ("x" if along == "y" else "y"): {"value": 0}}
    return [{"data": {"name": f"{name}-level"}, "layer": [rule, {"mark": {**label, **beside}, "encoding": place}]}]


def _aligned(share: float) -> str:
    low, high = _LABEL_ENDS
    return "left" if share < low else "right" if share > high else "center"


def _position(axis: Axis, scale: Scale, direction: str) -> Json:
    """The encoding of one direction: its scale over what is drawn, its title and labels."""
    ends = [scale.low, scale.high]
    domain = ends if direction == "x" or not axis.names else [scale.high, scale.low]
    kind = "log" if scale.log else "linear"
    named: Json = {}
    if axis.names:
        most = max(len(_lines(name)) for name in axis.names)
        names = ", ".join(f"[{', '.join(map(quoted, _centred(_lines(name), most)))}]" for name in axis.names)
        named = {"values": list(range(len(axis.names))), "labelExpr": f"[{names}][datum.value]", "grid": False}
        named["tickCount"] = len(axis.names)
        if direction == "y":
            named |= {"labelOverlap": False, "labelLimit": _MOST_LEFT, "labelOffset": -_LINE * (most - 1) / 2}
    elif axis.ticks:
        named = {"values": list(axis.ticks)}
    room: Json = {} if axis.names else {"padding": _ROOM}
    reverse = {"reverse": True} if direction == "y" and axis.names else {}
    return {
        "field": direction,
        "type": "quantitative",
        "title": axis.label,
        "axis": {"format": ".6~g", "tickCount": 7, **named, "title": axis.label},
        "scale": {
            "type": kind,
            "domain": domain,
            "nice": False,
            **({} if scale.log else {"zero": False}),
            **room,
            **reverse,
        },
    }


def _colors(names: Sequence[str]) -> Json:
    found = [f"@{COLORS[i % len(COLORS)]}" for i in range(len(names))]
    return {"domain": list(names), "range": found}


def _dashes(names: Sequence[str]) -> Json:
    found = [list(dashes(i)) or [1, 0] for i in range(len(names))]
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
