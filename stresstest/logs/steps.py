"""The step of each row with a loss: as logged, made continuous over epochs, or counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Floats, Ints, RawLog
from stresstest.logs.roles import batches_key, counted_in, find

Indices = NDArray[np.intp]

_MANY_PER_STEP = 16  # rows that share a step: more than there are writers


@dataclass(frozen=True)
class Stepped:
    """The loss by step. order: [n] what tells where steps go back; unit: what a step counts.

    shifted_by: [n] the logged steps that were made into these, NaN where none were logged; None: these are as logged.
    """

    loss: Curve
    order: Floats
    key: str
    unit: str
    notes: tuple[str, ...] = ()
    shifted_by: Floats | None = None


def stepped(raw: RawLog, loss: Curve, chosen: str | None = None) -> Stepped:
    """The loss with its steps; `chosen` is a column that the user names."""
    if chosen is not None:
        return _by_column(raw, loss, chosen)
    key = _key_of(raw, loss)
    epoch_key = raw.facts.roles.get("epoch") or find("epoch", raw.curves) or ""
    epochs = joined(raw.curves.get(epoch_key), loss.row)
    within = _within_epochs(raw, loss, key, epochs)
    if within is not None:
        return within
    there = np.isfinite(loss.step)
    if there.mean() >= 0.5 and not _are_useless(loss.step[there], counted_in(key)):
        return _as_logged(loss, there, key)
    if _rises(epochs):
        kept = np.isfinite(epochs)
        return _epochs_as_steps(rows_of(loss, kept), epochs[kept], epoch_key)
    return _counted(loss, epochs)


def _key_of(raw: RawLog, loss: Curve) -> str:
    """The name of the steps that were logged; "step" where the format has them without a name."""
    key = raw.facts.roles.get("step") or find("step", raw.curves) or "step"
    values = joined(raw.curves.get(key), loss.row)
    known = np.isfinite(values) & np.isfinite(loss.step)
    differ = known.any() and not np.array_equal(values[known], loss.step[known])
    unused = not known.any() and np.isfinite(loss.step).any() and key not in raw.facts.roles.values()
    return _same_numbers(raw, loss) if differ or (unused and key in raw.curves) or key not in raw.curves else key


def _same_numbers(raw: RawLog, loss: Curve) -> str:
    """The name of the batch or epoch that was taken for the step."""
    for role in ("batch", "epoch", "time"):
        key = find(role, raw.curves)
        if key is not None and np.array_equal(joined(raw.curves[key], loss.row), loss.step):
            return key
    return "step"


def joined(curve: Curve | None, rows: Ints) -> Floats:
    """A curve's values at these rows of the log, NaN where it has none."""
    if curve is None or not len(curve):
        return np.full(len(rows), np.nan)
    if len(curve) == len(rows) and np.array_equal(curve.row, rows):
        return curve.value
    place = np.minimum(np.searchsorted(curve.row, rows), len(curve) - 1)
    return np.where(curve.row[place] == rows, curve.value[place], np.nan)


def rows_of(curve: Curve, which: NDArray[np.bool_] | Indices) -> Curve:
    """Some rows of a curve."""
    return Curve(curve.step[which], curve.value[which], curve.row[which])


def spacing_of(steps: Floats) -> float:
    """By how much steps usually rise from row to row; 1 where they do not."""
    rises = np.diff(steps)
    rises = rises[rises > 0]
    return float(np.median(rises)) if len(rises) else 1.0


def continuous(batch: Floats, epoch: Floats, batches: float | None) -> Floats:
    """Batches that count anew in each epoch, as steps of the run. `batches` of an epoch are found if not known."""
    if batches is None or batches < batch.max():
        same = np.diff(epoch) == 0
        rises = np.diff(batch)[same]
        rises = rises[rises > 0]
        first = float(batch.min())
        last = float(batch.max())
        batches = last - first + float(np.median(rises)) if len(rises) else max(last, 1.0)
    base = 1.0 if epoch.min() >= 1 else 0.0
    return (epoch - base) * batches + batch


def _by_column(raw: RawLog, loss: Curve, chosen: str) -> Stepped:
    values = joined(raw.curves[chosen], loss.row)
    if not np.isfinite(values).any():
        values = joined(_held(raw.curves[chosen], loss.row), loss.row)
    there = np.isfinite(values)
    found = _as_logged(replace(loss, step=values), there, chosen)
    return replace(found, shifted_by=np.full(int(there.sum()), np.nan))


def _held(curve: Curve, rows: Ints) -> Curve:
    """The last value before each of these rows."""
    place = np.searchsorted(curve.row, rows, "right") - 1
    values = np.where(place >= 0, curve.value[np.maximum(place, 0)], np.nan)
    return Curve(np.full(len(rows), np.nan), values, rows)


