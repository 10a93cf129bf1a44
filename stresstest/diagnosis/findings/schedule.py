"""The learning rate over a stretch: its warm-up, its peak, and what it did around a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.findings.base import rows_until
from stresstest.logs.curve import Curve, Floats

_SAME = 1e-3  # relative; float32 and four printed digits
_LEVEL = 0.1  # of the rows
_STEADY_ROWS = 5


@dataclass(frozen=True)
class Schedule:
    """What the learning rates of a stretch show. Steps are those of its rows; None: not seen.

    first_row: the first whose LR counts; a first row of 0, as Trainer logs it, trained nothing.
    warmup_end: the row where a rise from the start of the log ended, None where there was none or where it did not end.
    """

    peak: float
    peak_step: float
    is_constant: bool
    rises_throughout: bool
    warmup_end_step: float | None


def schedule_of(lr: Curve) -> Schedule:
    """Read a curve of finite learning rates, at least one."""
    values = lr.value
    peak = float(values.max())
    top = int(np.argmax(values >= peak * (1 - _SAME)))
    is_constant = bool(np.ptp(values[values > 0]) <= peak * _SAME) if (values > 0).any() else True
    rises = _is_warmup(values[: top + 1])
    is_at_end = top == len(values) - 1
    return Schedule(
        peak=peak,
        peak_step=float(lr.step[top]),
        is_constant=is_constant,
        rises_throughout=rises and is_at_end and top >= 2 and not is_constant,
        warmup_end_step=float(lr.step[top]) if rises and top > 0 and not is_at_end and not is_constant else None,
    )


def _is_warmup(values: Floats) -> bool:
    """Whether learning rates rise to their last one, in most rows and never back: one jump on a plateau is none."""
    if len(values) < 2 or not values[0] < 0.9 * values[-1]:
        return False
    changes = np.diff(values)
    return bool((changes >= -values[-1] * _SAME).all() and (changes > 0).mean() >= 0.5)


def phase_at(lr: Curve, schedule: Schedule, step: float) -> str:
    """In which part of its schedule the learning rate is at a step."""
    rows = rows_until(lr, step)
    if schedule.is_constant or not rows:
        return "constant"
    value = float(lr.value[rows - 1])
    rises = schedule.rises_throughout or schedule.warmup_end_step is not None
    if rises and lr.step[rows - 1] < schedule.peak_step:
        return "in warm-up"
    if value >= schedule.peak * 0.99:
        return "at its peak"
    return f"at {value / schedule.peak:.0%} of its peak of {schedule.peak:.3g}"


def jumps_of(lr: Curve, times: float) -> list[int]:
    """Rows whose learning rate is at least so many times that of the row before, outside a warm-up at the start."""
    before, after = lr.value[:-1], lr.value[1:]
    rows = np.flatnonzero((before > 0) & (after >= before * times)) + 1
    end = _warmup_rows(lr)
    return [int(row) for row in rows if row >= end or _rose_slowly(lr.value[:row], times)]


def _rose_slowly(values: Floats, times: float) -> bool:
    """Whether the last rows rose one by one, each by less than `times`: a larger rise after them is a jump."""
    last = values[-_STEADY_ROWS:]
    if len(last) < _STEADY_ROWS or not (last > 0).all():
        return False
    ratios = last[1:] / last[:-1]
    return bool((ratios > 1).all() and (ratios < times).all())


def _warmup_rows(lr: Curve) -> int:
    """How many rows a warm-up at the start takes, also one in stairs of an epoch each; 0 where there is none.

    A rise belongs to it until the learning rate has been level for a tenth of the log, unless it goes on rising after.
    """
    values = lr.value
    changes = np.diff(values)
    falls = np.flatnonzero(changes < -_SAME * values.max())
    rises = np.flatnonzero(changes[: falls[0] if len(falls) else None] > _SAME * values.max() * 0.01)
    ends = np.concatenate([[0], rises + 1])
    is_apart = len(rises) > 0 and rises[-1] - ends[-2] > max(1, len(values) * _LEVEL)
    end = int(ends[-2] if is_apart else ends[-1])
    return end + 1 if end else 0
