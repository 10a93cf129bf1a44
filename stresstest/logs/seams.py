"""Where steps go back: a resume, a run begun anew, or a count that begins anew with each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Floats
from stresstest.logs.steps import spacing_of

Start = Literal["start", "resume", "restart", "unknown"]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Stretch:
    """Rows without a seam. offset: [n] what is added to their logged steps; dropped: rows that a resume did again."""

    start: Start
    rows: Indices
    offset: Floats
    dropped: int = 0
    notes: tuple[str, ...] = ()


def stretches(order: Floats, loss: Floats, seams: Sequence[int] = ()) -> list[Stretch]:
    """The stretches of a log in the order in which they were written. `seams`: rows at which a further file begins."""
    cuts = np.union1d(np.flatnonzero(np.diff(order) < 0) + 1, np.array(seams, dtype=int)).astype(int)
    cuts = cuts[(cuts > 0) & (cuts < len(order))]
    spacing = spacing_of(order)
    found: list[Stretch] = []
    for rows in np.split(np.arange(len(order)), cuts):
        _append(found, rows, order, loss, spacing, int(rows[0]) in seams)
    return found


def _append(found: list[Stretch], rows: Indices, order: Floats, loss: Floats, spacing: float, new_file: bool) -> None:
    """One more stretch, and what it takes from those before."""
    fresh = np.zeros(len(rows))
    if not found:
        found.append(Stretch("start", rows, fresh))
        return
    run = _run_of(found)
    first, begin, reached = order[rows[0]], order[run[0].rows[0]], _last_step(found[-1], order)
    if first > reached:
        found.append(Stretch("resume", rows, fresh))
    elif first > begin + 1.5 * spacing:
        found.append(_resumed(found, rows, order, loss))
    elif not goes_on(loss[run[0].rows], loss[found[-1].rows], loss[rows]):
        found.append(Stretch("restart", rows, fresh))
    else:
        _go_on(found, rows, order, fresh + (reached + spacing - first), new_file)


def _run_of(found: list[Stretch]) -> list[Stretch]:
    """The stretches since training last began from nothing."""
    last = next(i for i, stretch in enumerate(reversed(found), 1) if stretch.start in ("start", "restart"))
    return found[-last:]


def _last_step(stretch: Stretch, order: Floats) -> float:
    return float((order[stretch.rows] + stretch.offset).max())


def _resumed(found: list[Stretch], rows: Indices, order: Floats, loss: Floats) -> Stretch:
    """The later rows win: what the run did before from that step on is dropped."""
    offset = np.full(len(rows), found[-1].offset[-1])
    first = order[rows[0]] + offset[0]
    dropped: list[Indices] = []
    while found:
        earlier = found.pop()
        again = order[earlier.rows] + earlier.offset >= first
        dropped.append(earlier.rows[again])
        if not again.all():
            found.append(replace(earlier, rows=earlier.rows[~again], offset=earlier.offset[~again]))
            break
    twice = np.sort(np.concatenate(dropped))
    return Stretch("resume", rows, offset, len(twice), _said_of(twice, order + offset[0], loss))


def _said_of(twice: Indices, order: Floats, loss: Floats) -> tuple[str, ...]:
    if not len(twice):
        return ()
    bad = int((~np.isfinite(loss[twice])).sum())
    ending = f"; {bad} of them were not finite" if bad else ""
    low, high = order[twice].min(), order[twice].max()
    return (f"resumed: steps {low:.10g} to {high:.10g} were done twice, their first {len(twice)} rows dropped{ending}",)


def _go_on(found: list[Stretch], rows: Indices, order: Floats, offset: Floats, new_file: bool) -> None:
    """A count from the beginning in a run that goes on: the next epoch, or a resume with a counter of its own."""
    earlier = found[-1]
    if new_file or not _same_length(earlier, rows, order):
        note = f"resumed: its steps count from {order[rows[0]]:.10g} again, and were set behind those before"
        found.append(Stretch("resume", rows, offset, notes=(note,)))
        return
    note = "steps begin anew with each epoch: made continuous"
    notes = earlier.notes if note in earlier.notes else (*earlier.notes, note)
    both = np.concatenate((earlier.rows, rows)), np.concatenate((earlier.offset, offset))
    found[-1] = replace(earlier, rows=both[0], offset=both[1], notes=notes)


def _same_length(earlier: Stretch, rows: Indices, order: Floats) -> bool:
    """Whether both reach about the same number, as epochs do."""
    before, now = float(order[earlier.rows].max()), float(order[rows].max())
    return now <= before * 1.02 + 1e-9


def goes_on(run: Floats, before: Floats, after: Floats) -> bool:
    """Whether the loss after a seam is nearer to that before it than to that at the run's beginning."""
    start, end, now = _level(run[:3]), _level(before[-5:]), _level(after[:3])
    if not np.isfinite([start, end, now]).all():
        return False
    noise = float(np.median(np.abs(np.diff(run)))) if len(run) > 1 else 0.0
    return abs(start - end) > 2 * noise and abs(now - end) < 0.5 * abs(now - start)


def _level(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
