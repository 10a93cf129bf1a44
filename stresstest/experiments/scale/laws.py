"""The laws of a path as they are stored: fit, prediction, and what each fit said of sizes that it did not see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stresstest.experiments.scale.law.bend import Bend, bend
from stresstest.experiments.scale.law.fit import NOMINAL, Law, Prediction, law, ratio
from stresstest.experiments.scale.law.leave_outs import LeaveOut, covers, leave_outs, reach
from stresstest.experiments.scale.law.observed import too_few
from stresstest.experiments.scale.law.recalibration import misses, width_factor
from stresstest.results.bracket import Bracket
from stresstest.results.records import MetricSummary
from stresstest.results.statistics import summarise

_BAND_POINTS = 12  # of the interval, in the picture


@dataclass(frozen=True)
class Along:
    """What one metric of one row is along the path: sizes that have cells, and the brackets of their seeds."""

    metric: str
    sizes: tuple[float, ...]
    cells: tuple[Mapping[int, Bracket], ...]

    @property
    def brackets(self) -> list[list[Bracket]]:
        """Without their seeds, which are not matched across sizes."""
        return [list(seeds.values()) for seeds in self.cells]

    @property
    def has_values_everywhere(self) -> bool:
        """Whether most seeds of each size have a value: where they train at no LR, the law has come to its end."""
        return all(2 * sum(each.low is not None for each in seeds.values()) > len(seeds) for seeds in self.cells)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The law of one metric of one row."""

    along: Along
    target: float
    law: Law | None
    why_not: str  # where there is none
    left_out: tuple[LeaveOut, ...]
    bend: Bend | None = None
    factor: float = 1.0  # by which the leave-outs of the run say that intervals must be wider

    @property
    def prediction(self) -> Prediction | None:
        """Of the target, where the law's own checks looked as far beyond their sizes."""
        if self.law is None or not self.within_reach:
            return None
        return self.law.predict(self.target).widened(self.factor)

    @property
    def within_reach(self) -> bool:
        """Whether the target may be named."""
        ahead = math.log2(self.target / self.along.sizes[-1])
        return self.along.has_values_everywhere and covers(self.left_out, ahead)

    def record(self) -> dict[str, Any]:
        """As a result stores it."""
        found: dict[str, Any] = {"metric": self.along.metric, "target": self.target, "reach": reach(self.left_out)}
        if self.law is None:
            return found | {"no_law": self.why_not}
        predicted = self.prediction
        found |= {
            "exponent": asdict(self.law.exponent),
            "size_scatter": asdict(self.law.size_scatter),
            "cell_scatter": asdict(self.law.cell_scatter),
            "predicted": None if predicted is None else _ends(predicted),
            "band": [[size, *_ends(self.law.predict(size).widened(self.factor)).values()] for size in self._band()],
            "width_factor": self.factor,
            "left_out": [_left_out(each) for each in self.left_out],
        }
        if self.bend is not None:
            found["bend"] = asdict(self.bend)
        return found

    def summaries(self) -> dict[str, MetricSummary]:
        """Exponent and prediction as metrics: seed by seed by least squares, their interval that of the law."""
        if self.law is None:
            return {}
        lines = _lines(self.along)
        name = f"{self.along.metric}_exponent"
        found = {name: _summary(name, {s: slope for s, (_, slope) in lines.items()}, self.law.exponent)}
        if (predicted := self.prediction) is not None:
            name = f"{self.along.metric}_at"
            at = {seed: 2.0 ** (level + slope * math.log2(self.target)) for seed, (level, slope) in lines.items()}
            found[name] = _summary(name, at, predicted)
        return found

    def _band(self) -> list[float]:
        first, last = self.along.sizes[0], self.target if self.within_reach else self.along.sizes[-1]
        return [first * (last / first) ** (i / (_BAND_POINTS - 1)) for i in range(_BAND_POINTS)]


def fitted(along: Along, target: float) -> Fitted:
    """The law of a metric, with its leave-outs."""
    if (why := too_few(along.brackets)) or (known := law(along.sizes, along.brackets)) is None:
        return Fitted(along, target, None, why, ())
    left_out, bent = leave_outs(along.sizes, along.brackets), bend(along.sizes, along.brackets)
    return Fitted(along, target, known, "", left_out, bent)


def recalibrated(fits: Sequence[Fitted]) -> list[Fitted]:
    """Laws of one metric with intervals as wide as their leave-outs ask for, never narrower than the laws say.

    That takes 20 misses. Those of a run alone: what its result says must not depend on what else is stored.
    """
    factor = width_factor([miss for each in fits for miss in misses(each.left_out)])
    return [replace(each, factor=factor) for each in fits]


def ratios_at(fits: Mapping[str, Fitted]) -> dict[str, dict[str, dict[str, float]]]:
    """By row and other row, how many times its LR is that of the other at the target, where both may be named."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in fits}
    for name, one in fits.items():
        for other, two in fits.items():
            if name != other and one.law and two.law and one.within_reach and two.within_reach:
                found[name][other] = asdict(ratio(one.law, two.law, one.target))
    return found


def _ends(predicted: Prediction) -> dict[str, float]:
    return {"low": predicted.low, "median": predicted.median, "high": predicted.high}


def _left_out(each: LeaveOut) -> dict[str, Any]:
    return {
        "size": each.size,
        "fitted": len(each.fitted),
        "octaves_ahead": each.octaves_ahead,
        **_ends(each.prediction),
        "seeds": [bracket.model_dump() for bracket in each.seeds],
        "inside": list(each.inside),
    }


def _lines(along: Along) -> dict[int, tuple[float, float]]:
    """By seed, (level, slope) of least squares through the centres of its brackets in log2-log2; three at least."""
    found = {}
    for seed in dict.fromkeys(seed for seeds in along.cells for seed in seeds):
        points = [
            (math.log2(size), 0.5 * (math.log2(bracket.low) + math.log2(bracket.high)))
            for size, seeds in zip(along.sizes, along.cells, strict=True)
            if (bracket := seeds.get(seed)) and bracket.low and bracket.high
        ]
        if len(points) > 2:
            found[seed] = _line(points)
    return found


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x = sum(p[0] for p in points) / len(points)
    y = sum(p[1] for p in points) / len(points)
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return y - slope * x, slope


def _summary(name: str, per_seed: Mapping[int, float], sure: Any) -> MetricSummary:
    found = summarise(name, {seed: Bracket.exactly(value) for seed, value in per_seed.items()})
    update = {"median": Bracket.exactly(sure.median), "low": sure.low, "high": sure.high, "coverage": NOMINAL}
    return found.model_copy(update=update)
