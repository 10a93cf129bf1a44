"""How much a choice matters: closed forms over the losses of a factorial grid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stresstest.results.bracket import clipped


def sensitivity(losses: Sequence[float], initial_loss: float) -> float:
    """E[min(loss, l0)] - the lowest loss, over equally likely settings (Wortsman et al. 2023, Sec. 2.2).

    Of learning rates it is their LR sensitivity. In the loss's unit. Never negative, and 0 where nothing ever
    learns: read it beside the losses themselves.
    """
    capped = [clipped(loss, initial_loss) for loss in losses]
    return statistics.fmean(capped) - min(capped)


def variance_shares(losses: NDArray[np.float64]) -> dict[tuple[int, ...], float]:
    """Exact ANOVA of a full factorial grid: the share of the variance of each set of axes, main effects first.

    The shares of all sets add up to 1; a grid of equal losses has none.
    """
    total = float(losses.var())
    axes = range(losses.ndim)
    if total == 0.0:
        return {}
    effects: dict[tuple[int, ...], NDArray[np.float64]] = {(): np.full((1,) * losses.ndim, losses.mean())}
    for size in range(1, losses.ndim + 1):
        for some in combinations(axes, size):
            rest = tuple(axis for axis in axes if axis not in some)
            mean = losses.mean(axis=rest, keepdims=True) if rest else losses
            smaller = [effect for axes_of, effect in effects.items() if set(axes_of) < set(some)]
            effects[some] = mean - sum(smaller, np.zeros((1,) * losses.ndim))
    return {some: float((effect**2).mean()) / total for some, effect in effects.items() if some}


def gain_per_doubling(by_warmup: Mapping[int, float]) -> float | None:
    """Octaves that a doubling of the warm-up adds: the slope of log2 value over log2 steps, by least squares.

    Without a warm-up there is nothing to double; `None` below two warm-ups.
    """
    steps = [warmup for warmup in by_warmup if warmup > 0]
    if len(steps) < 2:
        return None
    return statistics.linear_regression([math.log2(w) for w in steps], [math.log2(by_warmup[w]) for w in steps]).slope
