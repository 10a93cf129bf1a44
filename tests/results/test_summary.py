"""What cells come to over depth: brackets of depth, exponents and rates, against closed forms and numpy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.results.records import Bracket, Cell, Status
from stresstest.results.summary import depth_rows, exponent, rate, trainable_depth, trend_rows


def cell(depth: int, outcome: str = "stable", seed: int = 0, status: Status = "done", **metrics: Bracket) -> Cell:
    recipe = {"outcome": outcome} if status == "done" else {}
    key = f"{depth}-{seed}"
    return Cell(key=key, variant="pre-ln", depth=depth, seed=seed, status=status, recipe=recipe, metrics=metrics)


def brackets(values: Mapping[int, float], octaves: float = 0.0) -> dict[int, Bracket]:
    return {depth: Bracket(low=value, high=value * 2**octaves) for depth, value in values.items()}


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({4: "stable", 8: "spiked", 16: "stable"}, (16, None)),
        ({4: "stable", 8: "failed-to-train", 16: "nonfinite"}, (4, 8)),
        ({4: "exploded", 8: "relapsed"}, (None, 4)),
        ({4: "stable", 8: "relapsed", 16: "stable"}, (4, 8)),
    ],
)
def test_the_trainable_depth_lies_between_the_last_that_trains_and_the_first_that_does_not(
    outcomes: dict[int, str], expected: tuple[int | None, int | None]
) -> None:
    found = trainable_depth([cell(depth, outcome) for depth, outcome in reversed(outcomes.items())])
    assert found is not None
    assert (found.low, found.high) == expected


@pytest.mark.parametrize("status", ["oom", "crashed", "timeout"])
def test_a_depth_without_a_result_says_nothing_about_stability(status: Status) -> None:
    assert trainable_depth([cell(4), cell(8, status=status)]) == Bracket(low=4, high=None)
    assert trainable_depth([cell(8, status=status)]) is None


@pytest.mark.parametrize("b", [-1.3, -0.5, 0.0, 2.0])
def test_the_exponent_of_a_power_law_is_found_exactly(b: float) -> None:
    found = exponent(brackets({depth: 0.3 * depth**b for depth in (2, 5, 9, 30)}))
    assert found is not None
    assert found.low == pytest.approx(b, abs=1e-12)
    assert found.high == pytest.approx(b, abs=1e-12)


def test_the_exponent_of_scattered_values_is_numpys_fit() -> None:
    rng = np.random.default_rng(0)
    values = {depth: float(np.exp(rng.standard_normal())) for depth in (2, 3, 8, 21, 40)}
    found = exponent(brackets(values))
    expected = np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0]
    assert found is not None
    assert found.low == pytest.approx(expected, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1.0), st.floats(0.0, 3.0)), min_size=3, max_size=5))
def test_the_exponents_ends_are_the_extremes_over_everything_in_the_brackets(sides: list[tuple[float, float]]) -> None:
    depths = [2, 4, 9, 16, 50][: len(sides)]
    values = {depth: Bracket(low=low, high=low * 2**wide) for depth, (low, wide) in zip(depths, sides, strict=True)}
    found = exponent(values)
    assert found is not None
    slopes = [
        np.polyfit(np.log(depths), np.log(corner), 1)[0]
        for corner in itertools.product(*((b.low, b.high) for b in values.values()))
    ]
    assert found.low == pytest.approx(min(slopes), abs=1e-9)
    assert found.high == pytest.approx(max(slopes), abs=1e-9)


def test_open_brackets_are_left_out_and_two_depths_are_too_few() -> None:
    values = brackets({2: 1.0, 4: 0.5, 8: 0.25}) | {16: Bracket(low=None, high=1e-4), 32: Bracket(low=1.0, high=None)}
    found = exponent(values)
    assert found is not None
    assert found.low == pytest.approx(-1.0)
    assert exponent(brackets({2: 1.0, 4: 0.5})) is None
    assert exponent(values | {8: Bracket(low=0.0, high=0.0)}) is None, "zero has no logarithm"


def test_the_rate_is_found_where_growth_is_geometric_and_only_there() -> None:
    depths = (10, 30, 100, 300)
    found = rate(brackets({depth: 2.0 * 1.03**depth for depth in depths}))
    assert found is not None
    assert found.low == pytest.approx(1.03, rel=1e-9)
    assert rate(brackets({depth: depth**0.5 for depth in depths})) is None


def swept(values: dict[tuple[int, int], float], metric: str, octaves: float = 0.0) -> list[Cell]:
    """Cells by (depth, seed)."""
    return [
        cell(depth, seed=seed, **{metric: Bracket(low=value, high=value * 2**octaves)})
        for (depth, seed), value in values.items()
    ]


def test_a_trend_summarises_the_slopes_of_the_seeds() -> None:
    slopes = (-0.5, -1.0, -0.75)
    cells = swept({(depth, seed): depth ** slopes[seed] for depth in (2, 4, 8) for seed in range(3)}, "max_stable_lr")
    [row] = trend_rows(cells, "adam")
    found = row.metrics["max_stable_lr_exponent"]
    assert found.median.low == pytest.approx(-0.75)
    assert (found.low, found.high) == (pytest.approx(-1.0), pytest.approx(-0.5))
    assert (found.n, found.coverage) == (3, pytest.approx(0.75))
    assert row.metrics["max_trainable_depth"].censored == 3


def test_an_octaves_bracket_shows_in_the_interval_of_the_exponent() -> None:
    cells = swept({(depth, 0): 1.0 / depth for depth in (2, 4, 8, 16, 32)}, "max_stable_lr", octaves=1.0)
    [row] = trend_rows(cells, "adam")
    found = row.metrics["max_stable_lr_exponent"]
    assert (found.low, found.high) == (pytest.approx(-1.3), pytest.approx(-0.7))  # sum of |weights| times an octave


def test_growth_at_initialisation_is_a_power_or_a_rate_by_which_fits() -> None:
    depths = (10, 30, 100)
    power = swept({(depth, 0): depth**0.5 for depth in depths}, "activation_rms")
    geometric = swept({(depth, 0): 1.1**depth for depth in depths}, "activation_rms")
    assert "activation_exponent" in trend_rows(power, "adam")[0].metrics
    [row] = trend_rows(geometric, "adam")
    assert "activation_exponent" not in row.metrics
    assert row.metrics["activation_rate"].median.low == pytest.approx(1.1)


def test_rows_stand_by_variant_and_rising_depth_with_the_outcomes_of_the_recipe() -> None:
    cells = [cell(8), cell(2), cell(8, "exploded", seed=1), cell(4, status="oom")]
    rows = depth_rows(cells, "adam")
    assert [(row.variant, row.depth) for row in rows] == [("pre-ln", 2), ("pre-ln", 8)]
    assert rows[1].outcomes == {"stable": 1, "exploded": 1}


def test_numbers_beyond_the_square_roots_range_have_a_median_too() -> None:
    values: dict[tuple[int, int], Any] = {(4, 0): 1e200, (4, 1): 4e200}
    [row] = depth_rows(swept(values, "stream_growth"), "adam")
    assert row.metrics["stream_growth"].median.low == pytest.approx(2e200)
    [row] = depth_rows(swept({(4, 0): 1e-200, (4, 1): 4e-200}, "stream_growth"), "adam")
    assert row.metrics["stream_growth"].median.low == pytest.approx(2e-200)
    assert math.isfinite(row.metrics["stream_growth"].median.low or math.nan)
