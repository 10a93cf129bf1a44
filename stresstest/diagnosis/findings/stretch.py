"""What the functions look at: a segment with its course and its curves by role, and a log of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stresstest.diagnosis.course import Course
from stresstest.diagnosis.findings.schedule import Schedule, jumps_of, schedule_of
from stresstest.logs.curve import Curve, Floats, FormatFacts, Role
from stresstest.logs.segments import Log, Segment


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
class Stretch:
    """One segment with its course, and its curves by role; `None` where a curve is missing."""

    segment: Segment
    course: Course
    known: Known = Known()
    _curves: dict[Role, Curve | None] = field(default_factory=dict, repr=False, compare=False)

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
        return None if curve is None else _some(curve, np.isfinite(curve.value) & (curve.value >= 0))

    @cached_property
    def schedule(self) -> Schedule:
        """What the learning rates show; only where there are some."""
        assert self.lr is not None
        return schedule_of(self.lr)

    @cached_property
    def doublings(self) -> list[int]:
        """Rows in which the learning rate at least doubled, outside a warm-up."""
        return [] if self.lr is None else jumps_of(self.lr, 2.0)

    @cached_property
    def grad_norm(self) -> Curve | None:
        """All rows of the gradient norm, non-finite ones included."""
        return self.curve("grad_norm")

    def curve(self, role: Role) -> Curve | None:
        """The curve of a role, where it has rows with a step."""
        if role not in self._curves:
            curve = self.segment.others.get(role)
            self._curves[role] = None if curve is None else _some(curve, np.isfinite(curve.step))
        return self._curves[role]

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


def _some(curve: Curve, keep: NDArray[np.bool_]) -> Curve | None:
    """The rows to keep; None where there are none."""
    if not keep.any():
        return None
    return curve if keep.all() else Curve(curve.step[keep], curve.value[keep], curve.row[keep])
