"""A log from its file to its diagnosis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.course import Course, SpikeRows, course_of
from stresstest.diagnosis.findings import Known, before_spike, findings_of_log, findings_of_segment, what_to_try
from stresstest.diagnosis.records import BROKEN, Diagnosis, SegmentDiagnosis, Spike
from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.logs.readers.table import READERS
from stresstest.logs.segments import Log, Segment, assemble

_WORST = ("nonfinite", "exploded", "relapsed", "rising", "failed-to-train", "flat", "spiked", "stable")


@dataclass(frozen=True)
class Choices:
    """What the user says of a log, where it is to be read otherwise than found.

    metric, step: names of the loss and the step. baseline: loss of the best constant predictor. vocab: how many classes
    or tokens it is guessed among. segment, rank: which one, from 0.
    """

    metric: str | None = None
    step: str | None = None
    baseline: float | None = None
    segment: int | None = None
    rank: int | None = None
    vocab: int | None = None


def diagnose_file(file: LogFile, choices: Choices = Choices()) -> Iterator[Diagnosis]:
    """Every run in a file; a `ConfigError` where no loss is found in it."""
    reader = next((reader for reader in READERS if reader.fits(file)), None)
    if reader is None:
        raise ConfigError(f"{file.shown}: not a log in a known format")
    for raw in reader.read(file):
        log = assemble(raw, file.shown, choices.metric, choices.step)
        if not log.segments:
            raise ConfigError(f"{file.shown}: no loss in it; columns: {', '.join(log.columns) or 'none'}")
        yield diagnose(log, choices)


def diagnose(log: Log, choices: Choices = Choices()) -> Diagnosis:
    """The diagnosis of a run that was read."""
    courses = tuple(course_of(segment, choices.baseline) for segment in log.segments)
    judged = [course.outcome for course in courses if course.outcome is not None]
    outcome = next((word for word in _WORST if word in judged), None)
    known = Known(log.facts, choices.baseline, choices.vocab)
    return Diagnosis(
        path=log.path,
        run=log.name,
        format=log.format,
        loss_key=log.loss_key,
        step_key=log.step_key,
        rows=sum(len(segment.loss) for segment in log.segments),
        columns=log.columns,
        notes=log.notes,
        verdict="undecided" if outcome is None else "broken" if outcome in BROKEN else "stable",
        outcome=outcome,
        segments=tuple(
            _segment(i, segment, course, known)
            for i, (segment, course) in enumerate(zip(log.segments, courses, strict=True))
        ),
        findings=findings_of_log(log, courses, known),
        try_next=what_to_try(log, courses, known),
    )


def _segment(index: int, segment: Segment, course: Course, known: Known) -> SegmentDiagnosis:
    steps, losses = segment.loss.step, segment.loss.value
    onset = course.onset_row
    return SegmentDiagnosis(
        index=index,
        start=segment.start,
        first_step=float(steps[0]),
        last_step=float(steps[-1]),
        rows=len(losses),
        steps_per_row=segment.steps_per_row,
        outcome=course.outcome,
        why_undecided=course.why_undecided,
        broke_between=None if onset is None else (float(steps[max(0, onset - 1)]), float(steps[onset])),
        first_loss=_number(losses[0]),
        best_loss=_number(course.best_loss),
        last_loss=_number(losses[-1]),
        spikes=tuple(_spike(segment, spike, course) for spike in course.spikes),
        findings=findings_of_segment(segment, course, known),
    )


def _spike(segment: Segment, spike: SpikeRows, course: Course) -> Spike:
    steps = segment.loss.step
    return Spike(
        first_step=float(steps[spike.first]),
        last_step=float(steps[spike.last]),
        rows=spike.last - spike.first + 1,
        steps=float(steps[spike.last] - steps[spike.first]) + segment.steps_per_row,
        level_before=spike.level_before,
        peak_loss=spike.peak,
        recovered=spike.recovered,
        before=before_spike(segment, spike, course),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
