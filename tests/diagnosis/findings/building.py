"""Stretches of a log, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stresstest.diagnosis.course import Course, SpikeRows
from stresstest.diagnosis.findings import Known, findings_of_log, findings_of_segment
from stresstest.diagnosis.records import Finding, LogOutcome
from stresstest.logs.curve import Curve, FormatFacts, Role
from stresstest.logs.segments import Log, Segment, Start

Numbers = Sequence[float] | np.typing.NDArray[np.float64]


def curve(values: Numbers, every: float = 1.0, first: float | None = None) -> Curve:
    array = np.asarray(values, dtype=float)
    start = every if first is None else first
    return Curve(start + every * np.arange(len(array)), array, np.arange(len(array)))


def segment(
    losses: Numbers,
    every: float = 1.0,
    first: float | None = None,
    start: Start = "start",
    zeros: int = 0,
    dropped: int = 0,
    **others: Numbers,
) -> Segment:
    roles: Mapping[Role, Curve] = {role: curve(values, every, first) for role, values in others.items()}  # type: ignore[misc]
    return Segment(
        curve(losses, every, first),
        roles,
        start,
        every,
        row_kind="mean",
        first_row_is_partial=start == "resume",
        zeros_for_nan=zeros,
        dropped=dropped,
    )


def course(outcome: LogOutcome | None = "stable", onset: int | None = None, *spikes: SpikeRows) -> Course:
    return Course(outcome, onset_row=onset, spikes=spikes)


def said(part: Segment, of: Course | None = None, known: Known = Known()) -> dict[str, Finding]:
    """The findings of a stretch by kind; at most one of each in these tests."""
    found = findings_of_segment(part, of or course(), known)
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def log(*parts: Segment, facts: FormatFacts = FormatFacts(), columns: tuple[str, ...] = ("loss",)) -> Log:
    return Log("run.log", "CSV", "", "loss", "step", parts, facts, columns)


def said_of_log(whole: Log, *courses: Course) -> dict[str, Finding]:
    found = findings_of_log(whole, courses or tuple(course() for _ in whole.segments))
    return {finding.kind: finding for finding in found}


def falling(rows: int, start: float = 3.0, end: float = 1.0, noise: float = 0.02) -> np.typing.NDArray[np.float64]:
    """A loss that is learned, with noise of a fixed seed."""
    return end + (start - end) * np.exp(-4 * np.arange(rows) / rows) + np.random.default_rng(0).normal(0, noise, rows)
