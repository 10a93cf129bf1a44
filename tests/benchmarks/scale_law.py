"""How often the law's interval holds what comes, and what it costs: simulated. Run by hand, about 10 minutes:

    python tests/benchmarks/scale_law.py [coverage] [bends] [--draws 200] [--markdown]

Boundaries are drawn around a planted law, each with an effect of its size and a scatter of its own, and read off as
brackets whose grid lies anywhere. The law is fitted to them and asked for the sizes one and two octaves beyond. In
`coverage` stand: how often the 90 % interval holds a new seed's boundary; how often the centre of its bracket, as the
leave-outs count it; the median width in octaves. Beside the law stand maximum likelihood of the same model, whose
scatters are taken for the truth and whose line has its standard error, and ordinary least squares on the centres with
a t interval. `bends` asks how often a bend is seen, where there is one and where there is none; the last rows plant
the smallest one that a path of that kind says it would show in 80 of 100 draws.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import t as student
from tables import show

from stresstest.experiments.scale.law.bend import bend
from stresstest.experiments.scale.law.fit import law
from stresstest.results.bracket import Bracket

SEEDS = 3
WIDTHS = {"octave": 1.0, "quarter": 0.25}
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@dataclass(frozen=True)
class Case:
    """A planted law and how it is looked at; `bend` is the change of slope in the middle of the sizes."""

    sizes: int = 5
    spacing: float = 1.41
    width: str = "octave"
    slope: float = -1.0
    bend: float = 0.0
    size_scatter: float = 0.25
    cell_scatter: float = 0.25
    tails: str = "normal"  # or t3: Student's t of 3 degrees of freedom, scaled to the same variance

    def level(self, x: np.ndarray) -> np.ndarray:
        """log2 lr, `x` octaves above the smallest size."""
        middle = 0.5 * (self.sizes - 1) * math.log2(self.spacing)
        return np.asarray(self.slope * x + self.bend * np.maximum(x - middle, 0.0))

    def scatter(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Of unit variance."""
        return rng.standard_normal(shape) if self.tails == "normal" else rng.standard_t(3, shape) / math.sqrt(3.0)


@dataclass(frozen=True)
class Draw:
    """A path: octaves above the smallest size, boundaries and brackets (low, high) by seed; the fit sees `number`."""

    x_I: np.ndarray
    boundary_IJ: np.ndarray
    sides_IJ2: np.ndarray
    number: int


Ahead = Sequence[tuple[float, float]]  # the interval of each size beyond, in octaves


def draw(case: Case, rng: np.random.Generator) -> Draw:
    """The sizes of a case, and those one and two octaves beyond."""
    x = math.log2(case.spacing) * np.arange(case.sizes)
    x = np.append(x, x[-1] + np.array([1.0, 2.0]))
    size_effect = case.size_scatter * case.scatter(rng, len(x), 1)
    boundary = case.level(x)[:, None] + size_effect + case.cell_scatter * case.scatter(rng, len(x), SEEDS)
    width, phase = WIDTHS[case.width], rng.random()
    low = np.floor(boundary / width + phase) * width - phase * width
    return Draw(x, boundary, np.stack([low, low + width], axis=2), case.sizes)


def cells(found: Draw) -> list[list[Bracket]]:
    """The brackets that the fit sees, in units of LR."""
    return [[Bracket(low=2.0**low, high=2.0**high) for low, high in row] for row in found.sides_IJ2[: found.number]]


def bayesian(found: Draw) -> Ahead:
    """The law that `stresstest scale` fits."""
    known = law([2.0**x for x in found.x_I[: found.number]], cells(found))
    assert known is not None
    ahead = [known.predict(2.0**x) for x in found.x_I[found.number :]]
    return [(math.log2(each.low), math.log2(each.high)) for each in ahead]


