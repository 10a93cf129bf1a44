"""By which power of the width a layer's output moves, place by place, and whether that is an alarm."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stresstest.experiments.scale.naming import arm
from stresstest.experiments.sizes.path import FEWEST_SIZES
from stresstest.results.records import Cell

COVERAGE = 0.9
UNALIGNED = -0.5  # under muP, of a change that is not aligned yet with what it is multiplied by; else 0
GROWS, VANISHES = 0.25, -0.75  # alarms lie beyond: half-way to the next exponents that theory has, 1/2 and -1
_LOST = 1e-5  # of an output: a change below is mostly rounding

Kind = Literal["change", "rms"]  # of a cell's record
Alarm = Literal["", "grows", "vanishes", "grows at the start"]


@dataclass(frozen=True)
class Exponent:
    """b of value ~ width^b, the mean over seeds, and a 90 % t interval, which takes two seeds."""

    value: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """As printed everywhere."""
        interval = f" ({self.low:.2f}..{self.high:.2f})" if math.isfinite(self.low) else ""
        return f"{self.value:.2f}{interval}"

    @property
    def grows(self) -> bool:
        """Whether it is clearly above what muP allows, 0: nearer to 1/2, and with its whole interval."""
        return self.value > GROWS and not self.low <= 0.0  # NaN of one seed

    @property
    def vanishes(self) -> bool:
        """Whether it is clearly below what muP allows.

        That is -1/2: a sum over n coordinates that are not aligned grows as n^1/2 where muP reckons with n (Everett et
        al. 2024, Sec. 3), and the first steps are aligned in part.
        """
        return self.value < VANISHES and not self.high >= UNALIGNED


@dataclass(frozen=True)
class Place:
    """One place of the forward pass over the widths: exponents, and the medians over seeds that they are fitted to."""

    name: str
    change: Exponent | None  # after the last step; `None` where it is zero or not finite at some width
    initial: Exponent | None
    changes: Mapping[int, float]
    initials: Mapping[int, float]

    @property
    def alarm(self) -> Alarm:
        """What is not as under muP; that an output shrinks at the start is: the logits do."""
        if self.initial is not None and self.initial.grows:
            return "grows at the start"
        if self.change is not None and self.change.grows:
            return "grows"
        return "vanishes" if self.change is not None and self.change.vanishes else ""

    @property
    def lost(self) -> bool:
        """Whether it moved so little at some width that it is rounding."""
        return any(0.0 < change < _LOST * self.initials[width] for width, change in self.changes.items())


@dataclass(frozen=True)
class Checked:
    """What the check says of one variant and parametrization: its places in the order of the forward pass."""

    name: str
    places: tuple[Place, ...]
    widths: tuple[int, ...]
    broken: tuple[int, ...]  # widths at which some output was not finite

    @property
    def grows(self) -> list[Place]:
        """The places whose output grows with width, the first of the forward pass first."""
        return [place for place in self.places if place.alarm.startswith("grows")]


def checks(cells: Sequence[Cell]) -> list[Checked]:
    """One for each that has finished cells at three widths or more, in the order of the cells."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.status == "done" and cell.coords:
            groups.setdefault(arm(cell), []).append(cell)
    return [_checked(name, found) for name, found in groups.items() if len(_by_width(found)) >= FEWEST_SIZES]


def _by_width(cells: Sequence[Cell]) -> dict[int, list[Cell]]:
    widths = sorted({cell.point["width"] for cell in cells})
    return {width: [cell for cell in cells if cell.point["width"] == width] for width in widths}


def _checked(name: str, cells: Sequence[Cell]) -> Checked:
    by_width = _by_width(cells)
    places = _everywhere(cells)
    broken = [width for width, mine in by_width.items() if any(None in _lasts(cell) for cell in mine)]
    return Checked(name, tuple(_place(place, by_width) for place in places), tuple(by_width), tuple(broken))


