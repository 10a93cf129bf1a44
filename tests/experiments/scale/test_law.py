"""The law of a boundary against closed forms, brute force with scipy, and what must not change it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import halfnorm, multivariate_normal, norm

from stresstest.errors import ConfigError
from stresstest.experiments.scale.law import normal
from stresstest.experiments.scale.law.bend import BEND_PRIOR, bend
from stresstest.experiments.scale.law.fit import Law, law, ratio
from stresstest.experiments.scale.law.observed import too_few
from stresstest.experiments.scale.law.posterior import SCATTER_PRIOR
from stresstest.results.bracket import Bracket

SIZES = [32.0, 64.0, 128.0, 256.0, 512.0]
OFF = np.array([[0.3, 0.1, 0.25], [-0.2, 0.1, 0.0], [0.0, -0.3, -0.2], [0.35, 0.3, 0.2], [-0.1, -0.3, 0.05]])  # octaves


def exact(level: float, slope: float, off: np.ndarray = OFF) -> list[list[Bracket]]:
    return [[Bracket.exactly(2.0 ** (level + slope * i + each)) for each in row] for i, row in enumerate(off)]


def octaves(rows: list[list[tuple[float | None, float | None]]]) -> list[list[Bracket]]:
    sides = [
        [(None if low is None else 2.0**low, None if high is None else 2.0**high) for low, high in row] for row in rows
    ]
    return [[Bracket(low=low, high=high) for low, high in row] for row in sides]


def fitted(sizes: list[float], cells: list[list[Bracket]]) -> Law:
    found = law(sizes, cells)
    assert found is not None
    return found


def test_the_normal_distribution_is_scipys_in_both_tails() -> None:
    z = np.linspace(-30.0, 12.0, 997)
    np.testing.assert_allclose(normal.log_cdf(z), norm.logcdf(z), rtol=1e-4, atol=1e-5)
    for low, width in itertools.product((-20.0, -3.0, -0.1, 2.0, 15.0), (0.02, 1.0, np.inf)):
        ours = float(normal.log_between(np.array([low]), np.array([low + width]))[0])
        mirrored = (low, low + width) if low < 0 else (-low - width, -low)
        theirs = math.log(norm.cdf(mirrored[1]) - norm.cdf(mirrored[0]))
        assert ours == pytest.approx(theirs, abs=5e-3), (low, width)


def test_the_quantile_of_one_normal_is_scipys() -> None:
    found = normal.mixture_quantiles(np.array([2.0]), np.array([0.5]), np.array([0.05, 0.5, 0.99]))
    np.testing.assert_allclose(found, norm.ppf([0.05, 0.5, 0.99], 2.0, 0.5), atol=1e-4)


def test_exact_values_without_scatter_give_the_exponent_and_the_next_size() -> None:
    found = fitted(SIZES, exact(-3.0, -1.0, 0 * OFF))
    assert found.exponent.median == pytest.approx(-1.0, abs=2e-3)
    ahead = found.predict(1024.0)
    assert ahead.octaves_ahead == 1.0
    assert ahead.median == pytest.approx(2.0**-8, rel=5e-3)
    assert ahead.octaves < 0.35


def by_hand(y: np.ndarray, design: np.ndarray, prior: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of 3 seeds a size with exact values: share of every pair of scatters, mean and sd of at . c, sd of a new seed.

    Given the scatters, the posterior of the coefficients c and the evidence are Gaussian, in closed form.
    """
    scatters = halfnorm.ppf((np.arange(40) + 0.5) / 40, scale=SCATTER_PRIOR)
    same = np.kron(np.eye(len(y) // 3), np.ones((3, 3)))
    rows = []
    for size, cell in itertools.product(scatters, scatters):
        noise = size**2 * same + cell**2 * np.eye(len(y))
        covariance = np.linalg.inv(design.T @ np.linalg.solve(noise, design) + np.diag(prior**-2))
        mean = covariance @ design.T @ np.linalg.solve(noise, y)
        evidence = multivariate_normal.logpdf(y, np.zeros(len(y)), noise + design * prior**2 @ design.T)
        variance = at @ covariance @ at
        rows.append((evidence, at @ mean, math.sqrt(variance), math.sqrt(variance + size**2 + cell**2)))
    evidence, mean, sd, ahead = np.array(rows).T
    share = np.exp(evidence - evidence.max())
    return share / share.sum(), mean, sd, ahead


def moments(share: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> tuple[float, float]:
    middle = float(share @ mean)
    return middle, math.sqrt(share @ sd**2 + share @ (mean - middle) ** 2)


def quantile(share: np.ndarray, mean: np.ndarray, sd: np.ndarray, below: float) -> float:
    return float(brentq(lambda at: share @ norm.cdf(at, mean, sd) - below, -20.0, 20.0))


def test_of_exact_values_the_posterior_is_that_of_the_two_level_normal_model() -> None:
    found = fitted(SIZES, exact(-3.0, -0.8))
    x = np.repeat(np.arange(5.0) - 2.0, 3)
    y, design, prior = -4.6 - 0.8 * x + OFF.ravel(), np.stack([np.ones(15), x], axis=1), np.array([10.0, 1.0])
    mean, sd = moments(*by_hand(y, design, prior, np.array([0.0, 1.0]))[:3])
    assert found.exponent_D.mean() == pytest.approx(mean, abs=0.03 * sd)
    assert found.exponent_D.std() == pytest.approx(sd, rel=0.03)
    share, place, _, spread = by_hand(y, design, prior, np.array([1.0, 3.0]))
    ahead = found.predict(1024.0)
    for end, below in ((ahead.low, 0.05), (ahead.median, 0.5), (ahead.high, 0.95)):
        assert share @ norm.cdf(math.log2(end), place, spread) == pytest.approx(below, abs=0.005)


def test_a_bend_is_that_of_the_two_level_normal_model() -> None:
    found = bend(SIZES, exact(-3.0, -0.8))
    assert found is not None
    x = np.repeat(np.arange(5.0) - 2.0, 3)
    design = np.stack([np.ones(15), x, 0.5 * np.abs(x)], axis=1)
    prior = np.array([10.0, 1.0, BEND_PRIOR])
    share, means, sds, _ = by_hand(-4.6 - 0.8 * x + OFF.ravel(), design, prior, np.array([0.0, 0.0, 1.0]))
    mean, sd = moments(share, means, sds)
    low, high = (quantile(share, means, sds, below) for below in (0.015, 0.985))
    assert found.change.median == pytest.approx(mean, abs=0.05 * sd)
    assert found.smallest == pytest.approx(0.5 * (high - low) + norm.ppf(0.8) * sd, rel=0.05)
    assert not found.seen


def test_a_planted_bend_is_seen_and_a_straight_line_is_not() -> None:
    rng = np.random.default_rng(3)
    sizes = [2.0**i for i in range(9)]
    off = 0.25 * rng.standard_normal((9, 1)) + 0.1 * rng.standard_normal((9, 3))
    for change, seen in ((1.0, True), (0.0, False), (-1.0, True)):
        level = -np.arange(9.0) + change * np.maximum(np.arange(9) - 4, 0)
        rows = np.floor(level[:, None] + off)
        found = bend(sizes, octaves([[(low, low + 1) for low in row] for row in rows]))
        assert found is not None
        assert found.seen is seen
        assert found.change.low <= change <= found.change.high
        assert 0.2 < found.smallest < 0.9


def test_a_bend_takes_four_sizes() -> None:
    assert bend(SIZES[:3], exact(-3.0, -1.0)[:3]) is None
    found = bend(SIZES[:4], exact(-3.0, -1.0)[:4])
    assert found is not None
    assert not found.seen
    assert found.smallest > 1.0


def test_of_brackets_the_posterior_is_that_of_a_sum_over_everything() -> None:
    """Brute force: every scatter, line and size effect on a grid, with open sides and seeds that share their size."""
    rows = [[(-1.0, 0.0), (-1.0, -0.5)], [(-2.0, -1.0), (None, -1.0)], [(-3.0, -2.5), (-2.5, None)], [(-4.0, -3.0)]]
    found = fitted([1.0, 2.0, 4.0, 8.0], octaves(rows))
    scatters = halfnorm.ppf((np.arange(9) + 0.5) / 9, scale=SCATTER_PRIOR)
    level, slope = np.meshgrid(np.linspace(-4.5, 0.5, 31), np.linspace(-2.5, 0.5, 31), indexing="ij")
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    total, first, second = 0.0, 0.0, 0.0
    for size, cell in itertools.product(scatters, scatters):
        density = norm.pdf(slope)
        for i, row in enumerate(rows):
            here = (level + slope * (i - 1.5))[..., None] + size * nodes
            sides = [(-np.inf if low is None else low, np.inf if high is None else high) for low, high in row]
            each = [norm.cdf((high - here) / cell) - norm.cdf((low - here) / cell) for low, high in sides]
            density = density * (np.prod(each, axis=0) @ weights)
        total += density.sum()
        first += (density * slope).sum()
        second += (density * slope**2).sum()
    mean = first / total
    sd = math.sqrt(second / total - mean**2)
    assert found.exponent_D.mean() == pytest.approx(mean, abs=0.05 * sd)
    assert found.exponent_D.std() == pytest.approx(sd, rel=0.05)


def test_units_of_lr_and_of_size_change_nothing_but_the_units() -> None:
    rows = [[(-1.0, 0.0), (-2.0, -1.0)], [(-2.0, -1.0)] * 2, [(-3.0, -2.0), (-3.0, None)], [(-4.0, -3.0)] * 2]
    sizes = [8.0, 16.0, 32.0, 64.0]
    plain, cells = fitted(sizes, octaves(rows)), octaves(rows)
    other = [[Bracket(low=b.low and 1000 * b.low, high=b.high and 1000 * b.high) for b in row] for row in cells]
    scaled = fitted([3.0 * size for size in sizes], other)
    assert scaled.exponent.median == pytest.approx(plain.exponent.median, abs=1e-3)
    here, there = plain.predict(128.0), scaled.predict(384.0)
    assert [there.low, there.median, there.high] == pytest.approx(
        [1000 * v for v in (here.low, here.median, here.high)], rel=2e-3
    )


def test_the_same_brackets_give_the_same_numbers() -> None:
    cells = exact(-3.0, -1.0)
    assert fitted(SIZES, cells).predict(600.0) == fitted(SIZES, cells).predict(600.0)


def test_a_bound_at_the_largest_size_moves_the_prediction_to_its_side_only() -> None:
    rows: list[list[tuple[float | None, float | None]]] = [[(-i - 1.0, -float(i))] * 3 for i in range(4)]
    medians = [
        fitted(SIZES, octaves([*rows, [bound] * 3])).predict(1024.0).median
        for bound in ((None, -6.0), (None, -5.0), (None, None), (-5.0, None), (-4.0, None), (-3.0, None))
    ]
    assert medians == sorted(medians)
    assert len(set(medians)) == 6


def test_brackets_that_lock_are_no_better_known_with_more_seeds() -> None:
    rows: list[tuple[float | None, float | None]] = [(-i - 1.0, -float(i)) for i in range(5)]
    few, many = (fitted(SIZES, octaves([[row] * seeds for row in rows])).predict(1024.0) for seeds in (3, 30))
    assert few.octaves > 1.0
    assert many.octaves > 0.9  # an octave, wherever in it every size's boundary lies


def test_the_ratio_of_two_variants_holds_what_both_laws_miss() -> None:
    over, under = fitted(SIZES, exact(-1.0, -1.0)), fitted(SIZES, exact(-3.0, -1.0))
    found = ratio(over, under, 1024.0)
    assert found.median == pytest.approx(4.0, rel=0.02)
    both = np.log2(over.predict(1024.0).high / over.predict(1024.0).low)
    assert 0.7 * both < math.log2(found.high / found.low) < 1.5 * both


def test_fewer_than_three_sizes_with_an_answer_have_no_law_and_it_is_said_why() -> None:
    rows = [[(-1.0, 0.0)], [(-2.0, -1.0), (None, None)], [(None, -1.0)], [(-3.0, None)]]
    assert law(SIZES[:4], octaves(rows)) is None
    assert too_few(octaves(rows)) == "no law: it takes 3 sizes with an answer, and 2 of 4 has one"
    assert too_few(octaves([*rows, [(-4.0, -3.0)]])) == ""


@pytest.mark.parametrize(
    ("sizes", "words"),
    [([4.0, 2.0, 8.0], "give positive sizes that grow"), ([0.0, 1.0, 2.0], "positive"), ([1.0], "1 sizes")],
)
def test_sizes_that_make_no_path_are_refused(sizes: list[float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        law(sizes, octaves([[(-1.0, 0.0)]] * 3))


def test_exchanged_sides_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a bracket of size 2 from 0\.5 to 0\.25"):
        law([1.0, 2.0, 4.0], octaves([[(-1.0, 0.0)], [(-1.0, -2.0)], [(-1.0, 0.0)]]))
