"""Paired comparison over seeds: exact one-sided sign-flip tests, Holm over the lines, alpha spent over the looks.

A difference is in the metric's own scale (octaves for learning rates), and negative where the head is worse.
What is only known within bounds is a pair of bounds; each test takes the end that is least in its favour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

TestVerdict = Literal[
    "identical",
    "no-change",
    "within-noise",
    "improved",
    "regressed",
    "inconclusive",
    "insufficient-seeds",
    "no-data",
    "no-baseline",
    "incomparable",
    "errored",
]

FAR_TOO_MANY = 1000  # seeds
MOST_SEEDS = 24  # an exact test of more values that are all different takes too long
_FAR = 1e9  # stands for an unbounded difference
_DIGITS = 9  # to which two sums are the same
_ROUNDING = 1e-9


def sign_flip(differences: Sequence[float]) -> float:
    """P(sum of randomly signed differences >= their sum): the exact one-sided sign-flip (Fisher-Pitman) test.

    Small where the differences are positive; at least 2^-n. Exact if their signs are symmetric where nothing changed.
    """
    far = [max(-_FAR, min(_FAR, value)) for value in differences]
    sums = {0.0: 1}
    for value in far:
        found: dict[float, int] = {}
        for total, ways in sums.items():
            for signed in (total + value, total - value):
                key = round(signed, _DIGITS)
                found[key] = found.get(key, 0) + ways
        sums = found
    observed = sum(far) - 10.0**-_DIGITS * (len(far) + 1)
    return float(sum(ways for total, ways in sums.items() if total >= observed) / (1 << len(far)))


def holm(p_values: Sequence[float], lines: int = 0) -> list[float]:
    """Holm's (1979) adjusted p-values: those at most alpha may be called with error rate alpha over all.

    `lines` counts those too that an earlier look has settled, where they are more.
    """
    number, largest = max(lines, len(p_values)), 0.0
    adjusted = [0.0] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (number - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def sign_test(agreeing: int, number: int) -> float:
    """Two-sided p of so many of `number` seeds on one side, if each were as likely on either; at most 1."""
    ways, tail = 1, 0
    for k in range(number, agreeing - 1, -1):
        tail += ways
        ways = ways * k // (number - k + 1)
    return min(1.0, 2 * tail / (1 << number))


def seeds_to_decide(one: int, other: int, number: int, alpha: float) -> int | None:
    """How many seeds a sign test at alpha would take, if they fall as `one` and `other` of `number` did.

    `None` where they fall alike, or where it would take more than `FAR_TOO_MANY`.
    """
    most = max(one, other)
    if one == other:
        return None
    for seeds in range(1, FAR_TOO_MANY + 1):
        if sign_test(math.floor(most * seeds / number), seeds) <= alpha:
            return seeds
    return None


def seeds_needed(lines: int, alpha: float) -> int:
    """Fewest seeds with which the least of `lines` p-values can be called at `alpha`: ceil(log2(lines / alpha))."""
    return max(1, math.ceil(math.log2(lines / alpha) - 1e-12))


def looks(seeds: int, most: int) -> list[int]:
    """Seeds at each look: the scenario's own, and if that decides nothing, once more with twice as many."""
    more = min(most, 2 * seeds)
    return [seeds, more] if more > seeds else [seeds]


def p_worse(bounds: Sequence[tuple[float, float]]) -> float:
    """Of the hypothesis that nothing got worse; bounds are (least, largest) possible difference of each seed."""
    return sign_flip([-largest for _, largest in bounds])


def p_better(bounds: Sequence[tuple[float, float]]) -> float:
    """Of the hypothesis that nothing got better."""
    return sign_flip([least for least, _ in bounds])


def p_out_of_tolerance(bounds: Sequence[tuple[float, float]], tolerance: float) -> float:
    """Of the hypothesis that the head is worse by the tolerance or more: small where a pass is shown."""
    return sign_flip([least + tolerance for least, _ in bounds])


def call(
    bounds: Sequence[tuple[float, float]], tolerance: float, worse: float, better: float, alpha: float
) -> TestVerdict:
    """The verdict of one line at one look; `worse` and `better` are the p-values, adjusted over the lines.

    Significance first, then size: what is significant and within the tolerance passes. Where nothing is
    significant, it passes only if a loss beyond the tolerance can be excluded; else nothing is known yet.
    The losses that can be excluded are tested line by line, as their error is that of the line.
    """
    least, largest = middle(bounds)
    if worse <= alpha and largest < -tolerance - _ROUNDING:
        return "regressed"
    if better <= alpha and least > tolerance + _ROUNDING:
        return "improved"
    if min(worse, better) <= alpha and least >= -tolerance - _ROUNDING:
        return "within-noise"
    if p_out_of_tolerance(bounds, tolerance) <= alpha:
        return "no-change" if least <= tolerance + _ROUNDING else "within-noise"  # a gain, which may be chance
    return "inconclusive"


def decide(
    lines: Sequence[tuple[Sequence[tuple[float, float]], float]], alpha: float, number: int = 0
) -> list[tuple[TestVerdict, float]]:
    """The verdict of each line, (bounds by seed, tolerance), at one look that spends `alpha`, with its adjusted p.

    `number` counts the lines that an earlier look has settled too, where they are more.
    """
    worse = holm([p_worse(bounds) for bounds, _ in lines], number)
    better = holm([p_better(bounds) for bounds, _ in lines], number)
    needed = seeds_needed(max(number, len(lines), 1), alpha)
    found: list[tuple[TestVerdict, float]] = []
    for (bounds, tolerance), p, q in zip(lines, worse, better, strict=True):
        verdict = call(bounds, tolerance, p, q, alpha)
        too_few = verdict == "inconclusive" and len(bounds) < needed
        found.append(("insufficient-seeds" if too_few else verdict, p))
    return found


def middle(bounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The median difference: its least and its largest possible value."""
    leasts, largests = sorted(low for low, _ in bounds), sorted(high for _, high in bounds)
    return _median(leasts), _median(largests)


def _median(values: Sequence[float]) -> float:
    a, b = values[(len(values) - 1) // 2], values[len(values) // 2]
    return a if a == b else (a + b) / 2
