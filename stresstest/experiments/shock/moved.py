"""What a shock moved first: the first matrix whose gradient, update or weights left those of the undisturbed twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresstest.engine.probes import SIZES
from stresstest.experiments.shock.line import Course
from stresstest.models.layout import TensorName

FACTOR = 2.0  # times more or less than the twin's


def first_move(names: Sequence[TensorName], shocked: Course, twin: Course, null: Course) -> dict[str, Any] | None:
    """The signal and place that were first off by `FACTOR`, at which step from the shock on, and by how much.

    Updates are taken per learning rate, so that a larger one does not count by itself. `None` where nothing moved
    before it did in a null twin too.
    """
    ratio, by_chance = _ratio(shocked, twin), _ratio(null, twin)
    off, calm = _first(ratio), _first(by_chance)
    if off is None or (calm is not None and calm <= off):
        return None
    signal, place = np.unravel_index(int(np.argmax(np.abs(np.log(ratio[off])))), ratio.shape[1:])
    return {
        "signal": SIZES[signal],
        "place": names[int(place)].text,
        "step": off,
        "factor": float(ratio[off, signal, place]),
    }


def _first(ratio: NDArray[np.float64]) -> int | None:
    moved = np.flatnonzero((np.abs(np.log(ratio)) > np.log(FACTOR)).any(axis=(1, 2)))
    return int(moved[0]) if len(moved) else None


def _ratio(one: Course, twin: Course) -> NDArray[np.float64]:
    """Sizes over the twin's, [T, 3, N]; 1 where either is not there."""
    both = min(len(one.frames), len(twin.frames))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = one.frames[:both].astype(np.float64) / twin.frames[:both]
        found[:, SIZES.index("update")] *= (twin.lr_T[:both] / one.lr_T[:both])[:, None]
    return np.where(np.isfinite(found) & (found > 0.0), found, 1.0)
