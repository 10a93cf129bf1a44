"""Forest plots: a row a thing, its median as a dot with its interval, and the level that it is held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stresstest.reports.document import PAGE, Axis, Chart, Formats, Series, Tone

_ROOM = 0.1  # of the axis, beyond the last number on both sides


@dataclass(frozen=True)
class ForestRow:
    """A median with its interval; a side that is `None` is open."""

    name: str
    middle: float
    low: float | None
    high: float | None
    tone: Tone = ""
    note: str = ""


def forest(
    title: str,
    axis: Axis,
    rows: Sequence[ForestRow],
    reference: tuple[str, float],
    caption: str,
    name: str,
    formats: Formats = PAGE,
) -> Chart:
    """The chart, whose axis holds all numbers and the level; an open interval goes on to its end."""
    numbers = [reference[1], *(end for row in rows for end in (row.middle, row.low, row.high) if end is not None)]
    low, high = _ends([at for at in numbers if math.isfinite(at) and (at > 0 or not axis.log)], axis.log)
    dots = Series(
        "",
        tuple((min(high, max(low, row.middle)), float(place)) for place, row in enumerate(rows)),
        kind="dots",
        spans=tuple((low if row.low is None else row.low, high if row.high is None else row.high) for row in rows),
        tones=tuple(row.tone for row in rows),
        notes=tuple(row.note for row in rows),
    )
    x = Axis(axis.label, log=axis.log, low=low, high=high)
    y = Axis("", names=tuple(row.name for row in rows))
    return Chart(title, x, y, (dots,), reference=reference, caption=caption, name=name, formats=formats)


def _ends(values: Sequence[float], log: bool) -> tuple[float, float]:
    """A little beyond all values."""
    low, high = min(values), max(values)
    if log:
        factor = max(1.1, (high / low) ** _ROOM)
        return low / factor, high * factor
    room = _ROOM * ((high - low) or abs(high) or 1.0)
    return low - room, high + room