def _within_epochs(raw: RawLog, loss: Curve, key: str, epochs: Floats) -> Stepped | None:
    """Batches that begin anew with each epoch; None where they do not."""
    batch_key = raw.facts.roles.get("batch") or find("batch", raw.curves) or ""
    batch = joined(raw.curves.get(batch_key), loss.row)
    if not (np.isfinite(batch).mean() >= 0.9 and not np.isfinite(loss.step).any()):
        batch, batch_key = loss.step, key
    kept = np.isfinite(batch) & np.isfinite(epochs)
    if kept.mean() < 0.9 or kept.sum() < 2:
        return None
    batch, whole = batch[kept], np.floor(epochs[kept])
    up = np.diff(whole) > 0
    anew = np.diff(batch) <= 0
    if not up.any() or (up & anew).sum() < 0.8 * up.sum() or not _count_within(batch, whole):
        return None
    name = batches_key(raw.curves)
    known = joined(raw.curves.get(name) if name else None, loss.row)
    known = known[np.isfinite(known)]
    steps = continuous(batch, whole, float(np.median(known)) if len(known) else None)
    note = f"{batch_key!r} begins anew with each epoch: made continuous"
    unit = counted_in(batch_key)
    return Stepped(replace(rows_of(loss, kept), step=steps), steps, batch_key, unit, (note,), loss.step[kept])


def _count_within(batch: Floats, epoch: Floats) -> bool:
    """Whether batches go up within an epoch at all."""
    within = np.diff(batch)[np.diff(epoch) == 0]
    return len(within) == 0 or bool(np.mean(within > 0) > 0.9)


def _are_useless(steps: Floats, unit: str) -> bool:
    """All the same, or shared by so many rows that they are those of something longer (an epoch)."""
    if len(steps) < 2:
        return False
    changes = int(np.count_nonzero(np.diff(steps))) + 1
    if changes == 1:
        return True
    per_step = len(steps) / changes
    return per_step > (1.5 if unit == "epochs" else _MANY_PER_STEP)


def _as_logged(loss: Curve, there: NDArray[np.bool_], key: str) -> Stepped:
    lost = int((~there).sum())
    notes = (f"{lost} rows with a loss have no step and were left out",) if lost else ()
    kept = loss if not lost else rows_of(loss, there)
    unit = counted_in(key) if key else "steps"
    if unit in ("seconds", "tokens", "samples", "examples", "images"):
        notes = (*notes, f"steps are {unit} ({key!r})")
    return Stepped(kept, kept.step, key or "step", unit, notes)


def _rises(epochs: Floats) -> bool:
    """Whether nearly each row has an epoch of its own."""
    finite = epochs[np.isfinite(epochs)]
    enough = 0.9 if np.array_equal(finite, np.floor(finite)) else 1.0  # fractions are rounded until rows share one
    return len(finite) >= 0.9 * len(epochs) and (len(finite) < 2 or float(np.mean(np.diff(finite) != 0)) >= enough)


def _epochs_as_steps(loss: Curve, epochs: Floats, key: str) -> Stepped:
    note = "no step is logged: epochs are taken"
    return Stepped(replace(loss, step=epochs), epochs, key, "epochs", (note,), np.full(len(loss), np.nan))


def _counted(loss: Curve, epochs: Floats) -> Stepped:
    rows = np.arange(1, len(loss) + 1, dtype=float)
    order = epochs if np.isfinite(epochs).all() and len(epochs) else rows
    note = "no step is logged: rows are counted"
    return Stepped(replace(loss, step=rows), order, "row", "rows", (note,), np.full(len(loss), np.nan))


def named(curves: Mapping[str, Curve], key: str) -> Curve | None:
    """The curve of a name, or the sum of those whose names are joined by +, where all have a row."""
    if key in curves or "+" not in key:
        return curves.get(key)
    parts = [curves.get(part) for part in key.split("+")]
    if any(part is None for part in parts):
        return None
    first, *others = [part for part in parts if part is not None]
    total, there = first.value.copy(), np.ones(len(first), dtype=bool)
    for part in others:
        value, found = _beside(part, first)
        total, there = total + value, there & found
    return rows_of(Curve(first.step, total, first.row), there)


def _beside(part: Curve, first: Curve) -> tuple[Floats, NDArray[np.bool_]]:
    """A curve's values in the rows of another, and where it has one: by row, else by step (a row for each number)."""
    found = np.isin(first.row, part.row, assume_unique=True)
    if found.any() or not len(part):
        return joined(part, first.row), found
    if np.array_equal(part.step, first.step):
        return part.value, np.ones(len(first), dtype=bool)
    order = np.argsort(part.step, kind="stable")
    place = np.minimum(np.searchsorted(part.step[order], first.step), len(part) - 1)
    return part.value[order][place], part.step[order][place] == first.step
