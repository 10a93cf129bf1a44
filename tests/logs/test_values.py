"""Tokens as numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stresstest.logs.values import number, numbers


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("1,234.5", 1234.5),
        ("12,345,678", 12345678.0),
        ("0,532", 0.532),
        ("1,5", 1.5),
        ("1.2e-3", 0.0012),
        (" 2.5 ", 2.5),
        ("2.3%", 2.3),
        ("tensor(2.3, device='cuda:0', grad_fn=<NllLossBackward0>)", 2.3),
        ("np.float64(2.3)", 2.3),
        ("3.412", 3.412),
        (7, 7.0),
    ],
)
def test_a_number_is_read_however_it_was_printed(token: object, value: float) -> None:
    assert number(token) == pytest.approx(value)


@pytest.mark.parametrize("token", ["nan", "NaN", "-nan", "tensor(nan)", "-nan(ind)", "1.#QNAN"])
def test_a_logged_nan_is_nan(token: str) -> None:
    value = number(token)
    assert value is not None
    assert math.isnan(value)


@pytest.mark.parametrize("token", ["inf", "Infinity", "1e999", "1.#INF", 1.7976931348623157e308, 10**400])
def test_a_logged_infinity_is_infinite_and_so_is_the_largest_finite_number(token: object) -> None:
    assert number(token) == math.inf
    assert numbers([token, 1.0])[0][0] == math.inf


@pytest.mark.parametrize("token", ["", "NA", "N/A", "None", "null", "<NA>", "-", "No log", None])
def test_a_missing_value_is_no_number(token: object) -> None:
    assert number(token) is None
    assert numbers([token, "1"])[1].tolist() == [False, True]  # type: ignore[union-attr]


@pytest.mark.parametrize("token", [True, "true", "step", "1-2", "0:02:12", [1.0], "1,23,4"])
def test_what_is_no_number_is_none(token: object) -> None:
    assert number(token) is None


@pytest.mark.parametrize(
    "tokens",
    [
        ["1", "2.5", "nan"],
        ["1", "", "3"],
        ["1", "NA", "1,000"],
        [1, 2.5, None],
        [True, 2.0, "3"],
        ["", "", ""],
        ["a", "b", "c"],
    ],
)
def test_a_column_reads_as_its_tokens_do(tokens: list[object]) -> None:
    values, there = numbers(tokens)
    expected = [number(token) for token in tokens]
    present = np.ones(len(tokens), dtype=bool) if there is None else there
    assert present.tolist() == [value is not None for value in expected]
    np.testing.assert_array_equal(values[present], [value for value in expected if value is not None])


def test_with_a_decimal_comma_a_dot_parts_thousands() -> None:
    values, _ = numbers(["1,234", "1.234,5"], decimal_comma=True)
    assert values.tolist() == [1.234, 1234.5]
