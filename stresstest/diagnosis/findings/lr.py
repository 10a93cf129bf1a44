"""Learning-rate schedules that look otherwise than they were meant."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step, is_flat
from stresstest.diagnosis.findings.schedule import jumps_of
from stresstest.diagnosis.findings.stretch import Stretch
from stresstest.logs.curve import Curve, Floats

_MIN_ROWS = 5
_JUMP = 8.0  # a tenfold step of a schedule that decays meanwhile is less
_RESTART_FROM = 0.5  # of the peak, at most, before a restart
_RESTART_TO = 0.8  # of the peak, at least, after it
_DEAD_PART = 0.2  # of the rows
_DEAD_LR = 1e-6  # of the peak


def schedule_line(stretch: Stretch) -> Iterator[Said]:
    """What the learning rate did, in a line."""
    lr = stretch.lr
    if lr is None or len(lr) < 2 or not (lr.value > 0).any():
        return
    schedule = stretch.schedule
    last, peak = float(lr.value[-1]), schedule.peak
    if schedule.is_constant:
        text = f"LR constant at {peak:.3g}"
    elif schedule.rises_throughout:
        text = f"LR rises to {peak:.3g} at the last row"
    else:
        start = "" if schedule.warmup_end_step is None else f" after a warm-up from {_first(lr):.3g}"
        text = f"LR peak {peak:.3g} at step {at_step(schedule.peak_step)}{start}, last {last:.3g}"
    yield Said(
        text + ".",
        float(lr.step[0]),
        float(lr.step[-1]),
        {"peak": peak, "peak_step": schedule.peak_step, "last": last, "warmup_end": schedule.warmup_end_step},
    )


def always_zero(stretch: Stretch) -> Iterator[Said]:
    """An LR of 0 in every row, under a loss that does not move."""
    lr = stretch.lr
    if lr is None or len(lr) < _MIN_ROWS or (lr.value > 0).any() or not is_flat(stretch.losses[stretch.judged]):
        return
    yield Said(
        f"The LR is 0 in all {len(lr):,} rows and the loss does not move: nothing was trained.",
        float(lr.step[0]),
        float(lr.step[-1]),
        {"rows": float(len(lr))},
    )


def zero_at_first(stretch: Stretch) -> Iterator[Said]:
    """An LR of 0 in the first row alone."""
    lr = stretch.lr
    if lr is None or len(lr) < _MIN_ROWS or lr.value[0] != 0 or not (lr.value[1:] > 0).all():
        return
    yield Said(
        f"The LR is 0 in the first row (step {at_step(lr.step[0])}), as it is where a warm-up begins at 0: normal.",
        float(lr.step[0]),
        float(lr.step[0]),
    )


def jump(stretch: Stretch) -> Iterator[Said]:
    """A rise of eight times or more from one row to the next."""
    lr = stretch.lr
    if lr is None:
        return
    restarted = {high for _, high in restarts_of(lr)}
    for row in jumps_of(lr, _JUMP):
        if row in restarted:
            continue
        before, after = float(lr.value[row - 1]), float(lr.value[row])
        yield Said(
            f"The LR jumped from {before:.3g} to {after:.3g} ({after / before:.3g} times) at step "
            f"{at_step(lr.step[row])}.",
            float(lr.step[row - 1]),
            float(lr.step[row]),
            {"lr_before": before, "lr": after},
        )


def restart(stretch: Stretch) -> Iterator[Said]:
    """A decayed LR that came back to its peak once; a schedule that repeats is meant so."""
    lr = stretch.lr
    if lr is None or len(lr) < 2 * _MIN_ROWS:
        return
    restarts = restarts_of(lr) or _warmed_up_again(lr)
    if len(restarts) != 1:
        return
    low, high = restarts[0]
    yield Said(
        f"The LR had fallen to {lr.value[low]:.3g} by step {at_step(lr.step[low])} and had risen to "
        f"{lr.value[high]:.3g} by step {at_step(lr.step[high])}: its schedule began again.",
        float(lr.step[low]),
        float(lr.step[high]),
        {"lr_before": float(lr.value[low]), "lr": float(lr.value[high])},
    )


def restarts_of(lr: Curve) -> list[tuple[int, int]]:
    """Where a decayed learning rate came back: the row of its low and the first row near the peak again."""
    peak = float(lr.value.max())
    high = np.flatnonzero(lr.value >= _RESTART_TO * peak)
    gaps = np.flatnonzero(np.diff(high) > 1)
    lows = [(int(high[gap]) + int(np.argmin(lr.value[high[gap] : high[gap + 1]])), int(high[gap + 1])) for gap in gaps]
    return [(low, row) for low, row in lows if lr.value[low] <= _RESTART_FROM * peak]


def _warmed_up_again(lr: Curve) -> list[tuple[int, int]]:
    """Where the learning rate fell to half or less in a row and rose in each of the next ones: low row and last."""
    values = lr.value
    falls = np.flatnonzero((values[1:] <= _RESTART_FROM * values[:-1]) & (values[:-1] > 0)) + 1
    ends = [(int(low), int(low) + _MIN_ROWS) for low in falls if low + _MIN_ROWS < len(values)]
    return [(low, end) for low, end in ends if (np.diff(values[low : end + 1]) > 0).all()]


def warmup_never_ends(stretch: Stretch) -> Iterator[Said]:
    """An LR that rises to the last row of a run that has done all its planned steps."""
    planned = stretch.known.facts.planned_steps
    if planned is not None and stretch.steps[-1] >= 0.99 * planned:
        yield from _rising_to_the_end(stretch, ": its warm-up is longer than the run")


def lr_still_rising(stretch: Stretch) -> Iterator[Said]:
    """The same where more steps were planned, or none are known."""
    planned = stretch.known.facts.planned_steps
    if planned is None or stretch.steps[-1] < 0.99 * planned:
        rest = "" if planned is None else f", {at_step(planned)} steps were planned"
        yield from _rising_to_the_end(stretch, f": its warm-up does not end in this log{rest}")


def decayed_early(stretch: Stretch) -> Iterator[Said]:
    """An LR of 0 over the last fifth of the log or more, told from one that was rounded to 0."""
    lr = stretch.lr
    if lr is None or not (lr.value > 0).any():
        return
    peak = float(lr.value.max())
    alive = int(np.flatnonzero(lr.value > _DEAD_LR * peak)[-1])
    dead = len(lr) - 1 - alive
    if dead < _MIN_ROWS or dead < _DEAD_PART * len(lr) or _finest_place(lr.value[lr.value > 0]) > 0.02 * peak:
        return
    first = float(lr.step[alive + 1])
    yield Said(
        f"The LR is {lr.value[-1]:.3g} from step {at_step(first)} to the end, {dead / len(lr):.0%} of the log: nothing "
        "was learned there.",
        first,
        float(lr.step[-1]),
        {"rows": float(dead), "part": dead / len(lr)},
    )


def _rising_to_the_end(stretch: Stretch, what: str) -> Iterator[Said]:
    lr = stretch.lr
    if lr is None or len(lr) < _MIN_ROWS or not stretch.schedule.rises_throughout:
        return
    if not lr.value[-1] > lr.value[-_MIN_ROWS] * 1.001:
        return
    yield Said(
        f"The LR still rises at the last row (step {at_step(lr.step[-1])}: {lr.value[-1]:.3g}){what}.",
        float(lr.step[0]),
        float(lr.step[-1]),
        {"lr": float(lr.value[-1])},
    )


def _first(lr: Curve) -> float:
    return float(lr.value[0])


def _finest_place(values: Floats) -> float:
    """The unit of the last decimal place in which the values were written."""
    places = [f"{value:.9e}".split("e") for value in values[:: max(1, len(values) // 50)]]
    return float(min(10.0 ** (int(power) - len(digits.rstrip("0").partition(".")[2])) for digits, power in places))
