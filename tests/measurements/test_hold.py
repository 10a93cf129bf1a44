"""The search for the largest stable LR, against planted truths."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.engine.outcomes import Outcome
from stresstest.measurements.hold import LOWEST, OCTAVE, STRIDES, HoldAnswer, HoldSearch, grid_lr, octave_below
from stresstest.results.records import Bracket

HIGHEST = 4 * OCTAVE
STABLE = HoldAnswer("stable", 1.0)
CHANCE = 3.3  # nats where a replica that lost what it had learned ends
BREAKS: tuple[Outcome, ...] = ("exploded", "nonfinite", "relapsed")

Truth = Callable[[int], HoldAnswer]
exhaustive = settings(derandomize=True, deadline=None, max_examples=150)
strides = st.sampled_from(sorted(STRIDES.values()))
tops = st.integers(-12 * OCTAVE, HIGHEST - 1)


def broken(outcome: Outcome) -> HoldAnswer:
    return HoldAnswer(outcome, math.inf if outcome in ("exploded", "nonfinite") else CHANCE)


def stable_up_to(top: int, above: tuple[Outcome, ...]) -> Truth:
    return lambda k: STABLE if k <= top else broken(above[k % len(above)])


def window(bottom: int, top: int, above: Outcome) -> Truth:
    """Below `bottom` an LR is merely too slow: the slower, the higher its loss at the end."""
    return lambda k: (
        HoldAnswer("failed-to-train", CHANCE + 0.1 * (bottom - k)) if k < bottom else stable_up_to(top, (above,))(k)
    )


def flat_up_to(top: int, above: Outcome) -> Truth:
    """A model with too little to learn in the hold: no LR trains, and up to `top` none does harm."""
    return lambda k: HoldAnswer("flat", CHANCE) if k <= top else broken(above)


def search_all(search: HoldSearch, truth: Truth) -> list[int]:
    """Answer every question; returns the places in the order of asking."""
    asked: list[int] = []
    while (k := search.ask()) is not None:
        asked.append(k)
        assert len(asked) <= 60, "the search does not end"
        search.tell(k, truth(k))
    return asked


def guess_near(top: int, octaves: int) -> int:
    return min(HIGHEST, (top // OCTAVE + octaves) * OCTAVE)


@exhaustive
@given(tops, st.integers(-6, 6), strides, st.lists(st.sampled_from(BREAKS), min_size=1, max_size=4))
def test_the_bracket_is_the_planted_boundary_wherever_the_search_starts(
    top: int, octaves: int, stride: int, above: list[Outcome]
) -> None:
    search = HoldSearch(guess_near(top, octaves), HIGHEST, stride)
    search_all(search, stable_up_to(top, tuple(above)))
    last_stable = top - top % stride
    assert search.max_stable == (last_stable, last_stable + stride)
    assert search.max_stable_lr.low == 2 ** (last_stable / 4)
    assert search.max_stable_lr.high == 2 ** ((last_stable + stride) / 4)
    assert search.monotone


@exhaustive
@given(tops, st.integers(-6, 4), strides)
def test_a_collapse_to_the_constant_predictor_is_told_from_slow_training(top: int, octaves: int, stride: int) -> None:
    search = HoldSearch(guess_near(top, octaves), HIGHEST, stride, noise_floor=0.1)
    search_all(search, stable_up_to(top, ("failed-to-train",)))
    assert search.max_stable == (top - top % stride, top - top % stride + stride)


@exhaustive
@given(st.integers(-12 * OCTAVE, 0), st.integers(0, 6), st.lists(st.floats(2.0, 6.0), min_size=1, max_size=7))
def test_a_relapse_sends_the_search_down_whatever_loss_it_ends_at(top: int, octaves: int, losses: list[float]) -> None:
    search = HoldSearch(guess_near(top, octaves), HIGHEST)
    search_all(search, lambda k: STABLE if k <= top else HoldAnswer("relapsed", losses[k // OCTAVE % len(losses)]))
    assert search.max_stable == (top - top % OCTAVE, top - top % OCTAVE + OCTAVE)


@exhaustive
@given(tops, st.integers(0, 4), st.integers(-6, 4), strides, st.sampled_from(BREAKS))
def test_the_top_is_found_above_a_lower_limit_of_progress(
    top: int, octaves_wide: int, octaves: int, stride: int, above: Outcome
) -> None:
    bottom = top - top % OCTAVE - octaves_wide * OCTAVE
    guess = max(guess_near(bottom, -4), guess_near(top, octaves))
    search = HoldSearch(guess, HIGHEST, stride, noise_floor=0.1)
    search_all(search, window(bottom, top, above))
    assert search.max_stable == (top - top % stride, top - top % stride + stride)


@exhaustive
@given(tops, st.integers(0, 12), st.integers(-2, 4), strides, st.sampled_from(BREAKS))
def test_the_lower_end_of_the_window_is_right_to_an_octave(
    top: int, width: int, octaves: int, stride: int, above: Outcome
) -> None:
    bottom = top - top % OCTAVE - width
    search = HoldSearch(guess_near(top, octaves), HIGHEST, stride, lower_end=True, noise_floor=0.1)
    search_all(search, window(bottom, top, above))
    smallest = math.ceil(bottom / OCTAVE) * OCTAVE
    assert search.min_useful_lr.high == grid_lr(smallest)
    assert search.min_useful_lr.low == grid_lr(smallest - OCTAVE)
    assert search.max_stable[0] == top - top % stride


@pytest.mark.parametrize("outcome", [*BREAKS, "failed-to-train"])
@pytest.mark.parametrize("guess", [-10 * OCTAVE, 0, HIGHEST, LOWEST])
def test_where_nothing_trains_the_search_ends_soon_without_a_lower_side(outcome: Outcome, guess: int) -> None:
    search = HoldSearch(guess, HIGHEST, lower_end=True)
    asked = search_all(search, lambda k: broken(outcome))
    assert len(asked) <= 12
    assert min(asked) >= LOWEST
    assert search.max_stable_lr.low is None
    assert search.min_useful_lr.high is None


@exhaustive
@given(tops, st.integers(-6, 6), strides, st.sampled_from(BREAKS))
def test_where_nothing_trains_the_largest_harmless_lr_is_found_by_the_same_questions_and_one_below_them(
    top: int, octaves: int, stride: int, above: Outcome
) -> None:
    guess = guess_near(top, octaves)
    flat, trains = (HoldSearch(guess, HIGHEST, stride) for _ in range(2))
    same = search_all(trains, stable_up_to(top, (above,)))
    below = [] if guess - OCTAVE in same else [guess - OCTAVE]
    assert search_all(flat, flat_up_to(top, above)) == [*same, *below], "what is flat may have trained lower"
    assert flat.max_stable_lr == trains.max_stable_lr
    assert flat.monotone
    assert (flat.min_useful_lr, flat.max_useful_lr) == (Bracket(low=None, high=None),) * 2, "nothing trained"


@pytest.mark.parametrize(
    ("search", "truth", "asked"),
    [
        (HoldSearch(0, 16, 1, noise_floor=0.1), stable_up_to(-7, ("relapsed",)), [0, -4, -8, -6, -7]),
        (HoldSearch(-8, 16, 2, True, noise_floor=0.1), window(-12, 5, "nonfinite"), [-8, -4, 0, 4, 8, 6, -12, -16]),
        (HoldSearch(0, 16, 4, True, noise_floor=0.1), window(99, 99, "nonfinite"), [0, -4, 4, 8, 12, 16]),
    ],
)
def test_the_search_walks_from_the_guess_by_octaves_and_only_then_asks_more_finely(
    search: HoldSearch, truth: Truth, asked: list[int]
) -> None:
    assert search_all(search, truth) == asked
    assert search.max_useful_lr == search.max_stable_lr


@pytest.mark.parametrize("octaves", [0, 2, 6, 9, 12])
@pytest.mark.parametrize("stride", sorted(STRIDES.values()))
@pytest.mark.parametrize("quiet", [True, False])
def test_a_model_of_ones_own_that_dies_at_every_lr_far_too_large_is_followed_down_to_where_the_ramp_began(
    octaves: int, stride: int, quiet: bool
) -> None:
    top, first = -11 * OCTAVE, -14 * OCTAVE
    dead = HoldAnswer("failed-to-train", CHANCE) if quiet else broken("relapsed")
    search = HoldSearch(top + octaves * OCTAVE, HIGHEST, stride, both_ways=True, lowest=first)
    search_all(search, lambda k: STABLE if k <= top else dead)
    low, high = search.max_stable
    assert low is not None
    assert high is not None
    assert low <= top < high
    assert high - low == stride


def test_where_a_model_of_ones_own_trains_nowhere_the_search_ends_where_the_ramp_began() -> None:
    first = -14 * OCTAVE
    search = HoldSearch(0, HIGHEST, both_ways=True, lowest=first)
    asked = search_all(search, lambda k: HoldAnswer("failed-to-train", CHANCE))
    assert first <= min(asked) < first + 2 * OCTAVE
    assert len(asked) <= 16


def test_where_all_is_flat_the_search_goes_up_to_the_end_of_the_range() -> None:
    search = HoldSearch(0, HIGHEST, lower_end=True)
    assert search_all(search, lambda k: HoldAnswer("flat", 1.0)) == [0, 4, 8, 12, 16, -4]
    assert search.max_stable == (HIGHEST, None)


@exhaustive
@given(st.integers(-8 * OCTAVE, 2 * OCTAVE), st.integers(0, 20), st.integers(0, 3), strides, st.sampled_from(BREAKS))
def test_what_is_flat_counts_as_slow_below_what_trains_and_as_harmless_above_it(
    bottom: int, width: int, flat_octaves: int, stride: int, above: Outcome
) -> None:
    """Flat, then training, then flat again, then broken: two of its ends are the window's, the last the boundary."""
    bottom -= bottom % OCTAVE
    last_trained, top = bottom + width, bottom + width + flat_octaves * OCTAVE

    def truth(k: int) -> HoldAnswer:
        return STABLE if bottom <= k <= last_trained else flat_up_to(top, above)(k)

    search = HoldSearch(min(bottom + OCTAVE, HIGHEST), HIGHEST, stride, lower_end=True)
    search_all(search, truth)
    if top < HIGHEST:
        assert search.max_stable == (top - top % stride, top - top % stride + stride)
    assert search.min_useful_lr == Bracket(low=grid_lr(bottom - OCTAVE), high=grid_lr(bottom))
    low, high = search.max_useful_lr.low, search.max_useful_lr.high
    assert low is not None
    assert grid_lr(bottom) <= low <= grid_lr(last_trained)
    assert high is None or high > grid_lr(last_trained)
    assert search.monotone


