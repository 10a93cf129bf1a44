"""Closed forms: LR sensitivity of synthetic loss curves, and the exact ANOVA of a grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import stats

from stresstest.experiments.warmup.sensitivity import gain_per_doubling, sensitivity, variance_shares

INITIAL = 10.4  # ln 32101, Wortsman et al.
LRS = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0] * 7, 0.0),
        ([3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6], 0.3),  # arithmetic: half of its range
        ([3.0] * 6 + [INITIAL], (INITIAL - 3.0) / 7),  # one step at the end
        ([3.0] * 5 + [NAN, INF], 2 * (INITIAL - 3.0) / 7),  # what is not finite counts as l0
        ([3.0] * 6 + [50.0], (INITIAL - 3.0) / 7),  # and so does what is worse than l0
        ([INITIAL] * 7, 0.0),
        ([NAN] * 7, 0.0),  # never learns: nothing to be sensitive
        ([20.0] * 7, 0.0),
    ],
)
def test_lr_sensitivity_equals_its_closed_form(losses: list[float], expected: float) -> None:
    assert sensitivity(losses, INITIAL) == pytest.approx(expected, abs=1e-12)


def test_lr_sensitivity_of_a_parabola_in_log_lr_is_its_mean_height() -> None:
    """l(x) = 2 + a x^2 at x = -3..3 octaves about the best: E = a (9 + 4 + 1 + 0 + 1 + 4 + 9) / 7."""
    losses = [2.0 + 0.5 * x**2 for x in range(-3, 4)]
    assert sensitivity(losses, INITIAL) == pytest.approx(0.5 * 28 / 7)
    assert sensitivity(losses, 5.0) == pytest.approx((0.5 * (1 + 0 + 1) + 2 * 2.0 + 2 * 3.0) / 7), "capped at l0"


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=9), st.floats(0.1, 20.0))
def test_lr_sensitivity_is_never_negative_nor_above_what_there_is_to_lose(losses: list[float], initial: float) -> None:
    found = sensitivity(losses, initial)
    assert -1e-12 <= found <= initial + 1e-12


def test_variance_shares_equal_a_two_way_anova_by_hand() -> None:
    """Rows add 0 or 2, columns 0 or 4, one corner 4 more: effects 2, 3 and 1 of contrast coding."""
    shares = variance_shares(np.array([[0.0, 4.0], [2.0, 10.0]]))
    assert shares == pytest.approx({(0,): 4 / 14, (1,): 9 / 14, (0, 1): 1 / 14})


def test_a_main_effect_is_the_sum_of_squares_that_a_one_way_anova_has() -> None:
    losses = np.random.default_rng(0).normal(size=(4, 6)) + np.arange(4.0)[:, None]
    share = variance_shares(losses)[(0,)]
    between = share * losses.size * losses.var()
    within = losses.size * losses.var() - between
    f = (between / 3) / (within / 20)
    assert f == pytest.approx(stats.f_oneway(*losses).statistic)


@given(arrays(np.float64, array_shapes(min_dims=1, max_dims=4, max_side=4), elements=st.floats(-10.0, 10.0)))
def test_variance_shares_add_up_to_one(losses: Any) -> None:
    shares = variance_shares(losses)
    if losses.var() > 1e-6:
        assert sum(shares.values()) == pytest.approx(1.0)
        assert min(shares.values()) >= 0.0
    elif losses.var() == 0.0:
        assert shares == {}


@pytest.mark.parametrize(
    ("by_warmup", "gain"),
    [
        ({0: 1e-3, 10: 1e-3, 20: 2e-3, 40: 4e-3}, 1.0),  # a doubling a doubling; none cannot be doubled
        ({10: 1e-3, 20: 1e-3}, 0.0),
        ({10: 1e-3, 40: 2e-3}, 0.5),
        ({0: 1e-3, 10: 4e-3}, None),
        ({}, None),
    ],
)
def test_gain_per_doubling(by_warmup: dict[int, float], gain: float | None) -> None:
    assert gain_per_doubling(by_warmup) == (None if gain is None else pytest.approx(gain))
