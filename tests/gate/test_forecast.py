"""The time left of a check: from its estimate, what its sides tell, and what the first side took."""

from __future__ import annotations

import math

import pytest

from stresstest.gate.forecast import STARTUP_SECONDS, CheckForecast, Expected
from stresstest.results.progress import Progress, TimeLeft

TEN = Expected(10, 100.0, math.log(1.5))
BOTH = ("base", "head")


def half(seconds: float, ended: int = 5, share: float = 0.5) -> Progress:
    return Progress(ended, 10, share, TimeLeft(seconds, seconds, 1.2 * seconds))


def left(forecast: CheckForecast, now: float) -> TimeLeft:
    found = forecast.progress(now).left
    assert found is not None
    return found


def test_before_it_runs_both_sides_cost_what_was_estimated_and_begin_by_starting_up() -> None:
    found = left(CheckForecast({"a": TEN}, True, BOTH), 0.0)
    starts = 2 * STARTUP_SECONDS
    assert found.seconds == pytest.approx(200.0 + starts)
    assert (found.low, found.high) == pytest.approx((200.0 / 1.5 + starts, 200.0 * 1.5 + starts))
    assert found.at_most is None


def test_the_second_side_is_expected_to_take_what_the_first_takes() -> None:
    check = CheckForecast({"a": TEN}, True, BOTH)
    check.began("base", ["a"], 0, 1000.0)
    check.heard("a", 1002.0, None)
    check.heard("a", 1003.0, half(300.0, 0, 0.0))
    check.heard("a", 1152.0, half(150.0))  # half of it took 150 s and not 50
    told = check.progress(1152.0)
    assert (told.ended, told.total) == (5, 20)
    assert told.share == pytest.approx(0.25)
    assert left(check, 1152.0).seconds == pytest.approx(150.0 + 300.0 + 2.0)
    assert left(check, 1162.0).seconds == pytest.approx(left(check, 1152.0).seconds - 10.0), "time goes on"
    check.ended(1302.0)
    assert left(check, 1302.0).seconds == pytest.approx(300.0 + 2.0)
    assert check.progress(1302.0).share == pytest.approx(0.5)


def test_steps_that_were_not_timed_tell_no_time_until_a_side_does() -> None:
    check = CheckForecast({"a": TEN, "b": Expected(10, 300.0, 0.5)}, False, BOTH)
    assert check.progress(0.0).left is None
    check.began("base", ["a", "b"], 0, 0.0)
    check.heard("a", 2.0, None)
    check.heard("a", 12.0, half(10.0, 0, 0.0))  # 20 s for 100 steps
    assert left(check, 12.0).seconds == pytest.approx(10.0 + 60.0 + 20.0 + 60.0 + 2.0)


def test_what_is_on_the_disk_counts_as_done_and_takes_no_time() -> None:
    check = CheckForecast({"a": TEN}, True, BOTH, stored={("base", "a"): 1.0})
    told = check.progress(0.0)
    assert (told.ended, told.total, told.share) == (10, 20, 0.5)
    assert left(check, 0.0).seconds == pytest.approx(100.0 + 2 * STARTUP_SECONDS)
    check.began("base", ["a"], 0, 0.0)
    check.heard("a", 3.0, None)
    check.ended(3.5)
    assert left(check, 3.5).seconds == pytest.approx(100.0 + 3.0), "a side that trained nothing tells nothing of a step"


def test_a_further_look_is_in_the_most_and_then_in_what_is_left() -> None:
    check = CheckForecast({"a": TEN, "b": TEN}, True, BOTH, [8, 16])
    assert left(check, 0.0).at_most == pytest.approx(2 * left(check, 0.0).high)
    for side, now in (("base", 0.0), ("head", 210.0)):
        check.began(side, ["a", "b"], 0, now)
        for start, name in enumerate("ab"):
            check.heard(name, now + 5.0 + 100.0 * start, None)
            check.heard(name, now + 5.0 + 100.0 * start, half(100.0, 0, 0.0))
        check.ended(now + 205.0)
    assert check.progress(415.0).share == 1.0
    check.began("base", ["b"], 1, 420.0)
    told, found = check.progress(420.0), left(check, 420.0)
    assert found.at_most is None
    assert found.seconds == pytest.approx(2 * 100.0 + 2 * 5.0), "as many seeds again, of one experiment on both sides"
    assert (told.ended, told.total) == (40, 60), "16 seeds of b, half of which are there"
    assert told.share == pytest.approx(4 / 6)


def test_a_base_that_cannot_run_it_is_left_out() -> None:
    check = CheckForecast({"a": TEN}, True, BOTH, [8, 16])
    check.began("base", ["a"], 0, 0.0)
    check.ended(4.0)
    assert check.progress(4.0).total == 10
    check.began("head", ["a"], 0, 4.0)
    assert left(check, 4.0).seconds == pytest.approx(100.0 + STARTUP_SECONDS)
    check.heard("a", 9.0, None)
    check.ended(110.0)
    check.began("head", ["a"], 1, 111.0)
    assert check.progress(111.0).total == 20, "nor does it with 16 seeds"
