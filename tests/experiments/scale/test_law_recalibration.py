"""How much an interval is widened by what was missed before."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stresstest.experiments.scale.law.fit import Prediction
from stresstest.experiments.scale.law.leave_outs import LeaveOut
from stresstest.experiments.scale.law.recalibration import misses, width_factor
from stresstest.results.bracket import Bracket


def test_fewer_than_twenty_misses_change_nothing() -> None:
    assert width_factor([5.0] * 19) == 1.0
    assert width_factor([-5.0] * 20) == 5.0


def test_the_factor_is_the_conformal_quantile() -> None:
    stored = [(-1) ** k * (k + 1) / 10 for k in range(20)]
    assert width_factor(stored) == 1.9  # rank ceil(0.9 x 21) = 19
    assert width_factor([each / 10 for each in stored]) == 1.0
    assert width_factor([each / 10 for each in stored] * 5) == 1.0  # of 100, rank 91 is 0.19: it never narrows


def test_a_new_miss_lies_inside_in_nine_of_ten_draws() -> None:
    rng = np.random.default_rng(0)
    draws = 3.0 * rng.standard_t(3, (3000, 21))
    inside = np.mean([abs(row[-1]) <= width_factor(list(row[:-1])) for row in draws])
    assert inside == pytest.approx(19 / 21, abs=4 * math.sqrt(0.09 / 3000))


def test_a_miss_is_in_half_widths_and_one_side_counts_where_it_lies_beyond() -> None:
    ahead = Prediction(size=2.0, octaves_ahead=1.0, low=0.25, median=0.5, high=1.0)
    sides = [(0.5, 2.0), (0.25, 0.25), (2.0, None), (0.9, None), (None, 0.125), (None, 0.6), (None, None)]
    left_out = LeaveOut(ahead, (1.0,), tuple(Bracket(low=low, high=high) for low, high in sides))
    assert misses([left_out]) == pytest.approx((1.0, -1.0, 2.0, -2.0))
