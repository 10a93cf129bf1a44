"""Half the rows, without losing a break."""

from __future__ import annotations

import numpy as np

from stresstest.logs.curve import Curve, Floats

_RISE = 8.0  # in units of what neighbours usually differ by


def halved(curve: Curve) -> Curve:
    """Neighbours merged in pairs, never across a step that goes back.

    A pair is its mean, at the place of its second row. It is the higher of the two where they differ far more than
    neighbours do, so that a rise of one row is still seen; and it is what is not finite where one of them is not.
    """
    if len(curve) < 2:
        return curve
    first, last = _pairs(curve.step)
    low, high = np.minimum(curve.value[first], curve.value[last]), np.maximum(curve.value[first], curve.value[last])
    with np.errstate(invalid="ignore", over="ignore"):
        apart = high - low
        mean = low + 0.5 * apart  # not finite where one of them is not: NaN for -inf beside inf
    merged = np.where(apart > _RISE * _usual(apart[first != last]), high, mean)
    bad = ~np.isfinite(curve.value[first])
    merged = np.where(bad, curve.value[first], merged)
    bad = ~np.isfinite(curve.value[last]) & ~bad
    return Curve(curve.step[last], np.where(bad, curve.value[last], merged), curve.row[last])


def _pairs(
    steps: Floats,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], np.ndarray[tuple[int], np.dtype[np.intp]]]:
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
