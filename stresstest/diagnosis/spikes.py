"""Rises of a loss that came back, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.levels import BEFORE, Levels, centred_median

SPIKE_SHARE = 0.2  # of what the run learned, or of what it had yet to learn: a rise by less changes no verdict
LISTED_SHARE = 0.1  # of what the run learned: a rise by less is left out
LARGE_SHARE = 0.5  # of what the run learned: a rise between two rows that gives back so much counts as lasting
LEFT_OPEN = 0.5  # of the rise that begins a spike: it ends where the level is back below


@dataclass(frozen=True)
class SpikeRows:
    """A rise in rows of the segment's loss, `last` included; `lasting` if it went on for the steps that count."""

    first: int
    last: int
    level_before: float
    peak: float
    recovered: bool
    lasting: bool = False

    @property
    def height(self) -> float:
        """The peak above the level before, in the loss's unit."""
        return self.peak - self.level_before


def spikes_of(levels: Levels) -> tuple[SpikeRows, ...]:
    """Every rise that noise does not explain, in order; one that is open at the end is not recovered."""
    lasting = [s for s in _lasting(levels) if s.last - s.first + 1 >= levels.rows_needed]
    taken = np.zeros(len(levels.loss), dtype=bool)
    for spike in lasting:
        taken[spike.first : spike.last + 1] = True
    short = [s for s in _short(levels) if not taken[s.first : s.last + 1].any()]
    return tuple(sorted(lasting + short, key=lambda spike: spike.first))


def counts(spike: SpikeRows, levels: Levels, steps_per_row: float) -> bool:
    """Whether a spike changes the verdict: it lasted, or lies between rows and gave back half of what was learned."""
    learned = max(levels.learned, float(levels.learned_before[spike.first]))
    return spike.lasting or (steps_per_row > 1 and spike.height > LARGE_SHARE * learned)


def _lasting(levels: Levels) -> Iterator[SpikeRows]:
    """Rises of the level above the lowest before, until they are mostly undone."""
    rise = levels.level - levels.best
    learned = np.maximum(levels.learned, levels.learned_before)
    limit = np.maximum(levels.several, SPIKE_SHARE * np.maximum(learned, levels.best - levels.lowest))
    back = np.flatnonzero(rise <= LEFT_OPEN * limit)
    end = -1
    for first in np.flatnonzero((rise > limit) & (rise > 0)):
        if first <= end:
            continue
        place = np.searchsorted(back, first)
        recovered = bool(place < len(back))
        end = int(back[place]) - 1 if recovered else len(rise) - 1
        yield _spike(levels, int(first), end, float(levels.best[first]), recovered, lasting=True)


def _short(levels: Levels) -> Iterator[SpikeRows]:
    """Rows that stand out from those around them."""
    local = centred_median(levels.loss, BEFORE)
    rise = levels.loss - local
    share = np.maximum(LISTED_SHARE * levels.learned, SPIKE_SHARE * (local - levels.lowest))
    above = np.flatnonzero((rise > np.maximum(levels.single, share)) & (rise > 0))
    for rows in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else []:
        first, last = int(rows[0]), int(rows[-1])
        yield _spike(levels, first, last, float(local[first]), last + 1 < len(rise), lasting=False)


def _spike(levels: Levels, first: int, last: int, before: float, recovered: bool, lasting: bool) -> SpikeRows:
    return SpikeRows(first, last, before, float(levels.loss[first : last + 1].max()), recovered, lasting)
