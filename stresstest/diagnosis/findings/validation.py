"""Validation that turned while training went on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step, rows_until
from stresstest.diagnosis.findings.stretch import Stretch
from stresstest.logs.curve import Curve, Floats

_MIN_EVALUATIONS = 4
_SINCE = 3  # evaluations after the best, all of them above it
_SIGMAS = 3.0


def overfitting(stretch: Stretch) -> Iterator[Said]:
    """The best evaluation lies back, all after it are higher by more than their own jitter, and the train loss fell."""
    curve = stretch.curve("validation")
    if curve is None or stretch.course.outcome in ("nonfinite", "exploded", "relapsed"):
        return
    values, steps = _evaluations(stretch, curve)
    if len(values) < _MIN_EVALUATIONS:
        return
    best = int(np.argmin(values))
    after = values[best + 1 :]
    jitter = float(np.median(np.abs(np.diff(values, n=2))) / np.sqrt(6) * 1.4826) if len(values) > 3 else 0.0
    rise = float(after[-1] - values[best]) if len(after) else 0.0
    if len(after) < _SINCE or rise <= max(_SIGMAS * jitter, 0.02 * abs(values[best])):
        return
    if not np.median(after[-2:]) > np.median(after[:2]) or not _train_fell(stretch, float(steps[best])):
        return
    yield Said(
        f"Validation is best at step {at_step(steps[best])} ({values[best]:.4g}) and has risen to {after[-1]:.4g} "
        f"since, over {len(after)} evaluations, while the train loss fell: overfitting from there on.",
        float(steps[best]),
        float(steps[-1]),
        {"best_step": float(steps[best]), "best": float(values[best]), "last": float(after[-1]), "jitter": jitter},
    )


def _evaluations(stretch: Stretch, curve: Curve) -> tuple[Floats, Floats]:
    """Finite values and their steps, the last of each step; without those that stand before the first train loss."""
    keep = np.isfinite(curve.value) & (curve.row >= stretch.segment.loss.row[0])
    values, steps = curve.value[keep], curve.step[keep]
    last = np.append(np.diff(steps) > 0, True)[: len(steps)]
    return values[last], steps[last]


def _train_fell(stretch: Stretch, since: float) -> bool:
    rows = rows_until(stretch.segment.loss, since)
    then, rest = stretch.losses[max(0, rows - 5) : rows], stretch.losses[rows:]
    if not len(then) or not len(rest):
        return False
    return bool(np.median(rest[-5:]) < np.median(then))
