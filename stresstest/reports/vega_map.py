"""Maps as Vega-Lite specifications."""

from __future__ import annotations

from collections.abc import Sequence

from stresstest.reports.document import Heatmap, Tone
from stresstest.reports.plot import WIDTH, Columns, Json, Plot, quoted

_PLACE = 30  # pixels of height, of a row
_TONES: tuple[Tone, ...] = ("good", "mixed", "dull", "bad", "")
_LETTER, _GAP = 7, 8  # pixels of width, of a letter and between texts


def map_plot(heatmap: Heatmap) -> Plot:
    """The plot of a map: places in the colour of their tone with their words in them."""
    columns: Columns = {"across": [], "down": [], "text": [], "tone": [], "note": [], "best": []}
    for label, cells in heatmap.rows:
        for column, cell in zip(heatmap.columns, cells, strict=True):
            columns["across"].append(column)
            columns["down"].append(label)
            columns["text"].append(f"{cell.text}{cell.mark}")
            columns["tone"].append(cell.tone)
            columns["note"].append(cell.tooltip)
            columns["best"].append(cell.best)
    labels = [label for label, _ in heatmap.rows]
    tooltip = [
        {"field": "down", "type": "nominal", "title": heatmap.down},
        {"field": "across", "type": "nominal", "title": heatmap.across},
        {"field": "text", "type": "nominal", "title": "value"},
        {"field": "note", "type": "nominal", "title": "what"},
    ]
    place = {
        "x": _named("across", heatmap.across, heatmap.columns)
        | {"axis": {"labelAngle": 0, "grid": False, "labelFlush": False}},
        "y": _named("down", heatmap.down, labels) | {"axis": {"grid": False, "labelFlush": False}},
        "tooltip": tooltip,
    }
    tiles = {
        "mark": {"type": "rect", "stroke": "@paper", "strokeWidth": 1},
        "encoding": {**place, "color": _tile_colors(heatmap)},
    }
    layers = [tiles, *_words(place)[: None if any(columns["best"]) else 1]]  # none is empty
    high = _PLACE * len(labels)
    spec = {"title": heatmap.title, "width": WIDTH, "height": high, "data": {"name": "map"}, "layer": layers}
    return Plot(spec, {"map": columns}, least=_least(heatmap))


def _named(field: str, title: str, names: Sequence[str]) -> Json:
    return {"field": field, "type": "ordinal", "scale": {"domain": list(names)}, "title": title}


def _least(heatmap: Heatmap) -> int:
    """Pixels of width in which no text overlaps its neighbour."""
    texts = [*heatmap.columns, *(f"{cell.text}{cell.mark}" for _, cells in heatmap.rows for cell in cells)]
    return len(heatmap.columns) * (_LETTER * max(map(len, texts)) + _GAP)


def _words(place: Json) -> list[Json]:
    """What is written in the places; the best one has a frame."""
    best = [{"filter": "datum.best"}]
    text = {"type": "text", "color": "@ink", "fontSize": 11}
    words = {**place, "text": {"field": "text"}}
    return [
        {"mark": text, "transform": [{"filter": "!datum.best"}], "encoding": words},
        {"mark": {**text, "fontWeight": "bold"}, "transform": best, "encoding": words},
        {
            "mark": {"type": "rect", "fillOpacity": 0, "stroke": "@ink", "strokeWidth": 2},
            "transform": best,
            "encoding": place,
        },
    ]


def _tile_colors(heatmap: Heatmap) -> Json:
    fills = [f"@{tone}-fill" if tone else "@paper" for tone in _TONES]
    scale = {"domain": list(_TONES), "range": fills}
    return {"field": "tone", "type": "nominal", "scale": scale, "legend": _key(heatmap)}


def _key(heatmap: Heatmap) -> Json | None:
    """What the tones that are there stand for."""
    there = {cell.tone for _, cells in heatmap.rows for cell in cells}
    said = {tone: words for tone, words in heatmap.key if tone in there}
    if not said:
        return None
    words = ", ".join(f"{quoted(tone)}: {quoted(text)}" for tone, text in said.items())
    look = {"symbolType": "square", "symbolSize": 200, "symbolStrokeColor": "@dim", "columns": 2}
    return {"title": None, "values": list(said), "labelExpr": f"{{{words}}}[datum.value]", "orient": "bottom", **look}
