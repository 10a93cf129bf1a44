"""Maps of numbers over an axis as Vega-Lite specifications."""

from __future__ import annotations

from stresstest.reports.charts import scale_of
from stresstest.reports.document import Tiles
from stresstest.reports.palette import VALUES
from stresstest.reports.plot import WIDTH, Columns, Json, Plot, digits, quoted
from stresstest.reports.tiles import color_ends, color_scale, colorless, tile_rows_height, words_over

_SEAM = 0.8  # pixels under the next tile, without which the paper shows between them


def tiles_plot(tiles: Tiles) -> Plot:
    """Rows of tiles in the colours of their values; those without a colour have words over them."""
    columns: Columns = {"row": [], "start": [], "end": [], "value": [], "note": [], "missing": []}
    for name, row in tiles.rows:
        for tile in row:
            columns["row"].append(name)
            columns["start"].append(digits(tile.start))
            columns["end"].append(digits(tile.end))
            columns["value"].append(None if tile.value is None else digits(tile.value))
            columns["note"].append(tile.note)
            columns["missing"].append(colorless(tile, tiles.values.log))
    words: Columns = {"row": [], "x": [], "text": []}
    for each in words_over(tiles):
        words["row"].append(each.row)
        words["x"].append(digits((each.start + each.end) / 2))
        words["text"].append(each.text)
    y: Json = {"field": "row", "type": "ordinal", "sort": [name for name, _ in tiles.rows], "title": tiles.down}
    y |= {"axis": {"grid": False, "ticks": False, "labelFlush": False, "labelLimit": 150}}
    place = {"x": _x(tiles), "x2": {"field": "end"}, "y": y}
    where = [
        {"field": "row", "type": "nominal", "title": tiles.down},
        {"field": "note", "type": "nominal", "title": "place"},
    ]
    value = {"field": "value", "type": "quantitative", "title": tiles.values.label, "format": ".4~g"}
    missing = {"field": "missing", "type": "nominal", "title": tiles.values.label}
    layers: list[Json] = [
        {
            "data": {"name": "tiles"},
            "transform": [{"filter": "datum.missing == ''"}],
            "mark": {"type": "rect", "x2Offset": _SEAM},
            "encoding": {**place, "color": _color(tiles), "tooltip": [*where, value]},
        },
        {
            "data": {"name": "tiles"},
            "transform": [{"filter": "datum.missing != ''"}],
            "mark": {"type": "rect", "color": "@dull-fill", "x2Offset": _SEAM},
            "encoding": {**place, "tooltip": [*where, missing]},
        },
        {
            "data": {"name": "words"},
            "mark": {"type": "text", "color": "@ink", "fontSize": 11},
            "encoding": {"x": {**_x(tiles), "field": "x"}, "y": y, "text": {"field": "text"}},
        },
    ]
    if not any(columns["missing"]):
        del layers[1]  # a layer without a mark has no name for a screen reader
    spec = {"title": tiles.title, "width": WIDTH, "height": tile_rows_height(tiles), "layer": layers}
    return Plot(spec, {"tiles": columns, "words": words})


def _x(tiles: Tiles) -> Json:
    scale = scale_of(tiles.x, [end for _, row in tiles.rows for tile in row for end in (tile.start, tile.end)])
    axis = {"grid": False, "format": ".6~g", "tickCount": 7}
    return {
        "field": "start",
        "type": "quantitative",
        "title": tiles.x.label,
        "axis": axis,
        "scale": {"type": "log" if scale.log else "linear", "domain": [scale.low, scale.high], "nice": False},
    }


def _color(tiles: Tiles) -> Json:
    """Colours between the ends, which the key has in words."""
    scale = color_scale(tiles)
    steps = len(VALUES) - 1
    domain = [
        scale.low * (scale.high / scale.low) ** (i / steps)
        if scale.log
        else scale.low + (scale.high - scale.low) * i / steps
        for i in range(len(VALUES))
    ]
    ends = color_ends(tiles)
    words = " : ".join(f"datum.index == {i} ? {quoted(text)}" for i, (_, text) in enumerate(ends))
    return {
        "field": "value",
        "type": "quantitative",
        "scale": {
            "type": "log" if scale.log else "linear",
            "domain": domain,
            "range": [f"@{color}" for color in VALUES],
            "clamp": True,
            "nice": False,
            **({} if scale.log else {"zero": False}),
        },
        "legend": {
            "title": tiles.values.label,
            "titleLimit": 300,
            "orient": "bottom",
            "gradientLength": 240,
            "values": [value for value, _ in ends],
            "labelExpr": f"{words} : ''",
        },
    }
