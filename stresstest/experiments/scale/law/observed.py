"""What was measured, as bounds in octaves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresstest.errors import ConfigError
from stresstest.experiments.scale.law.normal import Array
from stresstest.results.bracket import Bracket

Cells = Sequence[Sequence[Bracket]]  # of each size, the brackets of its seeds

FEWEST_SIZES = 3


@dataclass(frozen=True, eq=False)
class Observed:
    """log2 of sizes and of the sides of brackets; an open side is infinite, a seed too few is open on both."""

    size_I: Array
    low_IJ: Array
    high_IJ: Array

    def rough_line(self) -> tuple[float, float]:
        """(level at the mean size, slope) of least squares through each size's median centre.

        It only says where to look: where no bracket of a size has two sides, its bounds stand for it.
        """
        known = [i for i in range(len(self.size_I)) if np.isfinite(self._sides(i)).any()]
        centres = np.array([np.median(self._centres(i)) for i in known])
        x = self.size_I[known] - self.size_I.mean()
        slope = float(((x - x.mean()) * centres).sum() / ((x - x.mean()) ** 2).sum()) if len(known) > 1 else 0.0
        return float(centres.mean() - slope * x.mean()), slope

    def _sides(self, i: int) -> Array:
        return np.stack([self.low_IJ[i], self.high_IJ[i]])

    def _centres(self, i: int) -> Array:
        sides = self._sides(i)
        both = np.isfinite(sides).all(axis=0)
        return sides[:, both].mean(axis=0) if both.any() else sides[np.isfinite(sides)]


def observe(sizes: Sequence[float], cells: Cells) -> Observed:
    """The bounds of all cells.

    Raises:
        ConfigError: Sizes that do not grow or are not positive, or a bracket whose sides are exchanged.
    """
    if len(sizes) != len(cells):
        raise ConfigError(f"{len(sizes)} sizes, but brackets of {len(cells)}: give each size its own")
    positive = all(0.0 < size < math.inf for size in sizes)
    if not positive or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise ConfigError(f"sizes {', '.join(f'{size:g}' for size in sizes)}: give positive sizes that grow")
    most = max((len(seeds) for seeds in cells), default=0)
    low_IJ, high_IJ = np.full((len(sizes), most), -math.inf), np.full((len(sizes), most), math.inf)
    for i, seeds in enumerate(cells):
        for j, bracket in enumerate(seeds):
            low_IJ[i, j], high_IJ[i, j] = log2_sides(bracket)
            if low_IJ[i, j] > high_IJ[i, j]:
                raise ConfigError(
                    f"a bracket of size {sizes[i]:g} from {bracket.low:g} to {bracket.high:g}: exchange its sides"
                )
    return Observed(np.log2(np.array(sizes, dtype=np.float64)), low_IJ, high_IJ)


def log2_sides(bracket: Bracket) -> tuple[float, float]:
    """(low, high) in octaves; an open side, and one that is 0 or infinite, is infinite."""
    low, high = bracket.low or 0.0, math.inf if bracket.high is None else bracket.high
    return math.log2(low) if low > 0.0 else -math.inf, math.log2(high) if high > 0.0 else math.inf


def centre(bracket: Bracket) -> float | None:
    """The geometric mean of a bracket's sides, in its unit; `None` where a side is open."""
    low, high = log2_sides(bracket)
    return None if math.isinf(low) or math.isinf(high) else float(2.0 ** (0.5 * (low + high)))


def too_few(cells: Cells) -> str:
    """Why there is no law, or nothing: at least three sizes must have a seed whose bracket has two sides."""
    sides = [[log2_sides(bracket) for bracket in seeds] for seeds in cells]
    answered = sum(any(math.isfinite(low) and math.isfinite(high) for low, high in seeds) for seeds in sides)
    if answered >= FEWEST_SIZES:
        return ""
    return f"no law: it takes {FEWEST_SIZES} sizes with an answer, and {answered or 'none'} of {len(cells)} has one"
