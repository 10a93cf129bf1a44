"""The law of one variant and one metric, and what it predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresstest.experiments.scale.law.normal import Array, mixture_quantiles
from stresstest.experiments.scale.law.observed import Cells, centre, known_sizes, log2_sides, observe, too_few
from stresstest.experiments.scale.law.posterior import LEVEL_PRIOR, posterior
from stresstest.results.bracket import Bracket

NOMINAL = 0.9  # share that an interval is to hold
_SHARES = np.array([0.5 - NOMINAL / 2, 0.5, 0.5 + NOMINAL / 2])
EXPONENT_PRIOR = 1.0  # standard deviation around 0: theory's exponents lie between -2 and 1
_STRIDE = 2531  # odd, near the golden share of the draws: pairs two sets of draws evenly, as if independent


@dataclass(frozen=True)
class Interval:
    """A median with the interval that holds 90 %."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Prediction:
    """Where one new seed at a size lies, in units of LR: a median with its 90 % prediction interval."""

    size: float
    octaves_ahead: float  # log2 of the size over the largest one of which the fit knows anything
    low: float
    median: float
    high: float

    @property
    def octaves(self) -> float:
        """Width of the interval."""
        return math.log2(self.high / self.low)

    def holds(self, bracket: Bracket) -> bool | None:
        """Whether a seed lies inside: the geometric mean of its bracket.

        Of a bracket with one side that this side leaves room for the interval; `None` where nothing is known.
        """
        low, high = log2_sides(bracket)
        if math.isinf(low) and math.isinf(high):
            return None
        middle = centre(bracket)
        least, most = (low, high) if middle is None else (math.log2(middle),) * 2
        return most >= math.log2(self.low) and least <= math.log2(self.high)

    def widened(self, factor: float) -> Prediction:
        """The same with an interval that is `factor` times as wide, in octaves, on both sides of the median."""
        low, high = (self.median * (end / self.median) ** factor for end in (self.low, self.high))
        return Prediction(self.size, self.octaves_ahead, low, self.median, high)


@dataclass(frozen=True, eq=False)
class Law:
    """log2 lr = a + b (log2 size - mean) + what the law misses at a size + the scatter of a seed, as draws."""

    sizes: tuple[float, ...]  # those of which anything is known
    origin: float  # mean of log2 size
    level_D: Array
    exponent_D: Array
    size_scatter_D: Array  # octaves
    cell_scatter_D: Array  # octaves

    @property
    def exponent(self) -> Interval:
        """b."""
        return interval(self.exponent_D)

    @property
    def size_scatter(self) -> Interval:
        """Octaves (standard deviation) by which all seeds of a size lie off the law."""
        return interval(self.size_scatter_D)

    @property
    def cell_scatter(self) -> Interval:
        """Octaves (standard deviation) between the seeds of a size."""
        return interval(self.cell_scatter_D)

    def predict(self, size: float) -> Prediction:
        """One new seed at that size: with a new effect of the size, and a new scatter."""
        scatter_D = np.hypot(self.size_scatter_D, self.cell_scatter_D)
        low, median, high = mixture_quantiles(self.line(size), scatter_D, _SHARES)
        ahead = math.log2(size / self.sizes[-1])
        return Prediction(size, ahead, float(2.0**low), float(2.0**median), float(2.0**high))

    def line(self, size: float) -> Array:
        """log2 of the law at a size, draw by draw: for a band in a picture."""
        return self.level_D + self.exponent_D * (math.log2(size) - self.origin)


def law(sizes: Sequence[float], cells: Cells) -> Law | None:
    """The law of the brackets of each size's seeds; `None` where `too_few` sizes have an answer.

    Raises:
        ConfigError: Sizes that do not grow or are not positive, or a bracket whose sides are exchanged.
    """
    observed = observe(sizes, cells)
    if too_few(cells):
        return None
    origin = float(observed.size_I.mean())
    design_IP = np.stack([np.ones(len(sizes)), observed.size_I - origin], axis=1)
    draws = posterior(observed, design_IP, np.array([LEVEL_PRIOR, EXPONENT_PRIOR]))
    level_D, exponent_D = draws.coefficients_DP.T
    return Law(
        tuple(known_sizes(sizes, cells)[0]), origin, level_D, exponent_D, draws.size_scatter_D, draws.cell_scatter_D
    )


def ratio(over: Law, under: Law, size: float) -> Interval:
    """How many times the LR of one variant is that of another at a size, as the median over many seeds.

    What each law misses at the size is in the interval; the scatter of seeds is not.
    """
    pair_D = np.arange(len(over.level_D)) * _STRIDE % len(under.level_D)
    means = over.line(size) - under.line(size)[pair_D]
    scatter = np.hypot(over.size_scatter_D, under.size_scatter_D[pair_D])
    low, median, high = 2.0 ** mixture_quantiles(means, scatter, _SHARES)
    return Interval(float(low), float(median), float(high))


def interval(values_D: Array) -> Interval:
    """Median and 90 % interval of equally likely draws."""
    low, median, high = np.quantile(values_D, _SHARES)
    return Interval(float(low), float(median), float(high))
