"""What a check says of its time beforehand: both sides, and all looks at most."""

from __future__ import annotations

from collections.abc import Sequence

from stresstest.commands.check_estimate import estimate_line
from stresstest.gate.forecast import STARTUP_SECONDS, CheckForecast, Expected

MINUTES = Expected(15, 240.0, 0.3)
BOTH = ("base", "head")


def said(sides: Sequence[str], looks: Sequence[int] = (), stored: float = 0.0, one: Expected = MINUTES) -> str:
    found = {("base", name): stored for name in "ab"}
    return estimate_line(CheckForecast({"a": one, "b": one}, True, sides, looks, found))


def test_both_sides_and_all_experiments_are_in_it() -> None:
    assert said(["head"]) == "30 cells: about 8 min (6 to 11)"
    assert said(BOTH, [8]) == "60 cells, both sides: about 16 min (12 to 22)"


def test_more_looks_are_said_as_at_most() -> None:
    assert said(BOTH, [8, 16]) == (
        "60 cells, both sides: about 16 min (12 to 22), at most 44 min, with more seeds (16) where 8 do not settle it"
    )


def test_what_an_earlier_check_trained_is_not_in_it() -> None:
    assert said(BOTH, [8], stored=1.0) == "30 cells, both sides: about 8 min (6 to 11)"


def test_a_short_check_says_nothing() -> None:
    assert 2 * STARTUP_SECONDS <= 10.0
    assert said(["head"], one=Expected(2, 2.0, 0.3)) == ""