def _everywhere(cells: Sequence[Cell]) -> list[str]:
    """The places that all cells have, in order."""
    there = set.intersection(*(set(cell.coords["places"]) for cell in cells))
    return [place for place in cells[0].coords["places"] if place in there]


def _lasts(cell: Cell) -> list[float | None]:
    return [changes[-1] for changes in cell.coords["change"]]


def _place(name: str, by_width: Mapping[int, Sequence[Cell]]) -> Place:
    return Place(
        name,
        exponent(_of_seeds(name, by_width, "change", -1)),
        exponent(_of_seeds(name, by_width, "rms", 0)),
        _medians(name, by_width, "change", -1),
        _medians(name, by_width, "rms", 0),
    )


def _of_seeds(name: str, by_width: Mapping[int, Sequence[Cell]], kind: Kind, step: int) -> list[dict[int, float]]:
    """Of each seed that has them all, the values by width."""
    found: dict[int, dict[int, float]] = {}
    for width, cells in by_width.items():
        for cell in cells:
            found.setdefault(cell.seed, {})[width] = _value(name, cell.coords, kind, step)
    return [values for values in found.values() if len(values) == len(by_width)]


def _medians(name: str, by_width: Mapping[int, Sequence[Cell]], kind: Kind, step: int) -> dict[int, float]:
    return {
        width: statistics.median(_value(name, cell.coords, kind, step) for cell in cells)
        for width, cells in by_width.items()
    }


def _value(name: str, coords: Mapping[str, Any], kind: Kind, step: int) -> float:
    value = coords[kind][coords["places"].index(name)][step]
    return math.inf if value is None else float(value)


def exponent(seeds: Sequence[Mapping[int, float]]) -> Exponent | None:
    """Least squares in log2-log2 for each seed, and a t interval over the seeds.

    `None` where there is no seed, there are too few widths, or a value is zero or not finite.
    """
    if not seeds or len(seeds[0]) < FEWEST_SIZES:
        return None
    if any(not 0.0 < value < math.inf for values in seeds for value in values.values()):
        return None
    return interval([_slope(values) for values in seeds])


def interval(slopes: Sequence[float]) -> Exponent:
    """Mean and t interval, which takes the seeds as draws from a normal distribution; no interval of one seed."""
    mean = statistics.fmean(slopes)
    if len(slopes) == 1:
        return Exponent(mean, math.nan, math.nan)
    half = t_quantile(len(slopes) - 1) * statistics.stdev(slopes) / math.sqrt(len(slopes))
    return Exponent(mean, mean - half, mean + half)


def t_quantile(dof: int) -> float:
    """Up to where `COVERAGE` of Student's t lies (Abramowitz & Stegun 26.7.3 and 26.7.4), by bisection."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_inside(angle, dof) < COVERAGE else (low, angle)
    return math.sqrt(dof) * math.tan(low)


def _t_inside(angle: float, dof: int) -> float:
    """P(|t| < sqrt(dof) tan(angle))."""
    odd, square = dof % 2, math.cos(angle) ** 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, dof, 2):
        total += term
        term *= square * k / (k + 1)
    return 2.0 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def _slope(values: Mapping[int, float]) -> float:
    found: float = statistics.linear_regression(
        [math.log2(width) for width in values], [math.log2(value) for value in values.values()]
    ).slope
    return found


def largest(cells: Sequence[Cell]) -> Iterator[tuple[int, float]]:
    """(seed, the largest exponent of a change over the places) of cells of one variant, where all are known."""
    by_width = _by_width(cells)
    for seed in dict.fromkeys(cell.seed for cell in cells):
        mine = {width: [cell for cell in there if cell.seed == seed] for width, there in by_width.items()}
        found = [exponent(_of_seeds(name, mine, "change", -1)) for name in _everywhere(cells)]
        if known := [each.value for each in found if each is not None]:
            yield seed, max(known)
