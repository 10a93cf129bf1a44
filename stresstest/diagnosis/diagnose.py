"""A log from its file to its diagnosis."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from stresstest.diagnosis.course import Course, SpikeRows, courses_of
from stresstest.diagnosis.drawn import drawn_curves
from stresstest.diagnosis.findings import (
    Known,
    before_spikes,
    findings_of_log,
    findings_of_segment,
    took_no_step,
    what_to_try,
)
from stresstest.diagnosis.records import BROKEN, Diagnosis, LogOutcome, SegmentDiagnosis, Spike, Verdict
from stresstest.errors import ConfigError
from stresstest.logs.curve import Floats, RawLog
from stresstest.logs.files import LogFile, NoLossError
from stresstest.logs.joining import read_runs
from stresstest.logs.readers.table import READERS
from stresstest.logs.segments import Log, Segment, assemble
from stresstest.logs.sources import printable
from stresstest.registry import did_you_mean

_WORST: Sequence[LogOutcome] = (
    "nonfinite",
    "exploded",
    "relapsed",
    "rising",
    "failed-to-train",
    "flat",
    "spiked",
    "stable",
)
_SHOWN_LINE = 80  # characters of a file's first line, in a message
_SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Choices:
    """What the user says of a log, where it is to be read otherwise than found.

    metric, step: names of the loss and the step. baseline: loss of the best constant predictor; vocab: number of
    classes of which that predictor takes each as likely. segment, rank: which one, from 0.
    """

    metric: str | None = None
    step: str | None = None
    baseline: float | None = None
    segment: int | None = None
    rank: int | None = None
    vocab: int | None = None

    def __post_init__(self) -> None:
        if self.baseline is not None and self.vocab is not None:
            raise ConfigError("--baseline and --vocab both say the loss of the constant predictor; give one")
        if self.baseline is not None and not math.isfinite(self.baseline):
            raise ConfigError(f"--baseline {self.baseline} is not a loss")
        if self.vocab is not None and self.vocab < 2:
            raise ConfigError(f"--vocab {self.vocab} is not a number of classes; give 2 or more")


def diagnose_file(file: LogFile, choices: Choices = Choices()) -> Iterator[Diagnosis]:
    """Every run in a file; a `ConfigError` where it cannot be read, a `NoLossError` where no loss is found in it."""
    columns: list[str] = []
    found = False
    for raw in _runs(file):
        log = assemble(raw, raw.source or file.shown, choices.metric, choices.step, choices.rank)
        columns += log.columns
        if log.segments:
            found = True
            yield diagnose(log, choices)
    if not found:
        raise _no_loss(file, list(dict.fromkeys(columns)), choices)


def diagnose(log: Log, choices: Choices = Choices()) -> Diagnosis:
    """The diagnosis of a run that was read."""
    numbered = _chosen(log, choices)
    log = replace(log, segments=tuple(segment for _, segment in numbered))
    courses = _courses(log, choices)
    outcome = _worst(courses)
    known = Known(log.facts, choices.baseline, choices.vocab, log.step_unit)
    return Diagnosis(
        path=log.path,
        run=printable(log.name),
        format=log.format,
        loss_key=printable(log.loss_key),
        step_key=printable(log.step_key),
        loss_unit=log.unit,
        step_unit=log.step_unit,
        rows=sum(len(segment.loss) for segment in log.segments),
        columns=tuple(map(printable, log.columns)),
        notes=log.notes,
        verdict=_verdict(outcome, courses),
        outcome=outcome,
        segments=tuple(
            _segment(i, segment, course, known) for (i, segment), course in zip(numbered, courses, strict=True)
        ),
        findings=findings_of_log(log, courses, known),
        try_next=what_to_try(log, courses, known),
    )


def _constant_loss(log: Log, choices: Choices) -> float | None:
    """The loss of the best constant predictor, in the unit of the log, where it is known."""
    if choices.vocab is None:
        return choices.baseline
    return math.log2(choices.vocab) if log.unit == "bits" else math.log(choices.vocab)


def _courses(log: Log, choices: Choices) -> tuple[Course, ...]:
    """What became of each stretch; of a loss that is declined only this is said: that it is not finite."""
    judged = courses_of(log.segments, _constant_loss(log, choices))
    if why := log.declined.removeprefix("not judged: "):
        return tuple(course if course.outcome == "nonfinite" else Course(None, why) for course in judged)
    return tuple(map(_unless_otherwise_known, log.segments, judged))


def _unless_otherwise_known(segment: Segment, course: Course) -> Course:
    """What became of a stretch: failed to train where no step was taken, unknown where the loss went missing."""
    if course.outcome in BROKEN:
        return course
    if took_no_step(segment, course):
        return replace(course, outcome="failed-to-train", why_undecided="")
    if segment.missing_from is not None:
        return replace(course, outcome=None, why_undecided=_why_missing(segment))
    return course


def _why_missing(segment: Segment) -> str:
    assert segment.missing_from is not None
    return (
        f"the last loss is of step {segment.loss.step[-1]:,.10g}, and the rows of {segment.missing_rows:,} later steps "
        "hold none: it may have become NaN"
    )


def _runs(file: LogFile) -> Iterator[RawLog]:
    """The runs of a file by the first reader that it fits; whatever is wrong with the file is one line."""
    try:
        reader = next((reader for reader in READERS if reader.fits(file)), None)
        if reader is None:
            raise _unknown(file)
        yield from read_runs(file, reader)
    except ConfigError as error:
        said = str(error)
        raise type(error)(said if said.startswith(file.shown) else f"{file.shown}: {said}") from None
    except OSError as error:
        raise ConfigError(f"{file.shown}: cannot be read ({error.strerror or error})") from None
    except (RecursionError, MemoryError):
        raise ConfigError(f"{file.shown}: nested too deeply, or too large, to be read as a log") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error) as error:
        said = printable(" ".join(str(error).split()))[:_SHOWN_LINE]
        raise ConfigError(f"{file.shown}: damaged, or in another form than its start ({said})") from None


def _unknown(file: LogFile) -> NoLossError:
    forms = ", ".join(dict.fromkeys(reader.name for reader in READERS))
    if b"\0" in file.head:
        return NoLossError(f"{file.shown}: a binary file in no form that is read ({forms})")
    return NoLossError(f"{file.shown}: in no form that is read ({forms}); it begins {_first_line(file)}")


def _no_loss(file: LogFile, columns: Sequence[str], choices: Choices) -> ConfigError:
    """What was seen instead; a wrong --metric is told apart."""
    names = [printable(name) for name in columns]
    if choices.metric is not None and columns:
        near = did_you_mean(choices.metric, names[:_SHOWN_COLUMNS])
        return ConfigError(f"{file.shown}: no numbers named '{printable(choices.metric)}' (--metric){near}")
    if not columns:
        return NoLossError(f"{file.shown}: no loss found, and no other numbers; it begins {_first_line(file)}")
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    shown = ", ".join(names[:_SHOWN_COLUMNS])
    return NoLossError(f"{file.shown}: no loss found among {shown}{more}; name it with --metric")


def _first_line(file: LogFile) -> str:
    line = next((line.strip() for line in file.head_text.splitlines() if line.strip()), "")
    return f"'{printable(line[:_SHOWN_LINE])}{'...' * (len(line) > _SHOWN_LINE)}'"


def _chosen(log: Log, choices: Choices) -> list[tuple[int, Segment]]:
    numbered = list(enumerate(log.segments))
    if choices.segment is None:
        return numbered
    if not 0 <= choices.segment < len(numbered):
        known = "only segment 0" if len(numbered) == 1 else f"segments 0 to {len(numbered) - 1}"
        raise ConfigError(f"{log.path}: no segment {choices.segment} (--segment); it has {known}")
    return [numbered[choices.segment]]


def _worst(courses: Iterable[Course]) -> LogOutcome | None:
    known = [course.outcome for course in courses if course.outcome is not None]
    return next((word for word in _WORST if word in known), None)


def _verdict(outcome: LogOutcome | None, courses: Sequence[Course]) -> Verdict:
    """Broken if one stretch is; stable only where each was judged."""
    if outcome in BROKEN:
        return "broken"
    return "undecided" if any(course.outcome is None for course in courses) or not courses else "stable"


def _segment(index: int, segment: Segment, course: Course, known: Known) -> SegmentDiagnosis:
    steps, losses = segment.loss.step, segment.loss.value
    onset = course.onset_row
    spikes = tuple(_before_the_break(course))
    return SegmentDiagnosis(
        index=index,
        start=segment.start,
        first_step=float(steps[0]),
        last_step=float(steps[-1]),
        rows=len(losses),
        steps_per_row=segment.steps_per_row,
        row_kind=segment.row_kind,
        zeros_for_nan=segment.zeros_for_nan,
        outcome=course.outcome,
        why_undecided=course.why_undecided,
        broke_between=None if onset is None else (float(steps[max(0, onset - 1)]), float(steps[onset])),
        first_loss=float(losses[0]),
        best_loss=_lowest(losses),
        last_loss=float(losses[-1]),
        spikes=tuple(map(partial(_spike, segment), spikes, before_spikes(segment, spikes, course, known))),
        findings=findings_of_segment(segment, course, known),
        curves=drawn_curves(segment),
    )


def _before_the_break(course: Course) -> Iterator[SpikeRows]:
    """The spikes that were over before the break: later ones are part of it."""
    for spike in course.spikes:
        if course.outcome not in BROKEN or course.onset_row is None or spike.last < course.onset_row:
            yield spike


def _lowest(losses: Floats) -> float | None:
    """Of the finite rows, as the first and the last loss are rows."""
    finite = losses[np.isfinite(losses)]
    return float(finite.min()) if len(finite) else None


def _spike(segment: Segment, spike: SpikeRows, before: tuple[str, ...]) -> Spike:
    steps = segment.loss.step
    return Spike(
        first_step=float(steps[spike.first]),
        last_step=float(steps[spike.last]),
        rows=spike.last - spike.first + 1,
        steps=float(steps[spike.last] - steps[spike.first]) + segment.steps_per_row,
        level_before=spike.level_before,
        peak_loss=spike.peak,
        recovered=spike.recovered,
        before=before,
    )
