"""What moved just before a break or a spike: coincidences in time, and called so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step, rows_until, shown, value_at
from stresstest.diagnosis.findings.schedule import phase_at
from stresstest.diagnosis.findings.stretch import Stretch
from stresstest.logs.curve import Curve, Floats

NEAR_ROWS = 5  # "just before" is at most so many rows, and a twelfth of a short log
_NEAR_PART = 1 / 12
_MOVED = 3.0  # times its median, for a gradient norm to be named beside a spike
_RECENT = 50  # rows that the median is taken of
_ROWS_AN_EPOCH = 20  # in shorter ones any row lies near an edge


@dataclass(frozen=True)
class Moment:
    """A break or a spike: its first bad row, and what it is called."""

    stretch: Stretch
    row: int
    word: str

    @property
    def bad(self) -> float:
        """Step of the first bad row."""
        return float(self.stretch.steps[self.row])

    @property
    def good(self) -> float | None:
        """Step of the row before; None where the first row is bad."""
        return float(self.stretch.steps[self.row - 1]) if self.row else None

    @property
    def near(self) -> float:
        """The step from which on things happened just before."""
        return float(self.stretch.steps[max(0, self.row - self.near_rows)])

    @property
    def near_rows(self) -> int:
        """How many rows before count as just before."""
        return max(1, min(NEAR_ROWS, int(len(self.stretch.steps) * _NEAR_PART)))


Sign = Callable[[Moment], Iterator[Said]]


def before_break(sign: Sign) -> Callable[[Stretch], Iterator[Said]]:
    """A sign, looked for before the break of a stretch that has one."""

    def find(stretch: Stretch) -> Iterator[Said]:
        row = stretch.course.onset_row
        if row is not None and 0 <= row < len(stretch.steps):
            yield from sign(Moment(stretch, row, "break"))

    return find


def lr_level(moment: Moment) -> Iterator[Said]:
    """The learning rate one row before and in the first bad row, and its phase."""
    lr = moment.stretch.lr
    now = value_at(lr, moment.bad)
    if lr is None or now is None:
        return
    phase = phase_at(lr, moment.stretch.schedule, moment.bad if moment.good is None else moment.good)
    text = f"LR at the {moment.word} (step {at_step(moment.bad)}): {now:.3g}, {phase}"
    before = None if moment.good is None else value_at(lr, moment.good)
    if before is not None and before != now:
        text += f"; one row before {before:.3g}"
    yield Said(text + ".", moment.good, moment.bad, {"lr_before": before, "lr": now, "phase": phase})


def lr_rise(moment: Moment) -> Iterator[Said]:
    """The LR was in warm-up."""
    lr = moment.stretch.lr
    if lr is None or moment.good is None or rows_until(lr, moment.good) < 2:
        return
    end = moment.stretch.schedule.warmup_end_step
    if phase_at(lr, moment.stretch.schedule, moment.good) == "in warm-up" and (end is None or end > moment.bad):
        value = value_at(lr, moment.bad)
        yield Said(f"The LR was still in warm-up ({value:.3g}).", moment.good, moment.bad, {"lr": value})


def lr_jump(moment: Moment) -> Iterator[Said]:
    """The LR rose at least twofold from one row to the next."""
    lr = moment.stretch.lr
    if lr is None:
        return
    for row in moment.stretch.doublings:
        if moment.near < lr.step[row] <= moment.bad:
            before, after = float(lr.value[row - 1]), float(lr.value[row])
            yield Said(
                f"Just before the {moment.word}, at step {at_step(lr.step[row])}, the LR went from {before:.3g} to "
                f"{after:.3g} ({after / before:.3g} times).",
                float(lr.step[row - 1]),
                float(lr.step[row]),
                {"lr_before": before, "lr": after},
            )


def warmup_end(moment: Moment) -> Iterator[Said]:
    """A warm-up had just ended."""
    lr = moment.stretch.lr
    end = None if lr is None else moment.stretch.schedule.warmup_end_step
    if end is not None and moment.near <= end <= moment.bad:
        ago = moment.bad - end
        where = f"{at_step(ago)} steps before the {moment.word}" if ago else f"in the row of the {moment.word}"
        yield Said(
            f"Warm-up ended at step {at_step(end)}, {where}.",
            end,
            moment.bad,
            {"warmup_end": end},
        )


def grad_norm_level(moment: Moment) -> Iterator[Said]:
    """The gradient norm before and at the break, beside its median."""
    yield from _grad_norm(moment, at_least=0.0)


def grad_norm_rise(moment: Moment) -> Iterator[Said]:
    """The gradient norm stood out from its median."""
    yield from _grad_norm(moment, at_least=_MOVED)


def loss_scale_fall(moment: Moment) -> Iterator[Said]:
    """The loss scale halved."""
    scale = moment.stretch.curve("loss_scale")
    if scale is None:
        return
    values = _window(scale, moment)
    if len(values) > 1 and 0 < values[-1] <= values.max() / 2:
        highest, last = float(values.max()), float(values[-1])
        yield Said(
            f"The loss scale fell from {highest:,.6g} to {last:,.6g} just before the {moment.word}.",
            moment.near,
            moment.bad,
            {"loss_scale_before": highest, "loss_scale": last},
        )


def skipped_steps(moment: Moment) -> Iterator[Said]:
    """Steps were skipped."""
    skipped = moment.stretch.curve("skipped")
    if skipped is None:
        return
    values = _window(skipped, moment)
    total = float(values[np.isfinite(values)].sum())
    if total > 0:
        yield Said(
            f"{total:,.0f} {'step was' if total == 1 else 'steps were'} skipped just before the {moment.word}.",
            moment.near,
            moment.bad,
            {"skipped": total},
        )


def seam(moment: Moment) -> Iterator[Said]:
    """The run had just been resumed."""
    stretch = moment.stretch
    if stretch.segment.start == "resume" and moment.row <= moment.near_rows:
        start = float(stretch.steps[0])
        yield Said(
            f"The run was resumed at step {at_step(start)}, just before the {moment.word}.",
            start,
            moment.bad,
            {"resumed_at": start},
        )


def epoch_edge(moment: Moment) -> Iterator[Said]:
    """An epoch began."""
    epoch = moment.stretch.curve("epoch")
    if epoch is None or moment.good is None:
        return
    before, after = value_at(epoch, moment.good), value_at(epoch, moment.bad)
    if before is None or after is None or not np.floor(after) > np.floor(before):
        return
    if len(moment.stretch.steps) < _ROWS_AN_EPOCH * (np.floor(epoch.value[-1]) - np.floor(epoch.value[0]) + 1):
        return
    yield Said(
        f"A new epoch ({np.floor(after):.0f}) began in the row of the {moment.word}.",
        moment.good,
        moment.bad,
        {"epoch": float(np.floor(after))},
    )


def _grad_norm(moment: Moment, at_least: float) -> Iterator[Said]:
    norms = moment.stretch.grad_norm
    if norms is None or moment.good is None:
        return
    rows = rows_until(norms, moment.good)
    recent = norms.value[max(0, rows - _RECENT) : max(0, rows - 1)]
    recent = recent[np.isfinite(recent)]
    before, now = value_at(norms, moment.good), value_at(norms, moment.bad)
    if before is None or now is None or len(recent) < 1 or (at_least and len(recent) < 5):
        return
    middle = float(np.median(recent))
    if not middle > 0 or (at_least and not _highest(before, now) >= at_least * middle):
        return
    text = f"Gradient norm just before the {moment.word} (step {at_step(moment.good)}): {_beside(before, middle)}"
    text += f"; at the {moment.word} {_beside(now, middle)}. Its median until then is {middle:.3g}."
    yield Said(
        text,
        moment.good,
        moment.bad,
        {"grad_norm_before": before, "grad_norm": now, "median": middle, "rows": float(len(recent))},
    )


def _highest(before: float, now: float) -> float:
    return max((value for value in (before, now) if np.isfinite(value)), default=float("inf"))


def _beside(value: float, middle: float) -> str:
    if not np.isfinite(value):
        return shown(value)
    times = f"{value / middle:.2g}"
    return f"{shown(value)}, about its median" if times == "1" else f"{shown(value)}, {times} times its median"


def _window(curve: Curve, moment: Moment) -> Floats:
    first = int(np.searchsorted(curve.step, moment.near))
    return curve.value[first : rows_until(curve, moment.bad)]
