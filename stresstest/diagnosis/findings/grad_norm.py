"""A gradient norm that climbs for good."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step
from stresstest.diagnosis.findings.stretch import Stretch
from stresstest.logs.curve import Floats

_BINS = 10
_MIN_ROWS = 20
_TIMES = 5.0  # stable public logs: at most 1.9
_ORDERED = 0.75  # Kendall's tau of the bins from the lowest on


def climbing(stretch: Stretch) -> Iterator[Said]:
    """The medians of tenths rise fivefold from the lowest to the last, in order, and the two do not overlap."""
    norms = stretch.grad_norm
    if norms is None:
        return
    finite = np.isfinite(norms.value) & (norms.value > 0)
    values, steps = norms.value[finite], norms.step[finite]
    if len(values) < _MIN_ROWS:
        return
    parts = np.array_split(values, _BINS)
    middles = np.array([float(np.median(part)) for part in parts])
    lowest = int(np.argmin(middles[: _BINS // 2 + 1]))
    last = float(middles[-1])
    rise = last / float(middles[lowest])
    overlap = np.quantile(parts[-1], 0.1) <= np.quantile(parts[lowest], 0.9)
    if rise < _TIMES or overlap or _tau(middles[lowest:]) < _ORDERED:
        return
    since = float(np.array_split(steps, _BINS)[lowest][0])
    yield Said(
        f"The gradient norm climbs for good: {middles[lowest]:.3g} around step {at_step(since)}, {last:.3g} in the "
        f"last tenth ({rise:.3g} times, medians of tenths).",
        since,
        float(steps[-1]),
        {"lowest": float(middles[lowest]), "last": last, "times": rise},
    )


def _tau(values: Floats) -> float:
    """Kendall's tau of values against their order."""
    signs = np.sign(values[None, :] - values[:, None])[np.triu_indices(len(values), 1)]
    return float(signs.mean()) if len(signs) else 0.0
