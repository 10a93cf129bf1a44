"""Maps of numbers over an axis: the ends of their colours, what has no colour, and a static picture of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.reports.charts import Scale, scale_of
from stresstest.reports.document import Tile, Tiles
from stresstest.reports.numbers import number
from stresstest.reports.palette import VALUES

ROW, LOW_ROW = 24, 18  # pixels of a row's height, of few rows and of many
_FEW_ROWS = 12
_MOST_DECADES = 8.0  # of the colours; where values span more, the colours end at what is
_FAR = 1e6  # times 1, or a part of it: what lies beyond is as good as lost
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 150, 16, 6, 84
_LONGEST_NAME = 24  # characters beside a row
_KEY_WIDTH, _KEY_HEIGHT = 240, 12


@dataclass(frozen=True)
class Words:
    """What is written over neighbouring tiles of a row that have no colour."""

    row: str
    start: float
    end: float
    text: str


def tile_rows_height(tiles: Tiles) -> int:
    """Pixels of all rows."""
    return len(tiles.rows) * (ROW if len(tiles.rows) <= _FEW_ROWS else LOW_ROW)


def colorless(tile: Tile, log: bool) -> str:
    """Why a tile has no colour: it is not finite, or zero or below on a logarithmic scale; empty where it has one."""
    if tile.value is None or not math.isfinite(tile.value):
        return "not finite"
    return ("zero" if tile.value == 0.0 else "below zero") if log and tile.value <= 0.0 else ""


def color_scale(tiles: Tiles) -> Scale:
    """The ends of the colours."""
    axis = tiles.values
    values = _colored(tiles)
    scale = scale_of(axis, values or [1.0])
    if not scale.log or axis.low is not None or math.log10(scale.high / scale.low) <= _MOST_DECADES:
        return scale
    low, high = max(scale.low, 1.0 / _FAR), min(scale.high, _FAR)
    return Scale(True, low, high) if low < high else scale


def color_ends(tiles: Tiles) -> list[tuple[float, str]]:
    """The low end, the middle and the high end of the colours, in words."""
    scale = color_scale(tiles)
    values = _colored(tiles)
    middle = math.sqrt(scale.low * scale.high) if scale.log else (scale.low + scale.high) / 2
    low, high = min(values, default=scale.low), max(values, default=scale.high)
    below = "≤ " if low < scale.low else ""
    above = "≥ " if high > scale.high else ""
    return [
        (scale.low, f"{below}{number(scale.low)}"),
        (middle, number(middle)),
        (scale.high, f"{above}{number(scale.high)}"),
    ]


def _colored(tiles: Tiles) -> list[float]:
    """The values that have a colour."""
    log = tiles.values.log
    return [float(tile.value or 0.0) for _, row in tiles.rows for tile in row if not colorless(tile, log)]


def words_over(tiles: Tiles) -> list[Words]:
    """One text over each run of tiles without a colour."""
    found: list[Words] = []
    for name, row in tiles.rows:
        for tile in row:
            text = colorless(tile, tiles.values.log)
            last = found[-1] if found else None
            if last and text and (last.row, last.text, last.end) == (name, text, tile.start):
                found[-1] = Words(name, last.start, tile.end, text)
            elif text:
                found.append(Words(name, tile.start, tile.end, text))
    return found


def static_tiles(tiles: Tiles) -> dict[str, Any]:
    """The coordinates of an SVG of fixed size."""
    scale = color_scale(tiles)
    x = scale_of(tiles.x, [end for _, row in tiles.rows for tile in row for end in (tile.start, tile.end)])
    high = tile_rows_height(tiles) // len(tiles.rows)
    bottom = _TOP + high * len(tiles.rows)

    def across(value: float) -> float:
        return round(_LEFT + x.share(value) * (_WIDTH - _RIGHT - _LEFT), 1)

    def place(start: float, end: float) -> dict[str, float]:
        return {"x": across(start), "width": round(across(end) - across(start), 1)}

    def drawn(tile: Tile) -> dict[str, Any]:
        return {
            **place(tile.start, tile.end),
            "color": "none" if colorless(tile, tiles.values.log) else _color(scale.share(float(tile.value or 0.0))),
            "label": tile.note,
        }

    tops = {name: _TOP + high * i for i, (name, _) in enumerate(tiles.rows)}
    return {
        "label": tiles.title,
        "width": _WIDTH,
        "height": bottom + _BOTTOM,
        "left": _LEFT,
        "bottom": bottom,
        "row": high,
        "rows": [{"name": _short(name), "y": tops[name], "tiles": [*map(drawn, row)]} for name, row in tiles.rows],
        "words": [{"x": across((w.start + w.end) / 2), "y": tops[w.row], "text": w.text} for w in words_over(tiles)],
        "x_ticks": [{"at": across(at), "label": number(at)} for at in x.ticks()],
        "x_label": tiles.x.label,
        "middle": (_LEFT + _WIDTH - _RIGHT) / 2,
        "key": _key(tiles, bottom),
    }


def _key(tiles: Tiles, bottom: int) -> dict[str, Any]:
    step = _KEY_WIDTH / len(VALUES)
    ends: Sequence[tuple[float, str]] = color_ends(tiles)
    places = (_LEFT, _LEFT + _KEY_WIDTH / 2, _LEFT + _KEY_WIDTH)
    return {
        "label": tiles.values.label,
        "y": bottom + 48,
        "height": _KEY_HEIGHT,
        "step": round(step + 0.5, 1),
        "steps": [{"x": round(_LEFT + i * step, 1), "color": color} for i, color in enumerate(VALUES)],
        "ends": [{"x": at, "text": text} for at, (_, text) in zip(places, ends, strict=True)],
    }


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _color(share: float) -> str:
    return VALUES[round(share * (len(VALUES) - 1))]
