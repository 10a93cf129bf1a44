"""The learning rate of the lowest loss, against curves of loss that are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.measurements.hold import OCTAVE, HoldAnswer, HoldSearch, grid_lr

HIGHEST = 4 * OCTAVE
BREAKS_AT = 2 * OCTAVE  # one octave above the guess
GUESS = 0
BROKEN = HoldAnswer("exploded", math.inf)

Losses = Callable[[float], float]  # of an LR in octaves
exhaustive = settings(derandomize=True, deadline=None, max_examples=100)


def searched(losses: Losses, breaks_at: int = BREAKS_AT, best: bool = True, stride: int = OCTAVE) -> HoldSearch:
    """A search that has asked all that it asks; LRs from `breaks_at` on break."""
    search = HoldSearch(GUESS, HIGHEST, stride=stride, best=best)
    while (k := search.ask()) is not None:
        assert len(search.answers) < 60, "the search does not end"
        loss = losses(k / OCTAVE)
        search.tell(k, BROKEN if k >= breaks_at else HoldAnswer("stable", loss, loss))
    return search


def parabola(lowest: float) -> Losses:
    return lambda octaves: 1.0 + 0.1 * (octaves - lowest) ** 2


@exhaustive
@given(st.floats(-6.4, 0.4))
def test_of_a_parabola_it_is_the_lowest_point(lowest: float) -> None:
    found = searched(parabola(lowest)).best_lr
    assert found.low == found.high == pytest.approx(2.0**lowest, rel=1e-6)


def test_where_the_loss_falls_up_to_the_break_it_lies_between_the_neighbours() -> None:
    found = searched(lambda octaves: 2.0 - 0.1 * octaves).best_lr
    assert (found.low, found.high) == (0.5 * grid_lr(BREAKS_AT - OCTAVE), 2.0 * grid_lr(BREAKS_AT - OCTAVE))


def test_where_nothing_breaks_up_to_the_highest_lr_the_upper_end_is_open() -> None:
    found = searched(lambda octaves: 2.0 - 0.1 * octaves, breaks_at=HIGHEST + 1).best_lr
    assert (found.low, found.high) == (grid_lr(HIGHEST - OCTAVE), None)


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_a_loss_that_is_as_low_at_ever_smaller_lrs_leaves_the_lower_end_open(slope: float) -> None:
    search = searched(lambda octaves: 2.0 + slope * octaves)
    assert search.best_lr.low is None
    assert search.best_lr.high == grid_lr(min(search.answers) + OCTAVE)


@exhaustive
@given(st.lists(st.floats(0.0, 1.0), min_size=40, max_size=40), st.integers(-3, 1))
def test_a_noisy_loss_gives_a_point_at_most_half_an_octave_off_the_lowest_loss_seen(
    noise: list[float], lowest: int
) -> None:
    search = searched(lambda octaves: parabola(lowest)(octaves) + 0.05 * noise[round(octaves) % 40])
    finite = {
        k: answer.validation_loss for k, answer in search.answers.items() if math.isfinite(answer.validation_loss)
    }
    at = min(finite, key=lambda k: finite[k])
    if search.best_lr.low == search.best_lr.high:
        assert search.best_lr.low is not None
        assert abs(math.log2(search.best_lr.low) - at / OCTAVE) <= 0.5
    else:
        assert {at - OCTAVE, at + OCTAVE} - finite.keys(), "a neighbour broke, or was not asked for"


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("lowest", [-4.3, -0.8, 0.3])
def test_the_boundary_is_the_same_as_without_it_and_it_the_same_at_every_resolution(lowest: float, stride: int) -> None:
    search = searched(parabola(lowest), stride=stride)
    assert search.max_stable_lr == searched(parabola(lowest), best=False, stride=stride).max_stable_lr
    assert search.best_lr == searched(parabola(lowest)).best_lr


def test_answers_that_are_stored_are_not_asked_for_again() -> None:
    first = searched(parabola(-3.3))
    for number in range(len(first.answers)):
        again = HoldSearch(GUESS, HIGHEST, best=True, answers=dict(list(first.answers.items())[:number]))
        asked: list[int] = []
        while (k := again.ask()) is not None:
            asked.append(k)
            again.tell(k, first.answers[k])
        assert sorted([*asked, *list(first.answers)[:number]]) == sorted(first.answers)
        assert again.best_lr == first.best_lr
