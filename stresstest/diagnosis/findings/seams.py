"""What changed where a run was resumed. The first row after is the mean of fewer steps and is not judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step
from stresstest.diagnosis.findings.stretch import Run, Stretch
from stresstest.logs.curve import Curve, Floats

_ROWS = 10  # on each side
_MIN_ROWS = 4
_SIGMAS = 6.0
_PART = 0.05  # of the level
_NORM_TIMES = 3.0
_LR_UP, _LR_DOWN = 1.2, 2.0  # a schedule seldom rises but for a warm-up, which is seen in the rows before


@dataclass(frozen=True)
class _Seam:
    before: Stretch
    after: Stretch

    @property
    def step(self) -> float:
        return float(self.after.steps[0])


def loss_jump(run: Run) -> Iterator[Said]:
    """The loss rose at the seam."""
    yield from (said for seam in _seams(run) if (said := _loss_change(seam, +1)) is not None)


def loss_drop(run: Run) -> Iterator[Said]:
    """The loss fell at the seam."""
    yield from (said for seam in _seams(run) if (said := _loss_change(seam, -1)) is not None)


def lr_changed(run: Run) -> Iterator[Said]:
    """The LR rose by a fifth or fell to half."""
    for seam in _seams(run):
        old, new = _rows_before(seam, seam.before.lr), _rows_after(seam.after.lr, skip=0)
        if not len(old) or len(new) < 2 or not (old[-1] > 0 and new[1] > 0):
            continue
        usual = float(np.abs(np.diff(np.log(old[old > 0]))).max()) if len(old) > 1 else 0.0
        change = float(np.log(new[1] / old[-1]))
        if abs(change) >= max(np.log(_LR_UP if change > 0 else _LR_DOWN), 3 * usual):
            yield Said(
                f"Resumed at step {at_step(seam.step)}: the LR went from {old[-1]:.3g} to {new[1]:.3g}; its schedule "
                "was not carried over, or was changed.",
                float(seam.before.steps[-1]),
                seam.step,
                {"lr_before": float(old[-1]), "lr": float(new[1])},
            )


def grad_norm_jump(run: Run) -> Iterator[Said]:
    """The gradient norm is at least three times that of before, over rows enough."""
    for seam in _seams(run):
        old, new = _rows_before(seam, seam.before.grad_norm), _rows_after(seam.after.grad_norm, skip=1)
        old, new = old[np.isfinite(old)], new[np.isfinite(new)]
        if min(len(old), len(new)) < _MIN_ROWS:
            continue
        level, now = float(np.median(old)), float(np.median(new))
        if level > 0 and now >= _NORM_TIMES * level and np.min(new) > np.max(old):
            yield Said(
                f"Resumed at step {at_step(seam.step)}: the gradient norm went from {level:.3g} to {now:.3g} (medians "
                f"of {len(old)} and {len(new)} rows), {now / level:.2g} times.",
                float(seam.before.steps[-1]),
                seam.step,
                {"before": level, "after": now},
            )


def step_gap(run: Run) -> Iterator[Said]:
    """Steps are missing at the seam."""
    for seam in _seams(run):
        last = float(seam.before.steps[-1])
        missing = seam.step - last - max(seam.before.row_steps, seam.after.row_steps)
        if missing > seam.before.row_steps:
            yield Said(
                f"Resumed at step {at_step(seam.step)}, and the row before is of step {at_step(last)}: the steps "
                "between are in no row.",
                last,
                seam.step,
                {"steps": missing},
            )


def overlap(run: Run) -> Iterator[Said]:
    """Steps were logged on both sides."""
    for seam in _seams(run):
        dropped = seam.after.segment.dropped
        if dropped:
            rows = "row" if dropped == 1 else "rows"
            yield Said(
                f"Resumed at step {at_step(seam.step)}: {dropped:,} {rows} from there on had been logged before; the "
                "later ones count.",
                seam.step,
                seam.step,
                {"rows": float(dropped)},
            )


def _seams(run: Run) -> Iterator[_Seam]:
    for before, after in zip(run.stretches, run.stretches[1:], strict=False):
        if after.segment.start == "resume":
            yield _Seam(before, after)


def _loss_change(seam: _Seam, sign: int) -> Said | None:
    old, new = _rows_before(seam, seam.before.segment.loss), _rows_after(seam.after.segment.loss, skip=1)
    if min(len(old), len(new)) < _MIN_ROWS or not (np.isfinite(old).all() and np.isfinite(new).all()):
        return None
    noise = float(np.std(np.diff(old)) / np.sqrt(2))
    level, head = float(np.median(old)), float(np.median(new[:3]))
    change = sign * (head - level)
    slope = abs(float(np.median(old[len(old) // 2 :]) - np.median(old[: len(old) // 2])))
    if change < max(_SIGMAS * noise, _PART * abs(level), 2 * slope):
        return None
    return Said(
        f"Resumed at step {at_step(seam.step)}: the loss went from {level:.4g} to {head:.4g}"
        f"{_meaning(seam, sign, level)}.",
        float(seam.before.steps[-1]),
        seam.step,
        {"before": level, "after": head, "noise": noise},
    )


def _meaning(seam: _Seam, sign: int, level: float) -> str:
    if sign < 0:
        return ", as it does where data that was seen already is read again"
    losses = seam.after.losses
    back = np.flatnonzero(losses[1:] <= level)
    if not len(back):
        return " and was not back at the end of the log"
    step = float(seam.after.steps[1 + int(back[0])])
    return f" and was back at step {at_step(step)}, as it does where the optimizer's state is lost"


def _rows_before(seam: _Seam, curve: Curve | None) -> Floats:
    """The last rows before the seam's step, also where the log before went on past it."""
    if curve is None:
        return np.empty(0)
    return curve.value[curve.step < seam.step][-_ROWS:]


def _rows_after(curve: Curve | None, skip: int) -> Floats:
    return np.empty(0) if curve is None else curve.value[skip : skip + _ROWS]
