"""A loss that is NaN or infinite: since when, and which of the finite rows cannot be trusted either."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stresstest.diagnosis.findings.base import Said, at_step, shown, value_at
from stresstest.diagnosis.findings.stretch import Stretch

_EXPLODED = 10.0  # times the first loss


def where_it_became_nonfinite(stretch: Stretch) -> Iterator[Said]:
    """Between which steps, and the last finite row."""
    if stretch.course.outcome != "nonfinite":
        return
    lost = _first_lost_row(stretch)
    if lost is None:
        return
    seen = first_suspect_row(stretch, lost)
    text = f"The loss is {_name(stretch.losses[lost])} from the row of step {at_step(stretch.steps[lost])} on"
    if seen == 0:
        text += ": no row is good." if lost == 0 else "; the gradient norm is not finite from the first row on."
        yield Said(text, float(stretch.steps[0]), float(stretch.steps[lost]), {"last_finite_step": None})
        return
    good, first = float(stretch.steps[seen - 1]), float(stretch.steps[seen])
    next_step = first - good <= 1 and good.is_integer() and first.is_integer()
    if seen < lost or not next_step:
        text += f". It became so {_between(good, first)}"
    if seen < lost:
        text += (
            f": the gradient norm is {_name(value_at(stretch.grad_norm, first))} there first, and the loss of "
            f"{shown(stretch.losses[seen])} in that row cannot be trusted"
        )
    lr = value_at(stretch.lr, good)
    text += f". Last finite row: step {at_step(good)}, loss {shown(stretch.losses[seen - 1])}"
    text += "." if lr is None else f", LR {lr:.3g}."
    rise = first_exploded_row(stretch, seen)
    if rise < seen:
        text += f" The loss had exploded before: {shown(stretch.losses[rise])} at step {at_step(stretch.steps[rise])}."
    yield Said(
        text,
        good,
        first,
        {
            "last_finite_step": good,
            "last_finite_loss": float(stretch.losses[seen - 1]),
            "last_finite_lr": lr,
            "first_bad_step": first,
            "first_lost_loss_step": float(stretch.steps[lost]),
        },
    )


def zeros_for_nan(stretch: Stretch) -> Iterator[Said]:
    """Losses of 0.0 that stand for NaN."""
    count = stretch.segment.zeros_for_nan
    if not count:
        return
    rows = "row is" if count == 1 else "rows are"
    tool = "Trainer's logging_nan_inf_filter writes" if stretch.known.facts.zero_for_nan else "some trainers write"
    yield Said(
        f"{count:,} {rows} logged as 0.0, as {tool} a loss that is not finite: these rows hold no loss, and a mean "
        "over the run (train_loss) is meaningless.",
        evidence={"rows": float(count)},
    )


def missing_losses(stretch: Stretch) -> Iterator[Said]:
    """Rows at the end that hold no loss, though what stood beside it goes on."""
    segment = stretch.segment
    if segment.missing_from is None:
        return
    there = {"LR": stretch.curve("lr"), "gradient norm": stretch.curve("grad_norm")}
    beside = [name for name, curve in there.items() if curve is not None]
    yield Said(
        f"The loss is missing from step {at_step(segment.missing_from)} on ({segment.missing_rows:,} rows), while the "
        f"{' and the '.join(beside)} {'goes' if len(beside) == 1 else 'go'} on: pandas and JavaScript write NaN as an "
        "empty value.",
        segment.missing_from,
        evidence={"rows": float(segment.missing_rows)},
    )


def nonfinite_rows_that_passed(stretch: Stretch) -> Iterator[Said]:
    """Single rows that are not finite in a loss that went on."""
    bad = np.flatnonzero(~np.isfinite(stretch.losses))
    if stretch.course.outcome in (None, "nonfinite") or not len(bad):
        return
    first, last = float(stretch.steps[bad[0]]), float(stretch.steps[bad[-1]])
    rows = "row is" if len(bad) == 1 else "rows are"
    yield Said(
        f"{len(bad):,} of {len(stretch.losses):,} {rows} NaN or inf (first at step {at_step(first)}); the loss is "
        "finite again after.",
        first,
        last,
        {"rows": float(len(bad))},
    )


def first_suspect_row(stretch: Stretch, lost: int) -> int:
    """The row from which on the gradient norm was not finite without a break until the loss was lost, or that row."""
    norms = stretch.grad_norm
    if norms is None:
        return lost
    bad_steps = set(norms.step[~np.isfinite(norms.value)].tolist())
    row = lost
    while row > 0 and float(stretch.steps[row - 1]) in bad_steps:
        row -= 1
    return row


def first_exploded_row(stretch: Stretch, row: int) -> int:
    """The first row before this one whose loss is ten times that of the first row, or this one."""
    before = stretch.losses[:row]
    if not len(before) or not before[0] > 0:
        return row
    high = np.flatnonzero(before > _EXPLODED * before[0])
    return int(high[0]) if len(high) else row


def _first_lost_row(stretch: Stretch) -> int | None:
    bad = np.flatnonzero(~np.isfinite(stretch.losses))
    onset = stretch.course.onset_row or 0
    after = bad[bad >= onset]
    return int(after[0]) if len(after) else (int(bad[0]) if len(bad) else None)


def _between(good: float, first: float) -> str:
    if not (good.is_integer() and first.is_integer()):
        return f"after step {at_step(good)}, by step {at_step(first)}"
    if first - good <= 1:
        return f"at step {at_step(first)}"
    return f"between steps {at_step(good + 1)} and {at_step(first)}"


def _name(value: float | None) -> str:
    return "NaN" if value is None or np.isnan(value) else "infinite"
