"""The statistics over seeds: medians with distribution-free intervals, paired ratios.

Learning rates are compared in log2 (octaves); a value that is only known to lie beyond the range
is a bracket with one open side, never a number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from pydantic import Field

from stresstest.results.bracket import Bracket, finite
from stresstest.results.brief import Brief, sides
from stresstest.results.metrics import METRICS


class MetricSummary(Brief):
    """A metric over seeds; values are in the metric's unit."""

    median: Bracket = Field(description="Where the median lies; `low` is the median of the lower sides.")
    low: float | None = Field(description="Lower end of the interval of the median; null: unbounded.")
    high: float | None = Field(description="Upper end of the interval of the median; null: unbounded.")
    coverage: float = Field(description="How often such an interval holds the true median, 0 to 1.")
    n: int = Field(description="Seeds that have a value.")
    censored: int = Field(description="Seeds whose value lies beyond the range that was looked at.")
    per_seed: dict[str, Bracket] = Field(description="The value of each seed, by its number.")

    def inside(self) -> str:
        """The median with its interval."""
        return f"{sides(self.median.low, self.median.high)} ({sides(self.low, self.high)})"


def summarise(metric: str, per_seed: Mapping[int, Bracket]) -> MetricSummary:
    """Median over seeds with a distribution-free interval."""
    lows = sorted([-math.inf if b.low is None else b.low for b in per_seed.values()])
    highs = sorted([math.inf if b.high is None else b.high for b in per_seed.values()])
    scale = METRICS[metric].scale
    rank, coverage = interval_rank(len(lows))
    return MetricSummary(
        median=Bracket(low=finite(_median(lows, scale)), high=finite(_median(highs, scale))),
        low=finite(lows[rank - 1]),
        high=finite(highs[-rank]),
        coverage=coverage,
        n=len(lows),
        censored=sum(b.low is None or b.high is None for b in per_seed.values()),
        per_seed={str(seed): bracket for seed, bracket in per_seed.items()},
    )


_BITS = 1000  # more than a float has of any share that counts here


@cache
def interval_rank(n: int, wanted: float = 0.9) -> tuple[int, float]:
    """Which order statistics bound the median, and how often: (k, coverage) for [x_(k), x_(n+1-k)].

    Exact for any continuous distribution (binomial; Conover 1999). When even the
    range covers less than `wanted`, the range it is: 3 seeds cover the median 75 % of the time.
    """
    rank, of_that, below = 1, 1, 1  # the ways in which `rank` seeds lie below the median but one, and fewer than `rank`
    while 2 * (rank + 1) <= n + 1:
        of_that = of_that * (n - rank + 1) // rank
        if _coverage(below + of_that, n) < wanted:
            break
        rank, below = rank + 1, below + of_that
    return rank, _coverage(below, n)


def ratios(over: Mapping[str, Bracket], under: Mapping[str, Bracket]) -> dict[int, Bracket]:
    """Paired ratios of last-known-good values, seed by seed; an open side stays open."""
    paired = {}
    for seed in over:
        if seed not in under:
            continue
        a, b = over[seed], under[seed]
        if a.low is None or b.low is None or b.high is None:
            continue  # against a value that is only known to lie above, no ratio is known
        beyond = a.high is None
        paired[int(seed)] = Bracket(low=a.low / b.low, high=None if beyond else a.low / b.low)
    return paired


def _coverage(below: int, n: int) -> float:
    """The share of the 2^n ways in which neither `below` of them nor as many at the other end lie."""
    shift = max(0, n - _BITS)  # to the last digit the same, and long numbers divide slowly
    return float(1 - 2 * (below >> shift) / 2 ** (n - shift))


def _median(values: Sequence[float], scale: str) -> float:
    low, high = statistics.median_low(values), statistics.median_high(values)
    if scale == "grid":
        return high
    if scale == "log2" and 0 < low < high < math.inf:
        product = low * high
        return math.sqrt(product) if 0.0 < product < math.inf else math.sqrt(low) * math.sqrt(high)
    return statistics.median(values)


def count(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, in order of first occurrence."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
