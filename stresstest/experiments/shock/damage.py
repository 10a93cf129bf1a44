"""What a shock cost a run, from its losses and those of its undisturbed twin on the same batches.

Noise is what the twin itself does when its weights are disturbed in the last place: the null twins. A difference counts
where it is more than that, and more than a twentieth of what the twin has learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stresstest.experiments.shock.search import Survival

Array = NDArray[np.float64]

WINDOW = 25  # steps of the trailing median
LAST = 30  # steps at the end, whose mean is the lasting damage
SHARE = 0.05  # of what the twin has learned: less is no scar
BROKEN_SHARE = 0.5  # of it: as much is a break
MORE_NULLS = 12  # null twins, where the noise of the first few hides a scar
# By the number of null twins, how many of their root mean squares a difference has to be above, as surely as a normal
# one above 3 standard deviations: Student's t at 0.99865.
_SURE = {4: 6.62, 5: 5.51, 6: 4.90, 7: 4.53, 8: 4.28, 10: 3.96, 12: 3.76, 16: 3.54, 24: 3.34, 32: 3.25, 64: 3.12}


@dataclass(frozen=True)
class Twin:
    """An undisturbed run from the step of the shock on: its losses, [T], and those of its null twins, [N, T].

    `baseline`: the loss of having learned nothing, in the unit of the loss.
    """

    loss_T: Array
    null_NT: Array
    baseline: float

    @property
    def learned(self) -> float:
        """What it has learned at the end, beyond the baseline."""
        return self.baseline - float(self.loss_T[-LAST:].mean())

    @property
    def noise(self) -> float:
        """By how much the mean of the last losses differs from its own by chance."""
        return _rms([float((null_T - self.loss_T)[-LAST:].mean()) for null_T in self.null_NT])

    @property
    def trains(self) -> bool:
        """Whether it learned something, and does so whatever the last place of its weights."""
        return bool(np.isfinite(self.null_NT).all()) and self.learned > 0.0

    @property
    def tells(self) -> bool:
        """Whether it trains, and chance hides no break."""
        return self.trains and self.floor <= BROKEN_SHARE * self.learned

    @property
    def is_noisy(self) -> bool:
        """Whether few null twins leave open what is a scar."""
        return self.trains and self.floor > SHARE * self.learned

    @property
    def floor(self) -> float:
        """The smallest lasting damage that is a scar."""
        return max(SHARE * self.learned, self.sure * self.noise)

    @property
    def sure(self) -> float:
        """How many root mean squares of so few null twins are as sure as 3 standard deviations."""
        known = [number for number in _SURE if number <= len(self.null_NT)]
        return _SURE[max(known)] if known else math.inf

    def limit(self) -> Array:
        """By how much the trailing median of the difference may lie above zero at each step, [T]."""
        level_T = trailing_median(self.loss_T, before=math.nan)
        medians_NT = np.stack([trailing_median(null_T - self.loss_T) for null_T in self.null_NT])
        noise_T = np.sqrt((medians_NT**2).mean(0))
        return np.asarray(np.maximum(SHARE * (self.baseline - level_T), self.sure * np.maximum.accumulate(noise_T)))


@dataclass(frozen=True)
class Damage:
    """What a shock cost; losses in their own unit, NaN where the run broke before it could be told.

    peak_excess: the largest loss above the twin's. recovery_steps: from the end of the shock to the last step at which
    the trailing median of the difference is above the limit; infinite where the run ends before. lasting: the mean
    difference at the end, after the shock. lasting_steps: by how many steps of the twin the run lags behind; infinite
    where its loss at the end is above all that the twin's was since the shock.
    """

    survival: Survival
    peak_excess: float
    recovery_steps: float
    lasting: float
    lasting_share: float
    lasting_steps: float


def damage_of(loss_T: Array, twin: Twin, lasts: int) -> Damage:
    """Judge a run from the step of the shock on, which lasts so many steps; NaN from where it was not finite."""
    gone = np.flatnonzero(~np.isfinite(loss_T))
    seen = int(gone[0]) if len(gone) else len(loss_T)
    excess_T = (loss_T - twin.loss_T)[:seen]
    peak = max(0.0, float(excess_T.max())) if seen else math.nan
    if seen < len(loss_T):
        return Damage("broke", peak, math.inf, math.nan, math.nan, math.nan)
    lasting = float(excess_T[max(lasts, seen - LAST) :].mean())
    above = np.flatnonzero(trailing_median(excess_T) > twin.limit())
    last = int(above[-1]) + 1 if len(above) else 0
    recovery = math.inf if last == len(excess_T) else float(max(0, last - lasts))
    survival: Survival = "recovered"
    if lasting > max(BROKEN_SHARE * twin.learned, twin.floor):
        survival = "broke"
    elif lasting > twin.floor:
        survival = "scarred"
    share = lasting / twin.learned if twin.learned > 0.0 else math.nan
    return Damage(survival, peak, recovery, lasting, share, _behind(loss_T, twin.loss_T))


def trailing_median(values_T: Array, before: float = 0.0) -> Array:
    """The median of each value and those before it, `WINDOW` in all.

    `before` is what was there before the first: 0 of a difference, since no shock had come; NaN: nothing.
    """
    padded = np.concatenate([np.full(WINDOW - 1, before), values_T])
    return np.asarray(np.nanmedian(sliding_window_view(padded, WINDOW), axis=1))


def _behind(loss_T: Array, twin_T: Array) -> float:
    """Steps since the twin was last as high as the run is at its end."""
    end = float(loss_T[-LAST:].mean())
    if end <= float(twin_T[-LAST:].mean()):
        return 0.0
    above = np.flatnonzero(trailing_median(twin_T, before=math.nan) > end)
    if not len(above):
        return math.inf
    # The mean of the last losses is as old as their middle, and a trailing median as the middle of its window.
    return max(0.0, len(twin_T) - LAST / 2 - (int(above[-1]) + 1 - WINDOW // 2))


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values)) if values else math.nan
