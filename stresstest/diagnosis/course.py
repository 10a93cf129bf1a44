"""When has a run in a log broken? The rules on rows that may be means of many steps, over whole arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.records import LogOutcome
from stresstest.logs.segments import Segment


@dataclass(frozen=True)
class SpikeRows:
    """A rise in rows of the segment's loss, `last` included."""

    first: int
    last: int
    level_before: float
    peak: float
    recovered: bool


@dataclass(frozen=True)
class Course:
    """What became of a segment. Rows are indices of its loss curve; outcome None: it cannot be judged, and why."""

    outcome: LogOutcome | None
    why_undecided: str = ""
    onset_row: int | None = None  # first bad row
    best_loss: float = float("nan")
    last_level: float = float("nan")
    noise: float = float("nan")  # standard deviation of a row about its level
    spikes: tuple[SpikeRows, ...] = ()


def course_of(segment: Segment, baseline: float | None = None) -> Course:
    """Judge one segment. `baseline` is the loss of the best constant predictor, where it is known."""
    bad = np.flatnonzero(~np.isfinite(segment.loss.value))
    if len(bad):
        return Course("nonfinite", onset_row=int(bad[0]))
    return Course("stable", best_loss=float(segment.loss.value.min()), last_level=float(segment.loss.value[-1]))
