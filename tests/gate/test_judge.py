"""Lines from results that were made by hand: what censored and missing values mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from stresstest.gate import judge
from stresstest.gate.judge import InterimLook
from stresstest.gate.records import GateLine
from stresstest.results.records import RESULT_SCHEMA, Bracket, Result, SummaryRow, summarise
from stresstest.scenario.thresholds import parse_threshold

EDGE = parse_threshold("max_stable_lr", "med vs base >= -0.5oct")
LOSS = parse_threshold("final_loss", "med vs base <= 10%")
NOTHING = Bracket(low=None, high=None)  # no learning rate that was held trained
NONE, BEYOND = Bracket(low=None, high=0.01), Bracket(low=10.0, high=None)


def held(value: float) -> Bracket:
    """Trains at a learning rate, and not a quarter of an octave above."""
    return Bracket(low=value, high=value * 2**0.25)


def result(rows: Mapping[str, Mapping[str, Mapping[int, Bracket]]]) -> Result:
    """By variant and metric, the values of each seed."""
    summary = [
        SummaryRow(
            variant=variant,
            depth=4,
            optimizer="adam",
            metrics={name: summarise(name, values) for name, values in metrics.items() if values},
            outcomes={},
        )
        for variant, metrics in rows.items()
    ]
    empty: dict[str, Any] = {"spec": {}, "rules": {}, "environment": {"key": "here"}, "data": {}}
    return Result(
        schema_=RESULT_SCHEMA, command="lr-range", reproduce="", cells=[], summary=summary, findings=[], **empty
    )


def edges(values: list[Bracket | None]) -> Result:
    return result({"pre-ln": {"max_stable_lr": {seed: v for seed, v in enumerate(values) if v is not None}}})


def line(head: Result, base: Result, same: bool = False) -> GateLine:
    head_by, base_by = {"e": head}, {"e": base}
    asked = [(EDGE, place) for place in judge.places(EDGE, head_by)]
    (found,) = judge.judge(asked, head_by, base_by, lambda place: same, InterimLook(0, 0.05, {}, {}))
    return found


@pytest.mark.parametrize(
    ("head", "base", "expected"),
    [
        (held(0.5), held(1.0), (-1.0, -1.0)),
        (held(1.0), held(0.5), (1.0, 1.0)),
        (Bracket.exactly(0.25), Bracket.exactly(1.0), (-2.0, -2.0)),
        (NONE, held(0.04), (-math.inf, -2.0)),  # below 0.01: at least two octaves down
        (held(0.04), NONE, (2.0, math.inf)),
        (BEYOND, held(5.0), (1.0, math.inf)),  # above 10
        (held(5.0), BEYOND, (-math.inf, -1.0)),
        (BEYOND, BEYOND, (0.0, 0.0)),
        (NONE, NONE, (0.0, 0.0)),
        (NONE, BEYOND, (-math.inf, math.log2(0.001))),
        (NOTHING, held(1.0), (-math.inf, -judge.NOWHERE)),
        (held(1.0), NOTHING, (judge.NOWHERE, math.inf)),
        (NOTHING, NOTHING, (0.0, 0.0)),
    ],
)
def test_a_difference_lies_between_what_the_bounds_allow(
    head: Bracket, base: Bracket, expected: tuple[float, float]
) -> None:
    assert judge.difference(EDGE, head, base) == pytest.approx(expected)


def test_what_is_better_small_is_worse_when_it_rises() -> None:
    low, high = judge.difference(LOSS, Bracket.exactly(2.2), Bracket.exactly(2.0))
    assert (low, high) == pytest.approx((-10.0, -10.0))
    nats = parse_threshold("final_loss", "med vs base <= 0.1")
    assert judge.difference(nats, Bracket.exactly(1.5), Bracket.exactly(2.0)) == pytest.approx((0.5, 0.5))


def test_an_octave_less_with_every_seed_is_a_regression_with_its_numbers() -> None:
    found = line(edges([held(0.05)] * 6), edges([held(0.1)] * 6))
    assert (found.verdict, found.n) == ("regressed", 6)
    assert found.median == pytest.approx((-1.0, -1.0))
    assert found.p == 2.0**-6
    assert found.differences["3"] == pytest.approx((-1.0, -1.0))


def test_equal_values_are_identical_only_if_every_curve_is() -> None:
    sides = edges([held(0.1)] * 6), edges([held(0.1)] * 6)
    assert line(*sides, same=True).verdict == "identical"
    assert line(*sides).verdict == "no-change"


def test_a_head_that_trains_at_none_has_regressed_and_one_that_begins_to_has_improved() -> None:
    something, nothing = edges([held(0.1)] * 6), edges([NOTHING] * 6)
    assert line(nothing, something).verdict == "regressed"
    assert line(something, nothing).verdict == "improved"


def test_a_head_that_trains_below_the_range_alone_has_regressed() -> None:
    found = line(edges([NONE] * 6), edges([held(0.1)] * 6))
    assert found.verdict == "regressed"
    assert found.median == (None, pytest.approx(math.log2(0.1)))


@pytest.mark.parametrize(
    ("head", "base", "verdict", "said"),
    [
        ([NOTHING] * 6, [NOTHING] * 6, "no-data", "neither base nor head trains"),
        ([NONE] * 6, [NONE] * 6, "no-data", "neither base nor head trains"),
        ([BEYOND] * 6, [BEYOND] * 6, "no-data", "widen the range"),
        ([None] * 6, [held(1.0)] * 6, "no-data", "the head has no value"),
        ([held(1.0)] * 6, [None] * 6, "no-baseline", "the base has no value"),
        ([held(1.0)] * 2 + [None] * 4, [None] * 4 + [held(1.0)] * 2, "incomparable", "base and head share no seed"),
        ([held(1.0)] * 4 + [None] * 2, [held(1.0)] * 6, "insufficient-seeds", "5 seeds are needed"),
    ],
)
def test_nothing_is_passed_on_nothing(
    head: list[Bracket | None], base: list[Bracket | None], verdict: str, said: str
) -> None:
    found = line(edges(head), edges(base))
    assert found.verdict == verdict
    assert said in found.reason


@pytest.mark.parametrize("value", [BEYOND, NONE])
def test_a_shock_that_both_take_at_every_dose_or_at_none_is_no_change(value: Bracket) -> None:
    threshold = parse_threshold("shock_tolerance", "med vs base >= -1oct")
    both = {"e": result({"pre-ln": {"shock_tolerance": dict.fromkeys(range(6), value)}})}
    asked = [(threshold, place) for place in judge.places(threshold, both)]
    (found,) = judge.judge(asked, both, both, lambda place: False, InterimLook(0, 0.05, {}, {}))
    assert (found.verdict, found.median) == ("no-change", (0.0, 0.0))


def test_lines_share_one_error_rate() -> None:
    """Six seeds can call one line at 0.05, and not four."""
    worse, before = [held(0.05)] * 6, [held(0.1)] * 6
    for variants, verdict in ((["a"], "regressed"), (["a", "b", "c", "d"], "insufficient-seeds")):
        sides = [
            {"e": result({v: {"max_stable_lr": dict(enumerate(values))} for v in variants})}
            for values in (worse, before)
        ]
        asked = [(EDGE, place) for place in judge.places(EDGE, sides[0])]
        found = judge.judge(asked, sides[0], sides[1], lambda place: False, InterimLook(0, 0.05, {}, {}))
        assert [each.verdict for each in found] == [verdict] * len(variants)


VALUES = [held(value) for value in (0.1, 0.2, 0.4, 0.8)]


@pytest.mark.parametrize(
    ("text", "values", "passed", "shown"),
    [
        ("med >= 0.28", VALUES, True, "0.2828"),  # the geometric mean of the middle two
        ("avg >= 0.28", VALUES, True, "0.2828"),
        ("min >= 0.1", VALUES, True, "0.1"),
        ("max < 0.8", VALUES, False, "0.8"),
        ("p(100) == 0.8", VALUES, True, "0.8"),
        ("p(50) > 0.3", VALUES, False, "0.2828"),
        ("med >= 5", [BEYOND] * 3, True, "> 10"),
        ("med >= 20", [BEYOND] * 3, False, "> 10"),  # it may be, and it is not known
        ("med <= 20", [BEYOND] * 3, False, "> 10"),
        ("med >= 0.02", [NONE] * 3, False, "< 0.01"),
        ("med >= 0.001", [NONE] * 3, False, "< 0.01"),
        ("med >= 0.001", [NOTHING] * 3, False, "none"),
        ("med >= 0.001", [NOTHING, held(0.1)], False, "none"),  # half of the seeds train nowhere
        ("avg >= 0.001", [NOTHING, held(0.1), held(0.1)], False, "none"),
        ("max >= 0.001", [NOTHING, held(0.1), held(0.1)], True, "0.1"),
        ("med >= 0.2", [held(0.1), BEYOND], True, "> 1"),  # 1 or more, by the geometric mean
    ],
)
def test_limits(text: str, values: list[Bracket], passed: bool, shown: str) -> None:
    (found,) = judge.limits([parse_threshold("max_stable_lr", text)], {"e": edges([*values])}, {})
    assert (found.passed, found.value) == (passed, shown)


def test_a_limit_on_nothing_fails() -> None:
    limit = parse_threshold("max_stable_lr{variant=rezero}", "med >= 0.001")
    (found,) = judge.limits([limit], {"e": edges([held(1.0)] * 3)}, {})
    assert not found.passed
    assert found.reason == "the head has no value"
