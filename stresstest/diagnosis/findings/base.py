"""What a finding is made of: a kind in the table, what a function says, and the stretch that it looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from stresstest.diagnosis.course import Course
from stresstest.diagnosis.records import Finding, Severity
from stresstest.logs.curve import Curve, Floats, FormatFacts, Role
from stresstest.logs.segments import Log, Segment

Subject = TypeVar("Subject")
_STEP_NUMBER = re.compile(r"\bstep(s)?(?= \d)")


@dataclass(frozen=True)
class Known:
    """What is known beside the curves: the format's facts, the baseline's loss, and the number of classes or tokens.

    unit: what the log's steps count.
    """

    facts: FormatFacts = FormatFacts()
    baseline: float | None = None
    vocab: int | None = None
    unit: str = "steps"


@dataclass(frozen=True)
class Said:
    """What a function found: one or two sentences, the steps that they speak of, and the numbers they rest on."""

    text: str
    first_step: float | None = None
    last_step: float | None = None
    evidence: Mapping[str, float | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind(Generic[Subject]):
    """A kind of finding: when it is said, where that comes from, and the function that says it."""

    name: str
    severity: Severity
    when: str
    source: str
    find: Callable[[Subject], Iterator[Said]]

    def findings(self, subject: Subject, unit: str = "steps") -> Iterator[Finding]:
        """What it says of a stretch or a run; nothing, as a rule. unit: what a step counts."""
        for said in self.find(subject):
            yield Finding(
                kind=self.name,
                severity=self.severity,
                text=in_unit(said.text, unit),
                first_step=said.first_step,
                last_step=said.last_step,
                evidence={name: _plain(value) for name, value in said.evidence.items()},
            )


@dataclass(frozen=True)
class Stretch:
    """One segment with its course, and its curves by role; `None` where a curve is missing."""

    segment: Segment
    course: Course
    known: Known = Known()

    @cached_property
    def steps(self) -> Floats:
        """[rows]"""
        return self.segment.loss.step

    @cached_property
    def losses(self) -> Floats:
        """[rows], non-finite ones included."""
        return self.segment.loss.value

    @cached_property
    def lr(self) -> Curve | None:
        """Finite rows of the learning rate."""
        curve = self.curve("lr")
        return None if curve is None else _only(curve, np.isfinite(curve.value) & (curve.value >= 0))

    @cached_property
    def grad_norm(self) -> Curve | None:
        """All rows of the gradient norm, non-finite ones included."""
        return self.curve("grad_norm")

    def curve(self, role: Role) -> Curve | None:
        """The curve of a role, where it has rows with a step."""
        curve = self.segment.others.get(role)
        if curve is None:
            return None
        curve = _only(curve, np.isfinite(curve.step))
        return curve if len(curve) else None

    @cached_property
    def judged(self) -> slice:
        """Rows of the loss without a first one that is the mean of fewer steps."""
        return slice(1 if self.segment.first_row_is_partial and len(self.losses) > 1 else 0, None)

    @cached_property
    def row_steps(self) -> float:
        """How many steps a row stands for."""
        return max(1.0, self.segment.steps_per_row)


@dataclass(frozen=True)
class Run:
    """A whole log: its stretches in order."""

    log: Log
    stretches: tuple[Stretch, ...]


def rows_until(curve: Curve, step: float) -> int:
    """How many rows of a curve lie at or before a step."""
    return int(np.searchsorted(curve.step, step, side="right"))


def value_at(curve: Curve | None, step: float) -> float | None:
    """A curve's last value at or before a step."""
    if curve is None:
        return None
    rows = rows_until(curve, step)
    return float(curve.value[rows - 1]) if rows else None


def first_and_last_level(values: Floats, part: float = 1 / 3) -> tuple[float, float, float]:
    """Means of the first and the last part, and the standard error of their difference by successive differences."""
    count = max(1, int(len(values) * part))
    noise = float(np.std(np.diff(values)) / np.sqrt(2)) if len(values) > 2 else 0.0
    return float(values[:count].mean()), float(values[-count:].mean()), noise * float(np.sqrt(2 / count))


def is_flat(values: Floats) -> bool:
    """Whether finite values have no trend: their thirds differ by less than 3 standard errors or by 0.5 %."""
    finite = values[np.isfinite(values)]
    if len(finite) < 5:
        return False
    first, last, error = first_and_last_level(finite)
    return abs(first - last) <= max(3 * error, 0.005 * abs(first))


def shown(value: float) -> str:
    """A number in four digits, NaN and infinity in words of their own."""
    return "NaN" if np.isnan(value) else f"{value:.4g}"


def at_step(step: float) -> str:
    """A step as people write it."""
    return f"{step:,.0f}" if float(step).is_integer() else f"{step:g}"


def in_unit(text: str, unit: str) -> str:
    """A sentence about steps, about what a log counts instead: the number of an epoch is no step."""
    if unit not in ("epochs", "rows", "rounds"):
        return text
    return _STEP_NUMBER.sub(lambda found: unit if found[1] else unit.removesuffix("s"), text)


def _only(curve: Curve, keep: NDArray[np.bool_]) -> Curve:
    return curve if keep.all() else Curve(curve.step[keep], curve.value[keep], curve.row[keep])


def _plain(value: float | str | None) -> float | str | None:
    return float(value) if isinstance(value, (int, float, np.number)) else value
