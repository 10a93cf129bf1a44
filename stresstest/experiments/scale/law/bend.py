"""Whether the slope changes on the way, and how large a change these sizes could have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresstest.experiments.scale.law.fit import EXPONENT_PRIOR, Interval, interval
from stresstest.experiments.scale.law.observed import Cells, observe, too_few
from stresstest.experiments.scale.law.posterior import LEVEL_PRIOR, posterior

FEWEST_SIZES = 4  # with an answer: three show either a bend or what the law misses at a size
BEND_PRIOR = 6.0  # standard deviation of the change of slope, around 0: so wide that it hides no large one
_OUTSIDE = 0.03  # of the interval that must leave out 0: with 0.05, up to 6 of 100 straight paths were called bent
_POWER = 0.842  # standard deviations: a normal value is less far below its mean in 80 of 100 draws, these in 73 to 84


@dataclass(frozen=True)
class Bend:
    """The slope of the larger sizes minus that of the smaller ones; they meet in the middle, in octaves."""

    change: Interval  # median and 90 % interval
    seen: bool
    smallest: float  # the change of slope that such sizes and scatters show in about 3 of 4 draws


def bend(sizes: Sequence[float], cells: Cells) -> Bend | None:
    """A test of the straight law against two slopes, with the same likelihood; `None` of fewer than four sizes.

    A bend is seen where the 97 % interval of the change leaves out 0, which it does in at most 5 of 100 straight
    paths. "No bend seen" says little without `smallest`, which is the half width of that interval and 0.84 standard
    deviations, both as these brackets leave them.

    Raises:
        ConfigError: Sizes that do not grow or are not positive, or a bracket whose sides are exchanged.
    """
    observed = observe(sizes, cells)
    if too_few(cells, FEWEST_SIZES):
        return None
    x_I = observed.size_I - observed.size_I.mean()
    turn_I = 0.5 * np.abs(observed.size_I - 0.5 * (observed.size_I[0] + observed.size_I[-1]))
    design_IP = np.stack([np.ones(len(sizes)), x_I, turn_I - turn_I.mean()], axis=1)
    change_D = posterior(observed, design_IP, np.array([LEVEL_PRIOR, EXPONENT_PRIOR, BEND_PRIOR])).coefficients_DP[:, 2]
    low, high = np.quantile(change_D, [_OUTSIDE / 2, 1 - _OUTSIDE / 2])
    smallest = float(0.5 * (high - low) + _POWER * change_D.std())
    return Bend(interval(change_D), bool(low > 0.0 or high < 0.0), smallest)
