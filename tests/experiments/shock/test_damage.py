"""What a shock cost, told from curves made by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from stresstest.experiments.shock.damage import LAST, Damage, Twin, damage_of, trailing_median

STEPS = 150
BASELINE = 3.0
LOSS = np.linspace(2.5, 1.0, STEPS)  # of the twin
LEARNED = BASELINE - float(np.mean([float(loss) for loss in LOSS[-30:]]))


def nulls(size: float, number: int = 4) -> np.ndarray:
    """Null twins that lie above and below their twin by turns."""
    return LOSS + size * np.array([(-1.0) ** k for k in range(number)])[:, None]


def judged(excess: np.ndarray | float, lasts: int = 0, size: float = 1e-5, number: int = 4) -> Damage:
    return damage_of(LOSS + excess, Twin(LOSS, nulls(size, number), BASELINE), lasts)


def pulse(height: float, first: int, end: int) -> np.ndarray:
    steps = np.arange(STEPS)
    return np.where((steps >= first) & (steps < end), height, 0.0)


def test_a_trailing_median_is_that_of_the_values_seen_so_far_and_what_was_before() -> None:
    values = np.sin(np.arange(60.0) ** 1.5)
    for t, (difference, level) in enumerate(
        zip(trailing_median(values), trailing_median(values, before=math.nan), strict=True)
    ):
        seen = [float(value) for value in values[max(0, t + 1 - 25) : t + 1]]
        assert difference == statistics.median([0.0] * (25 - len(seen)) + seen)
        assert level == statistics.median(seen)


@pytest.mark.parametrize(
    ("share", "survival"),
    [
        (-0.6, "recovered"),
        (0.0, "recovered"),
        (0.049, "recovered"),
        (0.051, "scarred"),
        (0.49, "scarred"),
        (0.51, "broke"),
        (3.0, "broke"),
    ],
)
def test_what_is_left_at_the_end_beside_what_was_learned_is_the_outcome(share: float, survival: str) -> None:
    found = judged(share * LEARNED)
    assert found.survival == survival
    assert found.lasting == pytest.approx(share * LEARNED)
    assert found.lasting_share == pytest.approx(share)


def test_only_the_last_thirty_steps_decide() -> None:
    assert judged(pulse(5.0, 0, STEPS - LAST)).survival == "recovered"
    assert judged(pulse(5.0, STEPS - LAST, STEPS)).survival == "broke"


def test_of_a_short_run_the_steps_of_the_shock_itself_are_no_lasting_damage() -> None:
    found = damage_of(LOSS[:35] + pulse(9.0, 0, 10)[:35], Twin(LOSS[:35], nulls(1e-5)[:, :35], BASELINE), 10)
    assert (found.survival, found.lasting) == ("recovered", 0.0)


def test_what_null_twins_do_as_well_is_not_a_scar() -> None:
    """Four whose root mean square is s make Student's t of 4 at 3 sigmas: 6.62 s."""
    size = 0.05 * LEARNED
    assert judged(6.6 * size, size=size).survival == "recovered"
    assert judged(6.7 * size, size=size).survival == "scarred"
    assert judged(3.8 * size, size=size, number=12).survival == "scarred"
    assert judged(0.6 * LEARNED, size=size).survival == "broke"
    assert judged(0.6 * LEARNED, size=0.1 * LEARNED).survival == "recovered"


def test_a_run_that_is_not_finite_breaks_and_its_peak_is_that_before() -> None:
    excess = pulse(2.0, 3, 5)
    excess[20:] = math.nan
    found = judged(excess, lasts=5)
    assert (found.survival, found.peak_excess, found.recovery_steps) == ("broke", pytest.approx(2.0), math.inf)
    assert math.isnan(found.lasting)
    excess[30:] = 0.0  # what comes after it is not looked at
    assert judged(excess).survival == "broke"
    assert math.isnan(judged(np.full(STEPS, math.nan)).peak_excess)


