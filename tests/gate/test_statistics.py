"""The gate's tests against scipy, closed forms, and the scatter that was measured."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test, wilcoxon

from stresstest.gate import statistics
from stresstest.gate.statistics import TestVerdict

ALPHA = 0.05
TOLERANCE = 0.5
quarters = st.lists(st.integers(-8, 8).map(lambda k: k / 4), min_size=1, max_size=10)


def exactly(*differences: float) -> list[tuple[float, float]]:
    return [(value, value) for value in differences]


@given(quarters)
def test_the_sign_flip_test_is_scipys_exact_one(differences: list[float]) -> None:
    ours = statistics.sign_flip(differences)
    if len(differences) == 1:
        assert ours == (1.0 if differences[0] <= 0 else 0.5)
        return
    theirs = permutation_test(
        (np.array(differences),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert ours == pytest.approx(theirs.pvalue)


def test_of_distinct_ranks_it_is_wilcoxons_signed_rank_test() -> None:
    differences = [1.0, 2.0, -3.0, 4.0, 5.0, -6.0, 7.0, 8.0]
    assert statistics.sign_flip(differences) == pytest.approx(wilcoxon(differences, alternative="greater").pvalue)


@pytest.mark.parametrize("n", [1, 5, 8, 24])
def test_all_of_one_sign_is_the_least_p_that_n_seeds_can_give(n: int) -> None:
    assert statistics.sign_flip([0.25] * n) == 2.0**-n
    assert statistics.sign_flip([-0.25] * n) == 1.0


def test_what_is_unbounded_never_speaks_for_a_change() -> None:
    assert statistics.sign_flip([-math.inf, 1.0, 1.0, 1.0]) > 0.5
    assert statistics.p_worse([(-math.inf, -1.0)] * 6) == 2.0**-6  # at least an octave down is down
    assert statistics.p_worse([(-math.inf, math.inf)] + [(-1.0, -1.0)] * 5) >= 0.5


def test_holm_by_hand() -> None:
    # Holm (1979): ordered p times 4, 3, 2, 1, and never smaller than the one before
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.01], lines=4) == pytest.approx([0.04])
    assert statistics.holm([]) == []


@pytest.mark.parametrize(
    ("lines", "seeds"), [(1, 5), (2, 6), (3, 6), (4, 7), (6, 7), (7, 8), (8, 8), (10, 8), (12, 8), (20, 9)]
)
def test_as_few_seeds_as_can_call_anything(lines: int, seeds: int) -> None:
    assert statistics.seeds_needed(lines, ALPHA) == seeds
    assert lines * 2.0**-seeds <= ALPHA < lines * 2.0 ** -(seeds - 1)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-1.0] * 6, "regressed"),
        ([-0.5] * 6, "within-noise"),  # a loss of just the tolerance passes, as the threshold says
        ([-0.75] * 6, "regressed"),
        ([0.0] * 6, "no-change"),
        ([0.25, -0.25, 0.0, 0.25, -0.25, 0.0], "no-change"),
        ([1.0] * 6, "improved"),
        ([0.25] * 6, "within-noise"),
        ([1.0] * 5 + [-0.25], "within-noise"),  # no loss, and the gain is not shown
        ([-1.0, 1.0, -0.75, 0.5, -1.0, 0.25], "inconclusive"),
        ([-1.0] * 5 + [0.25], "inconclusive"),  # p = 2 / 64 is above the look's share, 0.025
        ([-1.0] * 4, "insufficient-seeds"),
        ([0.0] * 4, "insufficient-seeds"),  # also where all seems well
    ],
)
def test_the_verdict_of_a_line(differences: list[float], verdict: TestVerdict) -> None:
    [(found, _)] = statistics.decide([(exactly(*differences), TOLERANCE)], ALPHA / 2)
    assert found == verdict


def test_lines_that_an_earlier_look_has_settled_still_count() -> None:
    one = exactly(*[-1.0] * 6)
    assert statistics.decide([(one, TOLERANCE)], ALPHA)[0][0] == "regressed"
    assert statistics.decide([(one, TOLERANCE)], ALPHA, number=4)[0] == ("insufficient-seeds", 4 / 64)


def test_a_head_that_trains_nowhere_is_a_loss_where_the_bound_says_so() -> None:
    assert statistics.decide([([(-math.inf, -2.0)] * 6, TOLERANCE)], ALPHA)[0][0] == "regressed"
    assert statistics.decide([([(-math.inf, 0.25)] * 6, TOLERANCE)], ALPHA)[0][0] == "inconclusive"


@pytest.mark.parametrize(("seeds", "most", "expected"), [(8, 24, [8, 16]), (16, 24, [16, 24]), (8, 8, [8])])
def test_looks(seeds: int, most: int, expected: list[int]) -> None:
    assert statistics.looks(seeds, most) == expected


def test_from_the_measured_scatter_false_alarms_are_rare_and_an_octave_is_seen(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A tenth of what tests/benchmarks/gate_errors.py simulates, by its code."""
    monkeypatch.syspath_prepend(str(request.config.rootpath / "tests" / "benchmarks"))
    import json

    import gate_errors  # type: ignore[import-not-found]  # a script beside the tests

    scatter: Any = json.loads(gate_errors.STORED.read_text())
    rng = random.Random(1)
    for draw in (gate_errors.redrawn, gate_errors.rounding):
        unchanged = [gate_errors.gate(rng, scatter, draw, [0.0, 0.0, 0.0])[0] for _ in range(1000)]
        one_octave = [gate_errors.gate(rng, scatter, draw, [1.0, 0.0, 0.0])[0] for _ in range(300)]
        assert unchanged.count("regressed") <= 20
        assert one_octave.count("regressed") >= 270
