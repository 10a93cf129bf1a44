"""Logged tokens as numbers."""

from __future__ import annotations

import math

_MISSING = frozenset({"", "na", "n/a", "none", "null", "-"})


def number(token: object) -> float | None:
    """The number that a token is, with NaN and infinity as such; None of one that is missing or no number."""
    if isinstance(token, bool) or token is None:
        return None
    if isinstance(token, int | float):
        return _finite_or_infinite(float(token))
    if not isinstance(token, str):
        return None
    text = token.strip()
    if text.lower() in _MISSING:
        return None
    try:
        return _finite_or_infinite(float(text.replace(",", "")))
    except ValueError:
        return None


def _finite_or_infinite(value: float) -> float:
    """The largest finite number stands for infinity (MLflow's SQLite store writes it so)."""
    return math.copysign(math.inf, value) if abs(value) >= 1.79e308 else value
