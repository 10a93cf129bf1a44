"""Half the rows, without losing a break."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Floats, Ints

Indices = NDArray[np.intp]
Array = TypeVar("Array")
Other = TypeVar("Other")

_RISE = 8.0  # in units of what neighbours usually differ by
_MERGED = re.compile(r"(\d+) rows each were merged")


class Shared:
    """Joins, cuts and merges curves; those of the same rows share their steps before, and afterwards too."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[object, object]] = {}
        self._last: Curve | None = None

    def joined(self, curves: list[Curve]) -> Curve:
        """One after the other."""
        if len(curves) == 1:
            return curves[0]
        steps = [curve.step for curve in curves] or [np.empty(0)]
        rows = [curve.row for curve in curves] or [np.empty(0, dtype=np.int64)]
        step, row = self._once(("joined", steps, rows), lambda: (np.concatenate(steps), np.concatenate(rows)))
        return Curve(step, np.concatenate([curve.value for curve in curves] or [np.empty(0)]), row)

    def part(self, curve: Curve, start: int, end: int) -> Curve:
        """Some of its rows."""
        if start == 0 and end == len(curve):
            return curve
        key = (f"{start} to {end}", [curve.step], [curve.row])
        step, row = self._once(key, lambda: (curve.step[start:end], curve.row[start:end]))
        return Curve(step, curve.value[start:end], row)

    def halved(self, curve: Curve) -> Curve:
        """As `halved`."""
        if len(curve) < 2:
            return curve
        pairs = self._once(("pairs", [curve.step], [curve.row]), lambda: _pairs(curve.step))
        lost = ~np.isfinite(curve.value[pairs[0]])
        if lost.any():  # what is no longer finite keeps its own step
            at = np.where(lost, *pairs)
            return Curve(curve.step[at], _merged(curve.value, *pairs), curve.row[at])
        key = ("halved", [curve.step], [curve.row])
        step, row = self._once(key, lambda: (curve.step[pairs[1]], curve.row[pairs[1]]))
        return Curve(step, _merged(curve.value, *pairs), row)

    def like_another(self, curve: Curve) -> Curve:
        """The same, with the arrays of the last one where it has the same rows."""
        last = self._last
        if last is not None and len(last) == len(curve) and np.array_equal(last.row, curve.row):
            return Curve(last.step, curve.value, last.row)
        self._last = curve
        return curve

    def _once(
        self, key: tuple[str, Sequence[Floats], Sequence[Ints]], make: Callable[[], tuple[Array, Other]]
    ) -> tuple[Array, Other]:
        """What was made of the same arrays before. The arrays are held, so that their identity stays theirs."""
        what, steps, rows = key
        name = (what, *map(id, steps), *map(id, rows))
        if name not in self._made:
            self._made[name] = ((tuple(steps), tuple(rows)), make())
        return cast(tuple[Array, Other], self._made[name][1])


def merged_note(rows: int, at_most: bool = False) -> str:
    """What is said of a log of which so many rows each were merged."""
    most = "up to " if at_most else ""
    return f"the log is large: {most}{rows} rows each were merged into one to be judged, rises within them kept"


def rows_merged(notes: Iterable[str]) -> int:
    """How many rows each were merged, by what is said of a log; 1: none."""
    return max((int(found[1]) for note in notes if (found := _MERGED.search(note))), default=1)


def halved(curve: Curve) -> Curve:
    """Neighbours merged in pairs, never across a step that goes back.

    A pair is its mean, at the place of its second row. It is the higher of the two where they differ far more than
    neighbours do, so that a rise of one row is still seen; and it is what is not finite where one of them is not, at
    the place of that one.
    """
    return Shared().halved(curve)


def _merged(value: Floats, first: Indices, last: Indices) -> Floats:
    low, high = np.minimum(value[first], value[last]), np.maximum(value[first], value[last])
    with np.errstate(invalid="ignore", over="ignore"):
        apart = high - low
        mean = low + 0.5 * apart
    merged = np.where(apart > _RISE * _usual(apart[first != last]), high, mean)
    merged = np.where(np.isfinite(value[last]), merged, value[last])
    return np.where(np.isfinite(value[first]), merged, value[first])


def _pairs(steps: Floats) -> tuple[Indices, Indices]:
    """The first and the last index of each pair; both the same where one stands alone."""
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    starts = np.concatenate(([0], back))
    ends = np.concatenate((back, [len(steps)]))
    first = np.concatenate([np.arange(start, end, 2) for start, end in zip(starts, ends, strict=True)])
    limit = np.repeat(ends, (ends - starts + 1) // 2)
    return first, np.minimum(first + 1, limit - 1)


def _usual(apart: Floats) -> float:
    finite = apart[np.isfinite(apart)]
    return float(np.median(finite)) if len(finite) else 0.0
