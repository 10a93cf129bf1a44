"""What a law says, and how far it may be trusted, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.experiments.scale.naming import label, size_of
from stresstest.reports.numbers import lr
from stresstest.results.records import SummaryRow

Law = Mapping[str, Any]  # a `SizeLawRecord`

_LARGE_BEND = 1.5  # in slope: to rule out larger ones says nothing of a law
WIDE = 2.0  # octaves of a prediction interval: more, and it is of little use
_NEARLY = 0.05  # octaves: sizes are whole numbers
_TOO_FEW = 0.8  # share of leave-outs inside an interval of 90 %: less, and the law does not hold


@dataclass(frozen=True)
class Checks:
    """How often what was left out of a fit lay where the fit said."""

    inside: int
    counted: int
    octaves_ahead: float  # at most

    @property
    def failed(self) -> bool:
        """Whether too few did."""
        return self.inside < _TOO_FEW * self.counted

    @property
    def words(self) -> str:
        """`inside in 27 of 30 when its largest sizes were left out, up to 2 octaves ahead`."""
        if not self.counted:
            return "not checked: no size could be left out, which takes four with an answer"
        ahead = f"up to {octaves(self.octaves_ahead)} ahead"
        return f"inside in {self.inside} of {self.counted} when the largest sizes were left out, {ahead}"


def checks(laws: Iterable[Law]) -> Checks:
    """The leave-outs of some laws together: those that looked at most as far ahead as their target lies."""
    return together([_check(law) for law in laws])


def _check(law: Law) -> Checks:
    left_out = counted(law)
    known = [inside for each in left_out for inside in each["inside"] if inside is not None]
    return Checks(sum(known), len(known), max((each["octaves_ahead"] for each in left_out), default=0.0))


def together(found: Sequence[Checks]) -> Checks:
    """The checks of several runs."""
    inside, known = sum(each.inside for each in found), sum(each.counted for each in found)
    return Checks(inside, known, max((each.octaves_ahead for each in found), default=0.0))


def counted(law: Law) -> list[Mapping[str, Any]]:
    """The leave-outs that count: what looks farther ahead than the target lies has an easier, wider interval."""
    found = list(law.get("left_out", ()))
    ahead = math.log2(law["target"] / max(each["size"] for each in found)) if found else 0.0
    return [each for each in found if each["octaves_ahead"] <= ahead + _NEARLY]


def octaves(value: float) -> str:
    """`1 octave`, `1.5 octaves`."""
    text = f"{value:.2g}"
    return f"{text} octave{'s' * (text != '1')}"


def between(found: Mapping[str, float]) -> str:
    """`0.0071..0.018`: the ends of an interval of learning rates."""
    return f"{lr(found['low'])}..{lr(found['high'])}"


def exponent(found: Mapping[str, float]) -> str:
    """`-0.98 (-1.20..-0.76)`."""
    return f"{found['median']:.2f} ({found['low']:.2f}..{found['high']:.2f})"


def goes(law: Law, axis: str) -> str:
    """`falls as width^-0.98 (-1.20..-0.76)`."""
    return f"{direction(law)} {axis}^{exponent(law['exponent'])}"


def direction(law: Law) -> str:
    """How a learning rate goes with the size, as far as the exponent's interval tells."""
    if law["exponent"]["high"] < 0.0:
        return "falls as"
    return "rises as" if law["exponent"]["low"] > 0.0 else "no trend seen,"


def width(found: Mapping[str, float]) -> float:
    """Octaves between the ends of an interval."""
    return math.log2(found["high"] / found["low"])


def unnamed(law: Law, rows: Sequence[SummaryRow], axis: str) -> str:
    """Why a target may not be named, of the rows of the law."""
    if never := [f"{size_of(row, axis):.0f}" for row in rows if trains_at_none(row)]:
        return f"it trains at no LR at {label(axis)} {', '.join(never)}"
    if without := [f"{size_of(row, axis):.0f}" for row in rows if law["metric"] not in row.metrics]:
        return f"there is no {law['metric']} at {label(axis)} {', '.join(without)}"
    ahead = octaves(math.log2(law["target"] / max(size_of(row, axis) for row in rows)))
    looked = f"looked {octaves(law['reach'])} ahead" if law["reach"] else "could not be made"
    return f"it lies {ahead} beyond the largest size, and the leave-outs {looked}"


def trains_at_none(row: SummaryRow) -> bool:
    """Whether most seeds of a size train at no LR."""
    return "max_stable_lr" in row.metrics and row.metrics["max_stable_lr"].median.low is None


def bent(law: Law) -> bool:
    """Whether the slope changes along the path."""
    return bool(law.get("bend") and law["bend"]["seen"])


def bend_words(law: Law) -> str:
    """Whether the slope changes, and what change would have been seen; nothing where nobody looked."""
    bend = law.get("bend")
    if not bend:
        return ""
    if not bend["seen"]:
        least = f"{bend['smallest']:.1f}"
        if bend["smallest"] > _LARGE_BEND:
            return f"these sizes could not show a bend of less than {least}"
        return f"no bend seen, and one of {least} or more would have shown"
    return f"bends: the slope changes by {exponent(bend['change'])}; do not extrapolate"