def plug_in(found: Draw) -> Ahead:
    """Maximum likelihood of the same model, by Gauss-Hermite sums and Nelder-Mead; its scatters stand for the truth."""
    x, sides = found.x_I[: found.number], found.sides_IJ2[: found.number]

    def loss(at: np.ndarray) -> float:
        size, cell = np.exp(np.clip(at[2:], -4.0, 1.5))
        level = (at[0] + at[1] * x)[:, None, None] + size * NODES[None, None, :]
        each = ndtr((sides[:, :, 1, None] - level) / cell) - ndtr((sides[:, :, 0, None] - level) / cell)
        return -float(np.log(np.prod(each, axis=1) @ WEIGHTS + 1e-300).sum())

    slope, level = np.polyfit(x, sides.mean(axis=(1, 2)), 1)
    best = minimize(loss, np.array([level, slope, -1.5, -1.5]), method="Nelder-Mead", options={"maxiter": 250}).x
    size, cell = np.exp(np.clip(best[2:], -4.0, 1.5))
    ahead = found.x_I[found.number :]
    leverage = 1.0 / len(x) + (ahead - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()
    half = 1.645 * np.sqrt(size**2 + cell**2 + (size**2 + cell**2 / SEEDS) * leverage)
    middle = best[0] + best[1] * ahead
    return list(zip(middle - half, middle + half, strict=True))


def least_squares(found: Draw) -> Ahead:
    """A line through the sizes' mean centres, with the t interval of one new seed."""
    x, centre = found.x_I[: found.number], found.sides_IJ2[: found.number].mean(axis=2)
    mean = centre.mean(axis=1)
    slope, level = np.polyfit(x, mean, 1)
    freedom = found.number - 2
    squares = float(((mean - level - slope * x) ** 2).sum() / freedom)
    within = float(centre.var(axis=1, ddof=1).mean()) * (1.0 - 1.0 / SEEDS)
    away = x - x.mean()
    ahead = []
    for at in found.x_I[found.number :]:
        leverage = 1.0 / len(x) + (at - x.mean()) ** 2 / float(away @ away)
        half = student.ppf(0.95, freedom) * math.sqrt(squares * (1.0 + leverage) + within)
        ahead.append((level + slope * at - half, level + slope * at + half))
    return ahead


METHODS: dict[str, Callable[[Draw], Ahead]] = {"law": bayesian, "plug-in": plug_in, "t": least_squares}


def coverage(case: Case, draws: int) -> list[str]:
    """By method and octaves ahead: inside, centres, median width."""
    rng = np.random.default_rng(0)
    paths = [draw(case, rng) for _ in range(draws)]
    words = []
    for fit in METHODS.values():
        ends = np.array([fit(path) for path in paths])  # draws x 2 sizes ahead x 2 ends
        for k in range(2):
            low, high = ends[:, k, 0, None], ends[:, k, 1, None]
            boundary = np.array([path.boundary_IJ[path.number + k] for path in paths])
            centre = np.array([path.sides_IJ2[path.number + k].mean(axis=1) for path in paths])
            inside, centres = ((low <= value) & (value <= high) for value in (boundary, centre))
            words.append(f"{inside.mean():.0%} {centres.mean():.0%} {np.median(high - low):.1f}")
    return words


def bends(case: Case, draws: int) -> tuple[float, float]:
    """(share of draws in which a bend is seen, median of the smallest one that would be)."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(draws):
        path = draw(case, rng)
        found.append(bend([2.0**x for x in path.x_I[: path.number]], cells(path)))
    told = [each for each in found if each is not None]
    assert len(told) == draws
    return float(np.mean([each.seen for each in told])), float(np.median([each.smallest for each in told]))


def cases_of_coverage() -> list[Case]:
    """Every design under a plain law, then one design under other laws and scatters."""
    designs = [
        Case(sizes, spacing, width) for spacing, width, sizes in itertools.product((1.41, 2.0), WIDTHS, (3, 4, 5, 7, 9))
    ]
    others: list[dict[str, Any]] = [
        {"slope": 0.0},
        {"slope": -2.0},
        {"slope": -1.25, "bend": 0.5},
        {"size_scatter": 0.1, "cell_scatter": 0.1},
        {"size_scatter": 0.5, "cell_scatter": 0.25},
        {"size_scatter": 0.5, "cell_scatter": 0.5},
        {"tails": "t3"},
    ]
    return designs + [Case(width=width, **other) for width, other in itertools.product(WIDTHS, others)]


def cases_of_bends() -> list[Case]:
    """The nine sizes that must show a bend of 1 and none where there is none, then shorter paths."""
    scatters = ((0.25, 0.1), (0.1, 0.25), (0.1, 0.1))
    long = [
        Case(9, 2.0, width, -1.0 - 0.5 * change, change, *scatter)
        for width, scatter, change in itertools.product(WIDTHS, scatters, (0.0, 1.0))
    ]
    return [*long, *(Case(5, 2.0, width, -1.25, 0.5, 0.1, 0.1) for width in WIDTHS)]


def row(case: Case, words: Sequence[str]) -> list[str]:
    """A row of a table, which is told at once: a table takes minutes."""
    what = (case.sizes, case.spacing, case.width, case.slope, case.bend, case.size_scatter, case.cell_scatter)
    cells = [*(each if isinstance(each, str) else f"{each:.3g}" for each in what), case.tails, *words]
    print(" | ".join(cells), file=sys.stderr, flush=True)
    return cells


def bend_row(case: Case, draws: int) -> list[str]:
    """How often a bend is seen, and the smallest one."""
    seen, smallest = bends(case, draws)
    return row(case, [f"{seen:.0%}", f"{smallest:.2f}"])


def smallest_row(case: Case, draws: int) -> list[str]:
    """The same with the bend planted that is the smallest one of a straight path of that kind."""
    _, smallest = bends(case, draws)
    return bend_row(replace(case, slope=-1.0 - smallest / 2, bend=smallest), draws)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("tables", nargs="*", default=["coverage", "bends"], help="coverage, bends, or both")
    parser.add_argument("--draws", type=int, default=200, help="simulated paths a row")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    case = ["sizes", "apart", "brackets", "slope", "bend", "size scatter", "cell scatter", "tails"]
    if "coverage" in asked.tables:
        heads = [f"{method}, +{ahead}" for method in METHODS for ahead in (1, 2)]
        found = [row(each, coverage(each, asked.draws)) for each in cases_of_coverage()]
        show([*case, *heads], found, asked.markdown)
    if "bends" in asked.tables:
        found = [bend_row(each, asked.draws) for each in cases_of_bends()]
        paths = (Case(5, 2.0, "octave"), Case(7, 1.41, "quarter"), Case(9, 2.0, "quarter"))
        found += [smallest_row(each, asked.draws) for each in paths]
        show([*case, "bend seen", "smallest"], found, asked.markdown)


if __name__ == "__main__":
    main()
