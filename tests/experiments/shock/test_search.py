"""The search for the largest dose, over every pattern of answers of six doses."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from stresstest.experiments.shock.search import WORSE, DoseSearch, Survival
from stresstest.results.bracket import Bracket

DOSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
PATTERNS = list(product(WORSE, repeat=6))
MONOTONE = [pattern for pattern in PATTERNS if sorted(pattern, key=WORSE.index) == list(pattern)]


def searched(pattern: tuple[Survival, ...], first: int) -> tuple[DoseSearch, list[int]]:
    search, asked = DoseSearch(DOSES, first), []
    while (place := search.ask()) is not None:
        assert place not in asked, "asked for a dose twice"
        asked.append(place)
        search.tell(place, pattern[place])
    return search, asked


def below(pattern: tuple[Survival, ...], worst: Survival) -> Bracket:
    """From the last dose before the first that is worse, by counting from the smallest."""
    number = 0
    while number < 6 and WORSE.index(pattern[number]) <= WORSE.index(worst):
        number += 1
    return Bracket(low=DOSES[number - 1] if number else None, high=DOSES[number] if number < 6 else None)


@pytest.mark.parametrize("first", range(6))
def test_both_brackets_are_right_for_every_monotone_pattern(first: int) -> None:
    assert len(MONOTONE) == 28
    for pattern in MONOTONE:
        search, asked = searched(pattern, first)
        assert asked[0] == first
        assert search.monotone
        assert search.tolerance("recovered") == below(pattern, "recovered")
        assert search.tolerance("scarred") == below(pattern, "scarred")


@pytest.mark.parametrize("first", range(6))
def test_of_any_pattern_it_ends_and_its_brackets_are_neighbours_that_it_saw(first: int) -> None:
    for pattern in PATTERNS:
        search, asked = searched(pattern, first)
        for worst in WORSE[:2]:
            found = search.tolerance(worst)
            low = -1 if found.low is None else DOSES.index(found.low)
            high = 6 if found.high is None else DOSES.index(found.high)
            assert high == low + 1
            assert low == -1 or (low in asked and WORSE.index(pattern[low]) <= WORSE.index(worst))
            assert high == 6 or (high in asked and WORSE.index(pattern[high]) > WORSE.index(worst))


def test_a_larger_dose_that_was_seen_to_do_less_harm_is_said() -> None:
    for pattern in PATTERNS:
        search, asked = searched(pattern, 3)
        seen = [WORSE.index(pattern[place]) for place in sorted(asked)]
        assert search.monotone == all(a <= b for a, b in pairwise(seen))
    assert not searched(("recovered", "scarred", "recovered", "broke", "broke", "broke"), 1)[0].monotone


def test_a_bisection_asks_for_few_doses() -> None:
    assert max(len(searched(pattern, 2)[1]) for pattern in MONOTONE) <= 5


def test_a_switch_is_asked_once() -> None:
    search = DoseSearch((1.0,), 0)
    assert search.ask() == 0
    search.tell(0, "scarred")
    assert search.ask() is None
    assert search.tolerance("recovered") == Bracket(low=None, high=1.0)
    assert search.tolerance("scarred") == Bracket(low=1.0, high=None)
