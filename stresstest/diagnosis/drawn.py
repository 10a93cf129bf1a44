"""The curves of a segment, thinned to what a chart can show."""

from __future__ import annotations

import numpy as np

from stresstest.diagnosis.records import DrawnCurve
from stresstest.logs.curve import Curve, Ints
from stresstest.logs.segments import Segment

_BINS = 300  # of which a chart has the lowest and the highest point each


def drawn_curves(segment: Segment) -> tuple[DrawnCurve, ...]:
    """The loss and the curves beside it."""
    curves = {"loss": segment.loss, **segment.others}
    return tuple(_drawn(role, curve) for role, curve in curves.items() if len(curve))


def _drawn(role: str, curve: Curve) -> DrawnCurve:
    kept = kept_rows(curve)
    return DrawnCurve(role=role, steps=tuple(curve.step[kept].tolist()), values=tuple(curve.value[kept].tolist()))


def kept_rows(curve: Curve) -> Ints:
    """[k] rows in order: both ends, and of each of equal stretches the lowest and the highest, so that spikes stay."""
    count = len(curve)
    if count <= 2 * _BINS:
        return np.arange(count)
    height = -(-count // _BINS)
    values = np.full(height * _BINS, np.nan)
    values[:count] = curve.value
    stretches = values.reshape(_BINS, height)
    known = np.isfinite(stretches)
    first = np.arange(_BINS) * height
    low = first + np.where(known, stretches, np.inf).argmin(axis=1)
    high = first + np.where(known, stretches, -np.inf).argmax(axis=1)
    kept = np.unique(np.concatenate([[0, count - 1], low, high]))
    return kept[kept < count]
