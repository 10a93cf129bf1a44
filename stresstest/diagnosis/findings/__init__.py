"""What a log says beside its outcome: coincidences in time, and called so."""

from __future__ import annotations

from collections.abc import Iterable

from stresstest.diagnosis.course import Course, SpikeRows
from stresstest.diagnosis.findings.advice import steps_to_try
from stresstest.diagnosis.findings.base import in_unit
from stresstest.diagnosis.findings.before import Moment
from stresstest.diagnosis.findings.fp16 import no_step_taken
from stresstest.diagnosis.findings.stretch import Known, Run, Stretch
from stresstest.diagnosis.findings.table import RUN_KINDS, SEGMENT_KINDS, SPIKE_SIGNS
from stresstest.diagnosis.records import Finding
from stresstest.logs.segments import Log, Segment

__all__ = [
    "Known",
    "before_spike",
    "before_spikes",
    "findings_of_log",
    "findings_of_segment",
    "took_no_step",
    "what_to_try",
]


def findings_of_segment(segment: Segment, course: Course, known: Known = Known()) -> tuple[Finding, ...]:
    """What moved before the break, and what else is to be known of this stretch."""
    if not len(segment.loss):
        return ()
    stretch = Stretch(segment, course, known)
    return tuple(finding for kind in SEGMENT_KINDS for finding in kind.findings(stretch, known.unit))


def findings_of_log(log: Log, courses: tuple[Course, ...], known: Known = Known()) -> tuple[Finding, ...]:
    """What only the whole run shows: its seams, its plan."""
    run = _run(log, courses, known)
    return tuple(finding for kind in RUN_KINDS for finding in kind.findings(run, known.unit))


def before_spike(
    segment: Segment, spike: SpikeRows, course: Course = Course(None), known: Known = Known()
) -> tuple[str, ...]:
    """What moved just before a spike, or nothing; never why it came."""
    return _before(Stretch(segment, course, known), spike)


def took_no_step(segment: Segment, course: Course) -> bool:
    """Whether mixed precision skipped every step of a stretch."""
    return any(True for _ in no_step_taken(Stretch(segment, course)))


def before_spikes(
    segment: Segment, spikes: Iterable[SpikeRows], course: Course = Course(None), known: Known = Known()
) -> list[tuple[str, ...]]:
    """The same of many spikes, each in turn."""
    stretch = Stretch(segment, course, known)
    return [_before(stretch, spike) for spike in spikes]


def _before(stretch: Stretch, spike: SpikeRows) -> tuple[str, ...]:
    moment = Moment(stretch, spike.first, "spike")
    return tuple(in_unit(said.text, stretch.known.unit) for sign in SPIKE_SIGNS for said in sign(moment))


def what_to_try(log: Log, courses: tuple[Course, ...], known: Known = Known()) -> tuple[str, ...]:
    """At most three next steps, as commands where there is one."""
    return tuple(in_unit(text, known.unit) for text in steps_to_try(_run(log, courses, known)))


def _run(log: Log, courses: tuple[Course, ...], known: Known) -> Run:
    pairs = zip(log.segments, courses, strict=True)
    return Run(log, tuple(Stretch(segment, course, known) for segment, course in pairs if len(segment.loss)))
