"""What a check says of its time beforehand: both sides, and all looks at most."""

from __future__ import annotations

from stresstest.commands.check_estimate import in_words
from stresstest.results.progress import TimeLeft

MINUTES = TimeLeft(240.0, 200.0, 300.0)


def test_both_sides_and_all_experiments_are_in_it() -> None:
    assert in_words([MINUTES, MINUTES], 30, False, []) == "30 cells: about 8 min (7 to 10)"
    assert in_words([MINUTES, MINUTES], 30, True, [5]) == "30 cells on both sides: about 16 min (13 to 20)"


def test_more_looks_are_said_as_at_most() -> None:
    said = in_words([MINUTES], 15, True, [5, 10, 20])
    assert said == (
        "15 cells on both sides: about 8 min (7 to 10); at most 40 min, with more seeds (20) where 5 do not settle it"
    )


def test_a_short_check_says_nothing() -> None:
    assert in_words([TimeLeft(4.0, 3.0, 5.0)], 2, True, [5, 10]) == ""
