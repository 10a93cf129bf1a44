"""The law's own check: what it predicts for sizes that it did not see, beside what was measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stresstest.experiments.scale.law.fit import Prediction, law
from stresstest.experiments.scale.law.observed import Cells, centre, known_sizes
from stresstest.experiments.sizes.path import FEWEST_SIZES
from stresstest.results.bracket import Bracket

_NEARLY = 1e-9  # octaves: rounding


@dataclass(frozen=True)
class LeaveOut:
    """A size that was left out of a fit."""

    prediction: Prediction
    fitted: tuple[float, ...]  # the sizes of the fit
    seeds: tuple[Bracket, ...]  # what was measured

    @property
    def size(self) -> float:
        """The size that was left out."""
        return self.prediction.size

    @property
    def octaves_ahead(self) -> float:
        """log2 of the size over the largest one of the fit."""
        return self.prediction.octaves_ahead

    @property
    def centres(self) -> tuple[float | None, ...]:
        """Geometric mean of each seed's bracket, in units of LR; `None` where a side is open."""
        return tuple(map(centre, self.seeds))

    @property
    def inside(self) -> tuple[bool | None, ...]:
        """Seed by seed, whether the centre lies in the interval.

        A bracket with one side counts as inside where its side leaves room for the interval: a miss is only what
        is sure to be one. `None`, which is not counted, where the seed has no answer.
        """
        return tuple(map(self.prediction.holds, self.seeds))


def leave_outs(sizes: Sequence[float], cells: Cells) -> tuple[LeaveOut, ...]:
    """What the law says of the largest size without it, then of the two largest without both, and so on.

    At least three sizes remain, so that seven sizes 1.41 apart are checked up to two octaves ahead.
    A fit whose remaining sizes have too few answers is left out; so is a size of which nothing is known.
    """
    sizes, cells = known_sizes(sizes, cells)
    fits = range(len(sizes) - 1, FEWEST_SIZES - 1, -1)
    return tuple(found for number in fits for found in _predicted(sizes, cells, number, len(sizes)))


def rolling(sizes: Sequence[float], cells: Cells, octaves: float = 2.0) -> tuple[LeaveOut, ...]:
    """Every fit of the first sizes, three or more, with what it says of the larger ones at most `octaves` ahead."""
    sizes, cells = known_sizes(sizes, cells)
    found: list[LeaveOut] = []
    for number in range(FEWEST_SIZES, len(sizes)):
        near = [size for size in sizes if size <= sizes[number - 1] * 2.0 ** (octaves + _NEARLY)]
        found += _predicted(sizes, cells, number, len(near))
    return tuple(found)


def reach(left_out: Sequence[LeaveOut]) -> float:
    """How many octaves beyond the largest size a number may be named: as far as a leave-out has looked."""
    return max((each.octaves_ahead for each in left_out), default=0.0)


def covers(left_out: Sequence[LeaveOut], octaves_ahead: float) -> bool:
    """Whether a size so far beyond the largest one may be named."""
    return octaves_ahead <= reach(left_out) + _NEARLY


def _predicted(sizes: Sequence[float], cells: Cells, number: int, end: int) -> list[LeaveOut]:
    """The sizes from `number` to `end`, by the law of those before."""
    known = law(sizes[:number], cells[:number])
    if known is None:
        return []
    return [LeaveOut(known.predict(sizes[i]), tuple(sizes[:number]), tuple(cells[i])) for i in range(number, end)]
