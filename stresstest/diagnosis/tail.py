"""How a loss curve ends: above its start, back where it was, rising, or no lower than it began."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.levels import Levels
from stresstest.logs.curve import Floats

EXPLOSION_SHARE = 0.1  # of the loss at the start, above it, as in the rules on every step
RELAPSE_SHARE = 0.5  # of what was learned, given back, as there
RECOVERY_SHARE = 0.25  # of what was learned: back below this it is undone, as there
RISING_SHARE = 0.15  # of what was learned, given back over the last part of the run
STILL_UP = 0.75  # of the highest rise: a spike that is still coming down does not rise
RISING_SIGMAS = 5.0  # of the scatter of the parts' levels, by which the last must lie above the lowest
PARTS = 20  # parts of a run whose levels are compared
LEAST_PART = 3  # rows, so that one outlier does not make a level
FLAT_ROWS = 50  # fewer cannot tell a slow start from none
FLAT_SHARE = 0.05  # of the loss: progress of more than that must be excluded before a run is called flat
STILL_ROWS = 20  # of a curve without noise
LEAST_SHARE = 0.015  # of the loss: less does not count as progress, however sure it is
LUCK_SIGMAS = 4.0  # of a row's noise: a first row that is high by chance, above the luckiest of many levels
FLAT_SIGMAS = 4.0  # standard errors by which an early part must lie above the later ones


def above_start(levels: Levels) -> int | None:
    """The first row of those that end the run above where it started; None if it does not end so.

    Noise must not explain how high it went; what is left of that at the end need not be so clear.
    """
    usual = max(float(levels.several[0]), float(np.median(levels.several)))  # the noise of an explosion would hide it
    margin = EXPLOSION_SHARE * abs(levels.start)
    since = _first_of_last_run(levels.level > levels.start + margin, levels.rows_needed)
    if since is None:
        return None
    clear = levels.level[since:] > levels.start + max(margin, usual)
    return _first_above(levels, margin, since) if clear.sum() >= levels.rows_needed else None


def _first_above(levels: Levels, margin: float, since: int) -> int:
    """The first row of the explosion: an earlier one, too, where nothing was learned between the two."""
    if not since or levels.best[since] < levels.start - margin:
        return since
    above = levels.level[:since] > levels.start + margin
    lasting = np.convolve(above, np.ones(levels.rows_needed)) >= levels.rows_needed
    ends = np.flatnonzero(lasting[:since])
    return int(ends[0]) - levels.rows_needed + 1 if len(ends) else since


def gave_back(levels: Levels) -> int | None:
    """The first row of the rise that gave back half of what was learned and was not undone; None if none is left."""
    if not levels.learned:
        return None
    rise = levels.level - levels.best[-1]
    since = _first_of_last_run(rise > np.maximum(RECOVERY_SHARE * levels.learned, levels.several), 1)
    if since is None:
        return None
    halves = np.flatnonzero(rise[since:] > np.maximum(RELAPSE_SHARE * levels.learned, levels.several[since:]))
    return since + int(halves[0]) if len(halves) and len(rise) - since - halves[0] >= levels.rows_needed else None


def may_have_risen(levels: Levels) -> bool:
    """Whether some row gave back half of what was learned, be it by chance."""
    return bool((levels.loss - levels.best).max() > RELAPSE_SHARE * levels.learned)


@dataclass(frozen=True)
class Rise:
    """A rise for good: the first row of it, and which share of what was learned it gave back."""

    first: int
    share: float


def rising(levels: Levels) -> Rise | None:
    """The last rise that was not undone, in the levels of whole parts of the run; None if noise explains it."""
    parts = _parts(levels.loss)
    if len(parts) < 5 or not levels.learned:
        return None
    medians = np.array([np.median(part) for part in parts])
    lowest = int(medians[:-1].argmin())
    rise = medians - medians[lowest]
    limit = max(RISING_SHARE * levels.learned, RISING_SIGMAS * _scatter(medians[len(medians) // 2 :]))
    still_up = rise[-1] >= STILL_UP * rise[lowest:].max()
    if rise[-1] <= limit or rise[-2] <= limit / 2 or not still_up:
        return None
    unseen = np.minimum(rise[-1] / 4, levels.several)  # what noise hides of the rise at its beginning
    below = np.flatnonzero(levels.level <= medians[lowest] + unseen)
    if not len(below) or below[-1] + 1 == len(levels.loss):
        return None
    return Rise(int(below[-1]) + 1, float(rise[-1]) / levels.learned)


def flat(levels: Levels) -> bool:
    """Whether no tenth lies lower than one before it, and the rows are enough to exclude real progress."""
    loss = levels.loss
    least = LEAST_SHARE * abs(float(np.median(loss)))
    if len(loss) >= STILL_ROWS and np.ptp(loss) < least:
        return True
    if len(loss) < FLAT_ROWS or loss[0] - levels.lowest > max(float(levels.single[0]), least):
        return False
    tenths = np.array([part.mean() for part in np.array_split(loss, 10)])
    scatter = max(float(loss.std()) / np.sqrt(len(loss) / 10), _scatter(tenths))
    late, half = tenths[5:].mean(), scatter / np.sqrt(5)
    changes = ((tenths[:5].mean() - late, half * np.sqrt(2)), (tenths[0] - late, np.hypot(scatter, half)))
    learns = any(fell > max(FLAT_SIGMAS * error, least) for fell, error in changes)
    fell, error = changes[0]
    return not learns and bool(fell + 2 * error < FLAT_SHARE * abs(np.median(loss)))


def within_noise(levels: Levels) -> bool:
    """Whether the first row lies no further above the lowest level than one row's luck and many levels' together."""
    return levels.learned <= LUCK_SIGMAS * float(np.median(levels.noise))


def _parts(loss: Floats) -> list[Floats]:
    return np.array_split(loss, max(1, min(PARTS, len(loss) // LEAST_PART)))


def _scatter(values: Floats) -> float:
    """Standard deviation of values about a line, from their second differences."""
    if len(values) < 3:
        return 0.0
    return float(np.median(np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2)) * np.sqrt(2 / 3) / 0.6745)


def _first_of_last_run(holds: np.ndarray[tuple[int], np.dtype[np.bool_]], rows_needed: int) -> int | None:
    fails = np.flatnonzero(~holds)
    first = int(fails[-1]) + 1 if len(fails) else 0
    return first if len(holds) - first >= rows_needed else None