def test_an_lr_that_breaks_below_a_harmless_one_is_not_monotone() -> None:
    outcomes: dict[int, Outcome] = {-4: "relapsed", 0: "stable", 4: "flat", 8: "nonfinite"}
    search = HoldSearch(0, 8, lower_end=True)
    search_all(search, lambda k: HoldAnswer(outcomes[k], CHANCE) if k in outcomes else broken("nonfinite"))
    assert search.max_stable == (4, 8)
    assert not search.monotone


@exhaustive
@given(st.integers(-12, 4), st.sampled_from([0, 1, 4, -3]), strides)
def test_where_everything_trains_the_upper_side_stays_open_at_the_highest(
    guess: int, highest: int, stride: int
) -> None:
    top = highest * OCTAVE
    search = HoldSearch(min(guess * OCTAVE, top), top, stride)
    asked = search_all(search, lambda k: STABLE)
    assert search.max_stable == (top, None)
    assert search.max_stable_lr.high is None
    assert max(asked) == top


@pytest.mark.parametrize(
    ("trained", "bracket"),
    [
        ({-4, 4, 8, 12, 16}, (-4, 0)),  # a hole at the guess, stable above it
        ({0, 8, 12}, (0, 4)),  # broke below the first that trained, and a hole above it
        ({0, 4, 8, 12, 16}, (16, None)),  # broke below, stable to the top
    ],
)
def test_where_stability_is_not_monotone_the_bracket_ends_at_the_first_break_on_the_way_from_the_guess(
    trained: set[int], bracket: tuple[int, int | None]
) -> None:
    search = HoldSearch(0, HIGHEST)
    search_all(search, lambda k: STABLE if k in trained else broken("relapsed"))
    assert search.max_stable == bracket


