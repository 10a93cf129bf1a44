"""Levels of a loss curve and what its noise leaves open, over whole arrays and row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stresstest.logs.curve import Floats, RowKind

PERSISTENCE = 5  # steps that a rise must last to count, as in the rules on every step
FALSE_ALARMS = 0.01  # per log: how often noise with an exponential tail may pass for a rise, in all its rows
MOST_BLOCKS = 10  # noise is taken from tenths of a log: it shrinks with the loss and jumps with the batch size
LEAST_BLOCK = 20  # rows, so that two may be outliers and the upper decile still holds
TAIL_ROWS = 200  # so that two rows or more lie in the upper percent
MOST_STRETCH = 2.0  # a tail of squares of exponentials: beyond it spikes themselves are taken for noise
LAGS = (3, 9, 27)  # rows over which a log may have been smoothed
# What a mean over 20 rows does, and half of that where none may have been taken; more is the course of the loss itself.
MOST_DRIFT: Mapping[RowKind, float] = {"window": 6.0, "unknown": 3.0}
SMOOTHED = 1.5  # drift that chance does not give
ROWS_PER_LAG = 20  # so that a steep fall at the start is not the middle of the scatter
BEFORE = 11  # rows whose median is the level before a rise: twice the persistence, so that a break is the minority
ORDERS = 1e3  # a fall by more than three orders of magnitude counts as one of three

_MEDIAN_NORMAL = 0.6745  # median of |x| for x from N(0, 1)
_FROM_FOUR = 0.878  # makes x - (the median of four others) as wide as x, for N(0, 1)
_SECOND_DIFFERENCE = np.sqrt(2 / 3)  # makes x - (its neighbours' mean) as wide as x


@dataclass(frozen=True)
class Levels:
    """A finite loss curve of n rows as the rules see it.

    rows_needed: rows in a row that persist for `PERSISTENCE` steps. level: [n] the median of that many rows about each
    row, so that a rise keeps its length. best: [n] the lowest level before each row. single, several: [n] the rise of
    one row and of the level above `best` that noise alone exceeds in one log of a hundred. start: the loss at the
    beginning of the run. learned: from it down to the lowest level.
    """

    loss: Floats
    rows_needed: int
    level: Floats
    best: Floats
    single: Floats
    several: Floats
    noise: Floats
    start: float

    @property
    def lowest(self) -> float:
        """The lowest level of all."""
        return float(min(self.best[-1], np.median(self.loss[-BEFORE:])))

    @property
    def learned(self) -> float:
        """How far the loss fell, in its unit; not more than `ORDERS` times where it ended."""
        fell = max(0.0, self.start - self.lowest)
        return min(fell, (ORDERS - 1) * abs(self.lowest)) if self.lowest > 0 else fell

    @cached_property
    def learned_before(self) -> Floats:
        """[n] how far the loss had fallen before each row, capped by the lowest level until then as in `learned`."""
        fell = np.maximum(0.0, self.start - self.best)
        return np.where(self.best > 0, np.minimum(fell, (ORDERS - 1) * np.abs(self.best)), fell)


def levels_of(loss: Floats, steps_per_row: float, row_kind: RowKind, start: float | None = None) -> Levels:
    """The levels of a finite curve; `start` is the loss at the run's beginning where that is not the first row."""
    needed = rows_needed(steps_per_row, row_kind)
    wide, noise, drift = _thresholds(loss, MOST_DRIFT.get(row_kind, 1.0))
    shrinks = {1: 1.0, 3: 0.67, 5: 0.54}[_window(needed)]  # standard deviation of the median of so many
    if drift > SMOOTHED:
        shrinks = 1.0  # neighbours share their noise
    return Levels(
        loss,
        needed,
        centred_median(loss, _window(needed)),
        _lowest_before(loss),
        wide,
        wide * shrinks,
        noise,
        float(loss[0]) if start is None else start,
    )


def rows_needed(steps_per_row: float, row_kind: RowKind) -> int:
    """Rows in a row that show a rise of `PERSISTENCE` steps: means cover the steps between them, samples do not."""
    if row_kind in ("mean", "window"):
        return max(1, int(np.ceil(PERSISTENCE / steps_per_row)))
    return max(2, int(np.ceil((PERSISTENCE - 1) / steps_per_row)) + 1)


def _window(needed: int) -> int:
    return 1 if needed == 1 else 3 if needed <= 3 else 5


def centred_median(loss: Floats, window: int) -> Floats:
    """[n] the median of `window` rows about each row; its first and last are repeated beyond the ends."""
    if window == 1 or len(loss) < window:
        return loss
    half = window // 2
    padded = np.concatenate([loss[:1].repeat(half), loss, loss[-1:].repeat(half)])
    return _medians(padded, window)


