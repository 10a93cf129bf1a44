"""How much wider an interval must be so that it holds what it is to hold, learned from leave-outs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stresstest.experiments.scale.law.fit import NOMINAL
from stresstest.experiments.scale.law.leave_outs import LeaveOut
from stresstest.experiments.scale.law.observed import log2_sides

FEWEST_MISSES = 20


def misses(left_out: Sequence[LeaveOut]) -> tuple[float, ...]:
    """(centre - median) / half width in octaves, of every seed whose bracket has two sides: beyond 1 is outside.

    Of one side that lies beyond the interval, how far that side is: the least that it can be. One that leaves room
    for the interval tells nothing, and is not counted.
    """
    return tuple(
        miss for each in left_out for seed in each.seeds if (miss := _miss(each, log2_sides(seed))) is not None
    )


def width_factor(found: Sequence[float]) -> float:
    """What the half width is to be multiplied with so that 90 of 100 new misses lie inside; 1 of fewer than 20.

    The split-conformal quantile of |miss|, of rank ceil(0.9 (n + 1)), which holds a new one in 90 % or more of draws
    where all are exchangeable (Vovk et al. 2005; Lei et al. 2018). It is never below 1: misses of one path share their
    size effects and count for fewer than they are, and too wide an interval costs less than one that promises too much.
    """
    if len(found) < FEWEST_MISSES:
        return 1.0
    rank = min(len(found), math.ceil(NOMINAL * (len(found) + 1) - 1e-9))
    return max(1.0, sorted(map(abs, found))[rank - 1])


def _miss(left_out: LeaveOut, sides: tuple[float, float]) -> float | None:
    low, high = sides
    ends = left_out.prediction
    median, half = math.log2(ends.median), 0.5 * ends.octaves
    if math.isfinite(low) and math.isfinite(high):
        return (0.5 * (low + high) - median) / half
    beyond = max(low - median, 0.0) if math.isfinite(low) else min(high - median, 0.0)
    return beyond / half if math.isfinite(beyond) and abs(beyond) > half else None
