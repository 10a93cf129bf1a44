"""What a log says about why: coincidences in time, and called so."""

from __future__ import annotations

from stresstest.diagnosis.course import Course
from stresstest.diagnosis.records import Finding
from stresstest.logs.segments import Log, Segment


def findings_of_segment(segment: Segment, course: Course) -> tuple[Finding, ...]:
    """What moved before the break, and what else is to be known of this stretch."""
    return ()


def findings_of_log(log: Log, courses: tuple[Course, ...]) -> tuple[Finding, ...]:
    """What only the whole run shows: seams, schedules, validation."""
    return ()


def what_to_try(log: Log, courses: tuple[Course, ...]) -> tuple[str, ...]:
    """Next steps, as commands where there is one."""
    return ()
