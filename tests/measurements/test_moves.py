"""When a signal has left its range, against a loop by hand over numpy's own medians."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stresstest.measurements.diagnosis import (
    FACTOR,
    FEWEST_BEFORE,
    IN_A_ROW,
    MOST_AHEAD,
    MOST_BEFORE,
    SPREADS,
    _moved_at,
)


def by_hand(values: NDArray[np.float64], stop: int) -> int | None:
    """Value by value."""
    for i in range(max(FEWEST_BEFORE, stop - MOST_AHEAD), min(stop, len(values) - IN_A_ROW + 1)):
        before = [value for value in values[max(0, i - MOST_BEFORE) : i] if math.isfinite(value)]
        if len(before) < FEWEST_BEFORE:
            continue
        middle = np.median(before)
        allowed = max(SPREADS * 1.4826 * np.median(np.abs(np.array(before) - middle)), math.log(FACTOR))
        outside = [not abs(value - middle) <= allowed for value in values[i : max(stop, i + IN_A_ROW)]]
        if all(outside[:IN_A_ROW]) and 2 * sum(outside) > len(outside):
            return i
    return None


@pytest.mark.parametrize("seed", range(200))
def test_a_signal_moves_where_the_loop_by_hand_says(seed: int) -> None:
    draw = np.random.default_rng(seed)
    length = int(draw.integers(1, 200))
    values = draw.normal(size=length).cumsum() * draw.choice([0.01, 0.1]) + 0.1 * draw.normal(size=length)
    if seed % 2:
        values[int(draw.integers(0, length)) :] += draw.choice([3.0, -5.0, 50.0])
    for bad in (math.nan, math.inf, -math.inf)[: seed % 4]:
        values[draw.integers(0, length, size=1 + length // 20)] = bad
    stop = int(draw.integers(0, length + 3))
    assert _moved_at(values, stop) == by_hand(values, stop)


def test_a_jump_moves_and_a_level_does_not() -> None:
    jump = np.concatenate([np.zeros(30), np.full(10, 5.0)])
    assert _moved_at(jump, 40) == by_hand(jump, 40) == 30
    assert _moved_at(np.zeros(40), 40) is None
