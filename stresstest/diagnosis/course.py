"""When has a run in a log broken? The rules on rows that may be means of many steps, over whole arrays.

They follow the rules on every step (`engine.divergence`): the level is a median and not a mean, what is given back is
compared with what was learned and not with the best loss, and a break lasts for some steps. What a log does not say is
taken from the log: the noise, from each tenth of it; the start, from its first row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresstest.diagnosis import tail
from stresstest.diagnosis.levels import Levels, levels_of
from stresstest.diagnosis.records import LogOutcome
from stresstest.diagnosis.spikes import SpikeRows as SpikeRows
from stresstest.diagnosis.spikes import counts, spikes_of
from stresstest.logs.curve import Floats
from stresstest.logs.segments import Segment

LEAST_ROWS = 5  # fewer have no level before a break, one after it, and noise
FEW_ROWS = 20  # fewer may hide a break in the noise that is taken from them
SIGN_CHANGES = 0.05  # of the rows: a loss that crosses zero that often has no best value to fall to
FAR_ABOVE = 10.0  # times the start: an explosion even where the rows are few
UNKNOWN_START = 1.0  # times the loss at a resume: what the run is taken to have learned before, if no one knows
FAR_BELOW = 1e3  # times the largest of its first rows, below zero: a loss with no lower bound, or an unbounded model
FIRST_ROWS = 20
PROGRESS_SHARE = 0.05  # of the baseline: below it by less is not learning, as in the rules on every step


@dataclass(frozen=True)
class Course:
    """What became of a segment. Rows are indices of its loss curve; outcome None: it cannot be judged, and why."""

    outcome: LogOutcome | None
    why_undecided: str = ""
    onset_row: int | None = None  # first bad row
    best_loss: float = float("nan")
    last_level: float = float("nan")
    noise: float = float("nan")  # standard deviation of a row about its level, at the end
    spikes: tuple[SpikeRows, ...] = ()


def courses_of(segments: Sequence[Segment], baseline: float | None = None) -> tuple[Course, ...]:
    """Judge the segments of a run, in order: after a resume the start is that of the run that goes on."""
    courses: list[Course] = []
    start: float | None = None
    best = math.inf
    for segment in segments:
        resumed = segment.start == "resume"
        if not resumed:
            finite = segment.loss.value[np.isfinite(segment.loss.value)]
            start, best = (float(finite[0]) if len(finite) else None), math.inf
        course = course_of(segment, baseline, start if resumed else None, best)
        courses.append(course)
        best = float(np.fmin(best, course.best_loss))
    return tuple(courses)


def course_of(
    segment: Segment, baseline: float | None = None, start_loss: float | None = None, best_loss: float = math.inf
) -> Course:
    """Judge one segment.

    baseline: the loss of the best constant predictor, where it is known. start_loss: the loss at the beginning of the
    run, where the segment goes on with a run that began before it; best_loss: its lowest level before the segment.
    """
    loss = segment.loss.value
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        return _nonfinite(segment, int(bad[0]), start_loss)
    if why := _why_undecided(loss):
        return Course(None, why, best_loss=float(loss.min()) if len(loss) else float("nan"))
    if len(loss) < LEAST_ROWS:
        return _of_few(loss)
    levels = _levels(segment, loss, start_loss)
    return _judged(levels, replace(levels, best=np.minimum(levels.best, best_loss)), segment, baseline)


def _levels(segment: Segment, loss: Floats, start_loss: float | None) -> Levels:
    if start_loss is None and segment.start == "resume":
        start_loss = float(loss[0] + UNKNOWN_START * abs(loss[0]))
    return levels_of(loss, _steps_per_row(segment), segment.row_kind, start_loss)


def _steps_per_row(segment: Segment) -> float:
    return math.inf if segment.epoch_rows else segment.steps_per_row


def _nonfinite(segment: Segment, first: int, start_loss: float | None) -> Course:
    before = segment.loss.value[:first]
    if first < LEAST_ROWS:
        return Course("nonfinite", onset_row=first, best_loss=float(before.min()) if first else float("nan"))
    levels = _levels(segment, before, start_loss)
    return _course("nonfinite", levels, first, spikes_of(levels))


def _why_undecided(loss: Floats) -> str:
    if len(loss) < 2:
        return f"too few rows: {len(loss)}"
    if np.ptp(loss) == 0:
        return f"all {len(loss)} rows are equal"
    if loss.min() < -FAR_BELOW * np.abs(loss[:FIRST_ROWS]).max():
        return f"the loss falls without bound, to {loss.min():.3g}: it is measured from no best value"
    signs = np.sign(loss)
    changes = int((signs[1:] * signs[:-1] < 0).sum())
    if changes >= max(3, SIGN_CHANGES * len(loss)):
        return f"the loss changes its sign {changes} times: it is measured from no fixed best value"
    return ""


def _of_few(loss: Floats) -> Course:
    best, last = float(loss.min()), float(loss[-1])
    if last > FAR_ABOVE * abs(loss[0]):
        first = int(np.flatnonzero(loss <= FAR_ABOVE * abs(loss[0]))[-1]) + 1
        return Course("exploded", onset_row=first, best_loss=best, last_level=last)
    return Course(None, f"too few rows: {len(loss)}, of at least {LEAST_ROWS}", best_loss=best, last_level=last)


def _judged(levels: Levels, of_run: Levels, segment: Segment, baseline: float | None) -> Course:
    """of_run: the same with the best level of the whole run, as what is lost at a resume and does not come back."""
    spikes = spikes_of(levels)
    if (row := tail.above_start(levels)) is not None:
        return _course("exploded", levels, row, spikes)
    goes_on = segment.start == "resume"  # what was learned before it is not in it
    flat = not goes_on and tail.flat(levels)
    nothing_to_lose = flat and tail.within_noise(levels)
    if not nothing_to_lose and (row := tail.gave_back(of_run)) is not None:
        return _course("relapsed", levels, row, spikes)
    if not nothing_to_lose and (rise := tail.rising(levels)) is not None:
        return _course("relapsed" if rise.share > tail.RELAPSE_SHARE else "rising", levels, rise.first, spikes)
    if baseline is not None and levels.lowest > baseline - PROGRESS_SHARE * abs(baseline):
        return _course("failed-to-train", levels, None, spikes)
    if not nothing_to_lose and any(counts(spike, levels, _steps_per_row(segment)) for spike in spikes):
        return _course("spiked", levels, None, spikes)
    if len(levels.loss) < FEW_ROWS and tail.may_have_risen(levels):
        why = f"too few rows: {len(levels.loss)} do not tell a rise from noise"
        return _course(None, levels, None, spikes, why)
    return _course("flat" if flat else "stable", levels, None, spikes)


def _course(
    outcome: LogOutcome | None, levels: Levels, onset: int | None, spikes: tuple[SpikeRows, ...], why: str = ""
) -> Course:
    return Course(
        outcome,
        why,
        onset_row=onset,
        best_loss=levels.lowest,
        last_level=float(levels.level[-1]),
        noise=float(levels.noise[-1]),
        spikes=spikes,
    )
