"""What was logged beside the loss, in the steps of a segment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Floats, Ints, RawLog, Role
from stresstest.logs.losses import validation_of
from stresstest.logs.names import without_prefix
from stresstest.logs.roles import find, learning_rates, moving
from stresstest.logs.steps import named, rows_of

_ROLES: tuple[Role, ...] = ("grad_norm", "loss_scale", "skipped", "epoch", "batch", "time")


@dataclass(frozen=True)
class Beside:
    """Curves by their role, and what is to be said of how they were chosen."""

    curves: Mapping[Role, Curve]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """A segment's rows: where they lie in the log and what their logged steps became.

    row, step, raw: [n] of its rows with a loss. before: the first row of the log that belongs to what follows.
    after: the last that belongs to what came before. lost: rows of the log whose loss was dropped. until: the step
    at which a resume took over. alone: the log has no other segment. only_same_rows: other runs wrote between them.
    """

    row: Ints
    step: Floats
    raw: Floats
    after: float
    before: float
    until: float
    alone: bool
    lost: Ints
    only_same_rows: bool = False


@dataclass(frozen=True)
class AtSteps:
    """Values at given steps: NaN where none is there."""

    value: Floats
    there: NDArray[np.bool_]


def at_steps(curve: Curve | None, steps: Floats) -> AtSteps:
    """A curve whose steps go up, at these."""
    if curve is None or not len(curve):
        return AtSteps(np.full(len(steps), np.nan), np.zeros(len(steps), dtype=bool))
    place = np.minimum(np.searchsorted(curve.step, steps), len(curve) - 1)
    there = curve.step[place] == steps
    return AtSteps(np.where(there, curve.value[place], np.nan), np.asarray(there))


def beside(raw: RawLog, loss_key: str) -> Beside:
    """The curves of other roles, by the format's names or their own."""
    there = {key: curve for key, curve in raw.curves.items() if len(curve) and key not in loss_key.split("+")}
    fixed = {role: key for role, key in raw.facts.roles.items() if key in there}
    found: dict[Role, Curve] = {}
    for role in _ROLES:
        key = fixed.get(role) or find(role, there)
        if key is not None and (role != "time" or _is_a_clock(there[key])):
            found[role] = there[key]
    notes: tuple[str, ...] = ()
    rates = (fixed["lr"],) if "lr" in fixed else learning_rates(there)
    lr = moving(rates, there)
    if lr is not None:
        found["lr"] = there[lr]
        if len(rates) > 1:
            notes = (f"{len(rates)} learning rates are logged: {lr!r} is read",)
    validation = fixed.get("validation") or "+".join(validation_of(without_prefix(there), loss_key.split("+")))
    curve = named(there, validation) if validation else None
    if curve is not None and len(curve):
        found["validation"] = curve
    return Beside(found, notes)


def _is_a_clock(curve: Curve) -> bool:
    """Whether it goes on: not the seconds that a step took."""
    return len(curve) > 1 and float(np.mean(np.diff(curve.value) >= 0)) > 0.95


def in_steps(curve: Curve, span: Span) -> Curve | None:
    """A curve's part in a segment, in its steps; None where it has no row there."""
    inside = _inside(curve, span)
    if len(span.lost):
        inside &= ~np.isin(curve.row, span.lost, assume_unique=True)
    if not inside.any():
        return None
    part = rows_of(curve, inside)
    step = _steps(part, span)
    kept = (step < span.until) & _from_the_seam(step, span)
    part, step = rows_of(part, kept), step[kept]
    rising = step >= np.maximum.accumulate(step) if len(step) else np.ones(0, dtype=bool)
    part, step = rows_of(part, rising), step[rising]
    last = np.append(np.diff(step) > 0, True) if len(step) else np.ones(0, dtype=bool)
    return Curve(step[last], part.value[last], part.row[last]) if last.any() else None


def _from_the_seam(step: Floats, span: Span) -> NDArray[np.bool_]:
    """All but first rows that still belong to what came before: those before the step goes back to the beginning."""
    back = np.flatnonzero(np.diff(step) < 0)
    first = int(back[0]) + 1 if len(back) and np.isfinite(span.after) else 0
    begins = first and step[first] <= span.step[min(1, len(span.step) - 1)]
    return np.arange(len(step)) >= (first if begins else 0)


def _inside(curve: Curve, span: Span) -> NDArray[np.bool_]:
    """By its rows; by steps where it was written apart from the loss."""
    if span.alone:
        return np.ones(len(curve), dtype=bool)
    if span.only_same_rows:
        return np.isin(curve.row, span.row, assume_unique=True)
    inside = (curve.row > span.after) & (curve.row < span.before)
    apart = not ((curve.row >= span.row[0]) & (curve.row <= span.row[-1])).any()
    if apart and np.array_equal(span.raw, span.step):
        return np.asarray((curve.step >= span.step[0]) & (curve.step <= span.step[-1]))
    return inside


def _steps(part: Curve, span: Span) -> Floats:
    """As the steps of the loss were changed: where it was logged in the same row, else by the row before."""
    place = np.clip(np.searchsorted(span.row, part.row, "right") - 1, 0, len(span.row) - 1)
    same = span.row[place] == part.row
    shift = span.step[place] - span.raw[place]
    unchanged = np.isfinite(span.raw).all() and np.array_equal(span.raw, span.step)
    moved = part.step if unchanged else part.step + shift
    constant = np.isfinite(shift) & np.isfinite(moved)
    return np.where(same | ~constant, span.step[place], moved)
