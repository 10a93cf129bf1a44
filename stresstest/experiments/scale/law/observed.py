"""What was measured, as bounds in octaves."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresstest.errors import ConfigError
from stresstest.experiments.scale.law.normal import Array
from stresstest.experiments.sizes.path import FEWEST_SIZES
from stresstest.results.bracket import Bracket

Cells = Sequence[Sequence[Bracket]]  # of each size, the brackets of its seeds


@dataclass(frozen=True, eq=False)
class Observed:
    """log2 of I sizes, and K different brackets of a size in octaves: an open side is infinite, equal ones are exact.

    `count_IK` says how many seeds of a size lie in a bracket, which belongs to one size.
    """

    size_I: Array
    low_K: Array
    high_K: Array
    count_IK: Array

    def rough_line(self) -> tuple[float, float]:
        """(level at the mean size, slope) of least squares through each size's mean centre.

        It only says where to look: where no bracket of a size has two sides, its bounds stand for it.
        """
        sides = np.stack([self.low_K, self.high_K])
        known = np.isfinite(sides)
        middle_K = np.where(known, sides, 0.0).sum(axis=0) / known.sum(axis=0)
        weight_IK = self.count_IK * np.where(known.all(axis=0), 1.0, 1e-9)
        has = weight_IK.any(axis=1)
        centre = (weight_IK @ middle_K)[has] / weight_IK.sum(axis=1)[has]
        x = self.size_I[has] - self.size_I.mean()
        away = x - x.mean()
        slope = float(away @ centre / max(away @ away, 1e-9))
        return float(centre.mean() - slope * x.mean()), slope


def observe(sizes: Sequence[float], cells: Cells) -> Observed:
    """The bounds of all cells that have any.

    Raises:
        ConfigError: Sizes that do not grow or are not positive, or a bracket whose sides are exchanged.
    """
    if len(sizes) != len(cells):
        raise ConfigError(f"{len(sizes)} sizes, but brackets of {len(cells)}: give each size its own")
    positive = all(0.0 < size < math.inf for size in sizes)
    if not positive or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise ConfigError(f"sizes {', '.join(f'{size:g}' for size in sizes)}: give positive sizes that grow")
    counts = [Counter(filter(_has_a_side, map(log2_sides, seeds))) for seeds in cells]
    found = [(i, low, high, number) for i, seeds in enumerate(counts) for (low, high), number in seeds.items()]
    for i, low, high, _ in found:
        if low > high:
            raise ConfigError(f"a bracket of size {sizes[i]:g} from {2.0**low:g} to {2.0**high:g}: exchange its sides")
    at_K, low_K, high_K, number_K = np.array(found, dtype=np.float64).reshape(-1, 4).T
    count_IK = np.where(at_K == np.arange(len(sizes))[:, None], number_K, 0.0)
    return Observed(np.log2(np.array(sizes, dtype=np.float64)), low_K, high_K, count_IK)


def known_sizes(sizes: Sequence[float], cells: Cells) -> tuple[list[float], list[Sequence[Bracket]]]:
    """The sizes of which anything is known, with their brackets: octaves are not counted from another."""
    known = [i for i, seeds in enumerate(cells) if any(map(_has_a_side, map(log2_sides, seeds)))]
    return [sizes[i] for i in known], [cells[i] for i in known]


def _has_a_side(sides: tuple[float, float]) -> bool:
    return math.isfinite(sides[0]) or math.isfinite(sides[1])


def log2_sides(bracket: Bracket) -> tuple[float, float]:
    """(low, high) in octaves; an open side, and one that is 0 or infinite, is infinite."""
    low, high = bracket.low or 0.0, math.inf if bracket.high is None else bracket.high
    return math.log2(low) if low > 0.0 else -math.inf, math.log2(high) if high > 0.0 else math.inf


def centre(bracket: Bracket) -> float | None:
    """The geometric mean of a bracket's sides, in its unit; `None` where a side is open."""
    low, high = log2_sides(bracket)
    return None if math.isinf(low) or math.isinf(high) else float(2.0 ** (0.5 * (low + high)))


def too_few(cells: Cells, fewest: int = FEWEST_SIZES) -> str:
    """Why a law cannot be fitted, or nothing: `fewest` sizes must have a seed whose bracket has two sides."""
    sides = [[log2_sides(bracket) for bracket in seeds] for seeds in cells]
    answered = sum(any(math.isfinite(low) and math.isfinite(high) for low, high in seeds) for seeds in sides)
    if answered >= fewest:
        return ""
    return f"no law: it takes {fewest} sizes with an answer, and {answered or 'none'} of {len(cells)} has one"