def test_recovery_counts_from_the_end_of_the_shock_to_the_last_step_above_the_limit() -> None:
    """A pulse of n steps, at least 13, is above the median of 25 from 13 of its steps on to 12 after its end."""
    assert judged(pulse(1.0, 0, 40), lasts=10).recovery_steps == 40 + 12 - 10
    assert judged(pulse(1.0, 0, 40), lasts=60).recovery_steps == 0.0
    assert judged(pulse(1.0, 20, 60), lasts=10).recovery_steps == 60 + 12 - 10
    assert judged(pulse(1.0, 100, STEPS)).recovery_steps == math.inf


def test_a_short_spike_is_no_lack_of_recovery_wherever_it_comes() -> None:
    for first in (0, 1, 50):
        assert judged(pulse(9.0, first, first + 12)).recovery_steps == 0.0
        assert judged(pulse(9.0, first, first + 13)).recovery_steps > 0.0


def test_the_limit_follows_what_the_twin_had_learned_by_then() -> None:
    """A twentieth of the baseline less the median of the last 25 losses of the twin."""
    limit = Twin(LOSS, nulls(0.0), BASELINE).limit()
    assert limit[100] == pytest.approx(0.05 * (BASELINE - statistics.median(float(x) for x in LOSS[76:101])))
    assert limit[0] == pytest.approx(0.05 * (BASELINE - 2.5))


def test_noise_that_grows_raises_the_limit_and_never_lowers_it_again() -> None:
    grown = LOSS + np.array([1.0, -1.0, 1.0, -1.0])[:, None] * pulse(0.2, 30, 80)
    limit = Twin(LOSS, grown, BASELINE).limit()
    assert limit[20] < 0.1
    assert (limit[60:] >= 6.62 * 0.2 - 1e-9).all()


def test_a_twin_whose_loss_starts_at_zero_is_judged_by_its_losses() -> None:
    loss = np.concatenate([[0.0], np.full(STEPS - 1, 1.0)])
    limit = Twin(loss, np.stack([loss] * 4), BASELINE).limit()
    assert limit[1] == pytest.approx(0.05 * (BASELINE - 0.5))
    assert limit[24] == pytest.approx(0.05 * (BASELINE - 1.0))


@pytest.mark.parametrize("lag", [5, 20, 60])
def test_a_run_that_is_its_twin_so_many_steps_ago_lags_by_as_many(lag: int) -> None:
    steps = np.arange(-100.0, STEPS)
    for curve in (3.0 - 0.01 * steps, 1.0 + np.exp(-steps / 200.0)):
        twin, late = curve[100:], curve[100 - lag : -lag]
        found = damage_of(late, Twin(twin, np.stack([twin] * 4), BASELINE), 0)
        assert found.lasting_steps == pytest.approx(lag, abs=1.5)


def test_no_worse_than_its_twin_lags_by_nothing_and_worse_than_all_of_it_by_more() -> None:
    assert judged(-0.1).lasting_steps == 0.0
    assert judged(9.0).lasting_steps == math.inf


def test_a_twin_trains_where_it_learned_and_all_null_twins_stay_finite() -> None:
    assert Twin(LOSS, nulls(0.0), BASELINE).trains
    assert not Twin(LOSS, nulls(0.0), 0.5).trains
    gone = nulls(0.0)
    gone[2, -1] = math.nan
    assert not Twin(LOSS, gone, BASELINE).trains


def test_a_twin_is_noisy_where_its_null_twins_hide_a_scar() -> None:
    size = 0.05 * LEARNED / 6.62
    assert not Twin(LOSS, nulls(0.99 * size), BASELINE).is_noisy
    assert Twin(LOSS, nulls(1.01 * size), BASELINE).is_noisy


def test_a_twin_tells_where_chance_hides_no_break() -> None:
    size = 0.5 * LEARNED / 6.62
    assert Twin(LOSS, nulls(0.99 * size), BASELINE).tells
    assert not Twin(LOSS, nulls(1.01 * size), BASELINE).tells
    assert not Twin(LOSS, nulls(0.0), 0.5).tells
