"""Rows of shocks held against each other, seed by seed: variants, and the same with and without a guard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from stresstest.experiments.shock.naming import HARM, cells_of, chosen, is_searched, size_of
from stresstest.results.records import Bracket, Cell, MetricSummary, SummaryRow, finite, interval_rank, summarise

BySeed = Mapping[str, Bracket]


@dataclass(frozen=True)
class Contrast:
    """One row held against another in one metric; of a shock that has one dose, in what became of the seeds.

    side: 1 where it takes more, -1 where it takes less, 0 where the seeds cannot tell. times: of tolerances, their
    ratio seed by seed.
    """

    row: SummaryRow
    other: SummaryRow
    metric: str
    side: int
    times: MetricSummary | None


def contrast(row: SummaryRow, other: SummaryRow, metric: str, cells: Sequence[Cell]) -> Contrast | None:
    """Two rows in `shock_tolerance` or `break_tolerance`; `None` where no seed has both."""
    values = [_values(each, metric, cells) for each in (row, other)]
    mine, theirs = values
    seeds = sorted(mine.keys() & theirs.keys(), key=int)
    if not seeds:
        return None
    times = None
    if is_searched(chosen(row)):
        times = summarise("shock_tolerance", {int(seed): _ratio(mine[seed], theirs[seed]) for seed in seeds})
    return Contrast(row, other, metric, _side([_sign(mine[seed], theirs[seed]) for seed in seeds]), times)


def contrasts(rows: Sequence[SummaryRow], metric: str, cells: Sequence[Cell]) -> list[Contrast]:
    """Every two rows of a shock, the one that takes more against the other; along a path those of a size or variant."""
    alike = [(a, b) for a, b in combinations(rows, 2) if size_of(a) == size_of(b) or a.variant == b.variant]
    pairs = [(contrast(a, b, metric, cells), contrast(b, a, metric, cells)) for a, b in alike]
    return [back if back.side > 0 else found for found, back in pairs if found is not None and back is not None]


def _values(row: SummaryRow, metric: str, cells: Sequence[Cell]) -> BySeed:
    if is_searched(chosen(row)):
        return row.metrics[metric].per_seed if metric in row.metrics else {}
    trained = [cell for cell in cells_of(row, cells) if cell.shock["outcome"] in HARM]
    return {str(cell.seed): Bracket.exactly(-HARM.index(cell.shock["outcome"])) for cell in trained}


def _sign(a: Bracket, b: Bracket) -> int:
    """Whether one lies wholly above the other."""
    if a == b:
        return 0
    if a.low is not None and b.high is not None and a.low >= b.high:
        return 1
    return -1 if b.low is not None and a.high is not None and b.low >= a.high else 0


def _side(signs: Sequence[int]) -> int:
    """The sign that the whole interval of the seeds' signs has; one seed has none."""
    if len(signs) == 1:
        return 0
    rank, _ = interval_rank(len(signs))
    low, high = sorted(signs)[rank - 1], sorted(signs)[-rank]
    return 1 if low > 0 else -1 if high < 0 else 0


def _ratio(a: Bracket, b: Bracket) -> Bracket:
    """How many times as much a run takes: of the last doses that were taken, or what is known of it."""
    if a == b:
        return Bracket.exactly(1.0)
    if a.low is not None and b.low is not None and a.high is not None and b.high is not None:
        return Bracket.exactly(a.low / b.low)
    low = a.low / b.high if a.low is not None and b.high is not None else math.nan
    high = a.high / b.low if a.high is not None and b.low is not None else math.nan
    return Bracket(low=finite(low), high=finite(high))
