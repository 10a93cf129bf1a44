"""The alarm on curves whose truth is known: made here, or trained here."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable

import pytest

from stresstest.watch.alarm import Alarm, Event


def told(losses: Iterable[float], alarm: Alarm | None = None, first_step: int = 0) -> list[tuple[str, int]]:
    """What an alarm tells of losses, and at which step."""
    return [(event.kind, event.step) for event in events(losses, alarm, first_step)]


def events(losses: Iterable[float], alarm: Alarm | None = None, first_step: int = 0) -> list[Event]:
    alarm = Alarm() if alarm is None else alarm
    return [event for step, loss in enumerate(losses, first_step) for event in alarm.update(loss, step)]


def falling(steps: int, seed: int = 0, noise: float = 0.05) -> list[float]:
    """From 3 towards 1, with normal noise."""
    draw = random.Random(seed)
    return [1.0 + 2.0 * math.exp(-step / 50) + noise * draw.gauss(0, 1) for step in range(steps)]


def test_a_run_that_learns_raises_nothing() -> None:
    assert told(falling(5000)) == []


@pytest.mark.parametrize("height", [3.5, 10.0, 1e6])
def test_a_blow_up_is_alarmed_within_two_losses_and_confirmed_within_ten(height: float) -> None:
    kinds = dict(told([*falling(200), *[height] * 20]))
    assert 200 <= kinds["alarm"] <= 201
    assert 200 < kinds["confirmed"] <= 209


def test_the_first_bad_step_is_named() -> None:
    assert {event.first_bad_step for event in events([*falling(200), *[6.0] * 20])} == {200}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_final_at_once(loss: float) -> None:
    alarm = Alarm()
    assert told([*falling(100), loss], alarm) == [("alarm", 100), ("confirmed", 100)]
    assert alarm.over
    assert alarm.outcome() == "nonfinite"
    assert told([1.0] * 50, alarm, 101) == []


def test_a_loss_that_is_not_finite_is_final_before_there_is_a_scale() -> None:
    assert told([3.0, math.nan]) == [("alarm", 1), ("confirmed", 1)]


def test_with_a_loss_scaler_only_the_third_in_a_row_is_final() -> None:
    losses = falling(100)
    losses[60] = math.inf
    assert [kind for kind, _ in told(losses, Alarm(skips_nonfinite=True))] == ["alarm", "taken-back"]
    assert told([*losses[:50], *[math.nan] * 3], Alarm(skips_nonfinite=True)) == [("alarm", 50), ("confirmed", 52)]


def test_a_rise_that_comes_back_at_once_is_taken_back() -> None:
    losses = falling(400)
    losses[200:203] = [9.0, 8.0, 7.0]
    assert [kind for kind, _ in told(losses)] == ["alarm", "taken-back"]


def test_a_rise_that_comes_back_late_has_recovered() -> None:
    losses = falling(600)
    losses[200:240] = [9.0] * 40
    assert [kind for kind, _ in told(losses)] == ["alarm", "confirmed", "recovered"]


def test_what_a_run_outlived_is_not_told_again() -> None:
    losses = falling(2000)
    for start in range(500, 2000, 100):
        losses[start : start + 2] = [4.0, 4.0]
    assert [kind for kind, _ in told(losses)] == ["alarm", "taken-back"]


def test_a_run_that_breaks_at_its_second_step_is_told_once_there_is_a_scale() -> None:
    kinds = dict(told([2.3 * 3.0**step for step in range(40)]))
    assert kinds["confirmed"] < 30


def test_a_slow_climb_above_the_start_is_told() -> None:
    climb = [1.0 + 0.02 * step**1.5 for step in range(60)]
    assert "confirmed" in dict(told([*falling(300), *climb]))


def test_a_flat_loss_is_not_called_broken() -> None:
    draw = random.Random(1)
    alarm = Alarm()
    assert told([2.3 + 0.02 * draw.gauss(0, 1) for _ in range(2000)], alarm) == []
    assert alarm.outcome() == "failed-to-train"


def test_a_constant_loss_does_not_divide_by_zero() -> None:
    assert told([1.0] * 300) == []


def test_a_loss_below_zero_is_judged_as_one_above() -> None:
    lowered = [loss - 100.0 for loss in [*falling(200), *[9.0] * 20]]
    assert [kind for kind, _ in told(lowered)] == ["alarm"] or dict(told(lowered))["alarm"] <= 201


@pytest.mark.parametrize("cut", [5, 150, 202, 204, 260])
def test_a_state_goes_on_as_if_nothing_had_been(cut: int) -> None:
    losses = [*falling(200), *[9.0] * 30, *falling(100)]
    whole = Alarm()
    all_of_it = told(losses, whole)
    first, second = Alarm(), Alarm()
    before = told(losses[:cut], first)
    second.load_state_dict(json.loads(json.dumps(first.state_dict()).replace("-Infinity", "-1e999")))
    assert before + told(losses[cut:], second, cut) == all_of_it
    assert second.outcome() == whole.outcome()
