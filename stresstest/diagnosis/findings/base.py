"""What a finding is made of: a kind in the table, what a function says, and the stretch that it looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from stresstest.diagnosis.records import Finding, Severity
from stresstest.logs.curve import Curve, Floats

Subject = TypeVar("Subject")
_STEP_NUMBER = re.compile(r"\bstep(s)?(?= \d)")


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
    """A sentence about steps, in the unit that the log counts, epochs for example."""
    if unit not in ("epochs", "rows", "rounds"):
        return text
    return _STEP_NUMBER.sub(lambda found: unit if found[1] else unit.removesuffix("s"), text)


def _plain(value: float | str | None) -> float | str | None:
    return float(value) if isinstance(value, (int, float, np.number)) else value