@exhaustive
@given(tops, st.integers(-6, 6), strides, st.booleans(), st.sampled_from(BREAKS))
def test_no_place_is_asked_twice_and_all_lie_on_the_global_grid(
    top: int, octaves: int, stride: int, lower_end: bool, above: Outcome
) -> None:
    search = HoldSearch(guess_near(top, octaves), HIGHEST, stride, lower_end)
    asked = search_all(search, window(top - 12, top, above))
    assert len(set(asked)) == len(asked)
    assert all(k % stride == 0 and LOWEST <= k <= HIGHEST for k in asked)
    assert all(math.log2(grid_lr(k)) * 4 == pytest.approx(k, abs=1e-9) for k in asked)


@exhaustive
@given(tops, tops, st.integers(-6, 6), strides)
def test_the_questions_depend_on_one_seeds_answers_alone(top: int, other_top: int, octaves: int, stride: int) -> None:
    truth, other_truth = stable_up_to(top, BREAKS), stable_up_to(other_top, BREAKS)
    alone = search_all(HoldSearch(guess_near(top, octaves), HIGHEST, stride), truth)
    ours, theirs = (HoldSearch(guess_near(top, octaves), HIGHEST, stride) for _ in range(2))
    beside: list[int] = []
    while (k := ours.ask()) is not None or theirs.ask() is not None:
        if (other := theirs.ask()) is not None:
            theirs.tell(other, other_truth(other))
        if k is not None:
            ours.tell(k, truth(k))
            beside.append(k)
    assert beside == alone


@exhaustive
@given(tops, st.integers(-6, 6), strides, st.booleans())
def test_of_three_places_ahead_the_first_is_the_question_and_the_rest_hold_the_next_one(
    top: int, octaves: int, stride: int, lower_end: bool
) -> None:
    truth = stable_up_to(top, ("exploded",))
    search = HoldSearch(guess_near(top, octaves), HIGHEST, stride, lower_end)
    while (k := search.ask()) is not None:
        ahead = search.ahead(3)
        assert ahead[0] == k
        assert search.ask() == k, "looking ahead tells nothing"
        search.tell(k, truth(k))
        assert search.ask() in (None, *ahead[1:])
    assert search.ahead(3) == []


@pytest.mark.parametrize("lr", [1e-4, 0.03, 0.031, 1.0, 1.5, 10.0])
def test_the_octave_below_is_the_largest_power_of_two_that_is_not_above(lr: float) -> None:
    place = octave_below(lr)
    assert place % OCTAVE == 0
    assert grid_lr(place) <= lr < 2 * grid_lr(place)
