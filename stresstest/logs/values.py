"""Logged tokens as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Floats

Bools = NDArray[np.bool_]

_MISSING = frozenset({"", "na", "n/a", "<na>", "#n/a", "none", "null", "nil", "-", "--", "no log"})
_HOLES = ("", None, "NA")  # what stands most often where nothing was logged
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
# What Python prints of a scalar of another library: tensor(2.3, device='cuda:0'), np.float64(2.3).
_WRAPPED = re.compile(r"[A-Za-z_][\w.]*\(\s*([-+\w.]+)\s*(?:,.*)?\)")
# What C's printf gives on Windows.
_MICROSOFT = {"1.#inf": math.inf, "-1.#inf": -math.inf, "1.#qnan": math.nan, "-1.#ind": math.nan}
_LARGEST = 1.79e308


def number(token: object) -> float | None:
    """The number that a token is, with NaN and infinity as such; None of one that is missing or no number.

    A comma parts thousands where it can ("1,234.5"), else it is the decimal mark ("0,532"). The largest finite number
    stands for infinity (MLflow's SQLite store writes it so).
    """
    if isinstance(token, str):
        return _number_in(token.strip())
    if isinstance(token, bool) or not isinstance(token, int | float):
        return None
    try:
        return _finite_or_infinite(float(token))
    except OverflowError:
        return math.inf if token > 0 else -math.inf


def numbers(tokens: Sequence[object], decimal_comma: bool = False) -> tuple[Floats, Bools | None]:
    """The numbers of a column's tokens, 0 where one is missing, and which are there (None: all of them).

    decimal_comma: "1,234" is 1.234, and "." parts thousands.
    """
    if decimal_comma:
        tokens = [token.replace(".", "").replace(",", ".") if isinstance(token, str) else token for token in tokens]
    kinds = set(map(type, tokens))
    if kinds == {str} or kinds <= {int, float}:
        try:
            return _floats(tokens), None
        except (ValueError, OverflowError):
            pass
    return _with_holes(tokens)


def _with_holes(tokens: Sequence[object]) -> tuple[Floats, Bools]:
    there = np.fromiter((token not in _HOLES for token in tokens), bool, len(tokens))
    found = [token for token in tokens if token not in _HOLES]
    try:
        numeric = _floats(found) if set(map(type, found)) <= {str, float, int} else None
    except (ValueError, OverflowError):
        numeric = None
    if numeric is None:
        each = [number(token) for token in tokens]
        there = np.array([value is not None for value in each], dtype=bool)
        numeric = np.array([value for value in each if value is not None], dtype=float)
    values = np.zeros(len(tokens))
    values[there] = numeric
    return values, there


def _floats(tokens: Sequence[object]) -> Floats:
    return _clipped(np.fromiter(map(float, tokens), float, len(tokens)))  # type: ignore[arg-type]  # others raise


def _clipped(values: Floats) -> Floats:
    huge = np.abs(values) >= _LARGEST
    return np.where(huge, np.copysign(np.inf, values), values) if huge.any() else values


def _number_in(text: str) -> float | None:
    lower = text.lower()
    if lower in _MISSING:
        return None
    try:
        return _finite_or_infinite(float(text))
    except ValueError:
        pass
    if text.endswith("%"):
        return _number_in(text[:-1].rstrip())
    if _THOUSANDS.fullmatch(text):
        return float(text.replace(",", ""))
    if _DECIMAL_COMMA.fullmatch(text):
        return float(text.replace(",", "."))
    if wrapped := _WRAPPED.fullmatch(text):
        return _number_in(wrapped.group(1))
    if lower.endswith(("nan(ind)", "nan(snan)")):
        return math.nan
    return _MICROSOFT.get(lower)


def _finite_or_infinite(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else value