def _medians(values: Floats, window: int) -> Floats:
    """Of every stretch of `window` values, in pieces that stay small in memory."""
    stretches = np.lib.stride_tricks.sliding_window_view(values, window)
    piece = 1 << 16
    parts = [np.partition(stretches[i : i + piece], window // 2, axis=1) for i in range(0, len(stretches), piece)]
    return np.concatenate([part[:, window // 2] for part in parts])


def _lowest_before(loss: Floats) -> Floats:
    """[n] the lowest median of up to `BEFORE` rows that end before each row; before the first row it is that row."""
    n = len(loss)
    levels = np.empty(n)
    levels[0] = loss[0]
    for i in range(1, min(n, BEFORE)):
        levels[i] = np.median(loss[:i])
    if n > BEFORE:
        levels[BEFORE:] = _medians(loss[:-1], BEFORE)
    return np.minimum.accumulate(levels)


def _thresholds(loss: Floats, most_drift: float) -> tuple[Floats, Floats, float]:
    """[n] what noise exceeds with probability `FALSE_ALARMS` in the whole log, [n] its deviation, and its drift.

    The tail is an exponential through the median and the upper decile of the scatter, since a hard batch is rarer and
    worse than normal noise has it; one that falls more slowly yet, where there are rows enough to show it.
    """
    n = len(loss)
    if n < 3:
        return np.full(n, np.inf), np.full(n, np.nan), 1.0
    scatter = _apart(loss)
    blocks = np.array_split(scatter, max(1, min(MOST_BLOCKS, len(scatter) // LEAST_BLOCK)))
    middle = np.array([np.median(block) for block in blocks])
    if len(blocks) < 3:
        above = middle * np.log(5) / np.log(2)  # of an exponential tail that begins at 0: few rows have no decile
    else:
        above = np.array([np.quantile(block, 0.9) for block in blocks]) - middle
    reach = (np.log(n / (2 * FALSE_ALARMS)) / np.log(5)) ** _stretch(scatter, np.repeat(middle, [*map(len, blocks)]))
    of_block = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    of_row = np.concatenate([of_block[:1], of_block, of_block[-1:]])
    drift = min(most_drift, _drift(loss, float(np.median(_scatter(loss, 1)))))
    return drift * _typical(middle + above * reach)[of_row], _typical(middle / _MEDIAN_NORMAL)[of_row], drift


def _apart(loss: Floats) -> Floats:
    """[n - 2] how far each row lies from the middle of the two before and the two after it, as wide as its own noise.

    The middle of four, so that a row that stands out widens itself alone.
    """
    padded = np.concatenate([loss[1:2], loss, loss[-2:-1]])
    four = np.sort(np.stack([padded[:-4], padded[1:-3], padded[3:-1], padded[4:]]), axis=0)
    return np.asarray(np.abs(loss[1:-1] - (four[1] + four[2]) / 2) * _FROM_FOUR)


def _scatter(loss: Floats, lag: int) -> Floats:
    """[n - 2 lag] how far each row lies from the mean of two neighbours, as wide as the rows' own noise."""
    return np.asarray(np.abs(loss[lag:-lag] - (loss[: -2 * lag] + loss[2 * lag :]) / 2) * _SECOND_DIFFERENCE)


def _drift(loss: Floats, at_once: float) -> float:
    """How many times further rows lie from those some way off than from the next: 1 unless the log is smoothed."""
    if not at_once:
        return 1.0
    lags = [lag for lag in LAGS if lag * ROWS_PER_LAG <= len(loss)]
    return max([1.0, *(float(np.median(_scatter(loss, lag))) / at_once for lag in lags)])


def _stretch(scatter: Floats, middle: Floats) -> float:
    """How slowly the tail falls, from 1, an exponential: its upper percent against its upper tenth."""
    if len(scatter) < TAIL_ROWS or not middle.all():
        return 1.0
    half, tenth, percent = np.quantile(scatter / middle, (0.5, 0.9, 0.99))
    if tenth <= half:
        return 1.0
    exponential = np.log(50) / np.log(5)  # what the ratio of the two is for an exponential
    return float(np.clip(np.log((percent - half) / (tenth - half)) / np.log(exponential), 1.0, MOST_STRETCH))


def _typical(of_blocks: Floats) -> Floats:
    """Each block's middle one of itself and its neighbours: a spike widens one block, not its neighbours."""
    if len(of_blocks) < 3:
        return of_blocks
    padded = np.concatenate([of_blocks[1:2], of_blocks, of_blocks[-2:-1]])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1))
