"""Rows that several processes wrote: the same steps twice, or two runs in turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Floats

Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

_NEAR = 16  # rows between which two of one step are of two writers, and not of a resume
_OFTEN = 0.25  # share of rows whose step does not rise, above which they come from several writers
_ALIKE = 0.02
_MOST_WRITERS = 16
_FAR = 50.0  # steps of the usual spacing: what lies further ahead is another run's


@dataclass(frozen=True)
class Repeats:
    """Which rows are kept, one of each step, and what is to be said."""

    kept: Bools
    note: str = ""


def without_repeats(order: Floats, loss: Floats) -> Repeats:
    """One row of each step where writers repeat each other; all rows where steps go back for another reason."""
    kept = np.ones(len(order), dtype=bool)
    if not _written_in_turns(order):
        return _without_neighbours(order, loss)
    by_step = np.lexsort((np.arange(len(order)), order))
    same = (np.diff(order[by_step]) == 0) & (np.abs(np.diff(by_step)) <= _NEAR)
    if not same.any():
        return Repeats(kept)
    kept[by_step[1:][same]] = False
    apart = np.abs(np.diff(loss[by_step]))[same]
    finite = apart[np.isfinite(apart)]
    largest = float(finite.max()) if len(finite) else 0.0
    level = float(np.median(np.abs(loss[np.isfinite(loss)]))) if np.isfinite(loss).any() else 0.0
    dropped = int((~kept).sum())
    if len(finite) == 0 or float(np.median(finite)) <= _ALIKE * level:
        return Repeats(
            kept, f"several writers: {dropped} rows that repeat a step dropped (largest difference {largest:.2g})"
        )
    said = f"several writers whose losses differ by up to {largest:.2g}: the first of each step is kept"
    return Repeats(kept, f"{said}, {dropped} rows dropped")


def chains(order: Floats) -> list[Indices]:
    """Runs that wrote into one file in turns, each with steps that rise; one of all rows where there are not two."""
    if not _written_in_turns(order):
        return [np.arange(len(order))]
    reach = _FAR * float(np.median(np.diff(np.unique(order))))
    ends: list[float] = []
    rows: list[list[int]] = []
    for row, step in enumerate(order.tolist()):
        behind = [i for i, end in enumerate(ends) if step - reach <= end < step]
        if behind:
            chain = max(behind, key=lambda i: ends[i])
        elif len(ends) < _MOST_WRITERS:
            chain = len(ends)
            ends.append(step)
            rows.append([])
        else:
            return [np.arange(len(order))]
        ends[chain] = step
        rows[chain].append(row)
    return [np.array(chain, dtype=np.intp) for chain in rows]


def _written_in_turns(order: Floats) -> bool:
    """Whether steps often fail to rise, and yet are many: not an index that begins anew with each epoch."""
    if len(order) < 4 or float(np.mean(np.diff(order) <= 0)) < _OFTEN:
        return False
    return len(np.unique(order)) >= len(order) / _MOST_WRITERS and not _begins_anew(order)


def _begins_anew(order: Floats) -> bool:
    """Whether each step that goes back goes to about the beginning, and to about the same one."""
    back = order[1:][np.diff(order) < 0]
    reach = float(order.max() - order.min())
    if not len(back) or float(np.mean(np.diff(order) == 0)) >= _OFTEN:
        return False
    climbs = len(back) > 2 and float(np.mean(np.diff(back) > 0)) > 0.8
    return not climbs and bool(np.all(back <= order.min() + 0.1 * reach))


def _without_neighbours(order: Floats, loss: Floats) -> Repeats:
    """The last of neighbours with one step: a row logged again."""
    kept = np.append(np.diff(order) != 0, True) if len(order) else np.ones(0, dtype=bool)
    if kept.all():
        return Repeats(kept)
    apart = np.abs(np.diff(loss))[~kept[:-1]]
    finite = apart[np.isfinite(apart)]
    largest = f" (largest difference {finite.max():.2g})" if len(finite) else ""
    count = int((~kept).sum())
    rows = "1 row" if count == 1 else f"{count} rows"
    return Repeats(kept, f"{rows} dropped whose step is logged again in the next{largest}")


def without_summary(step: Floats, loss: Floats, counted: bool) -> Bools:
    """All rows but a last one that is the mean of the others and whose step does not go on: the summary of the run.

    counted: no steps were logged, and the rows' numbers stand for them.
    """
    kept = np.ones(len(loss), dtype=bool)
    if len(loss) < 6 or not np.isfinite(loss).all() or (step[-1] > step[-2] and not counted):
        return kept
    others = loss[:-1]
    off = abs(float(loss[-1]) - float(others.mean()))
    jump = abs(float(loss[-1]) - float(np.median(others[-3:])))
    noise, spread = float(np.median(np.abs(np.diff(others)))), float(others.max() - others.min())
    kept[-1] = not (off <= 2e-4 * spread and jump > max(4 * noise, 0.05 * spread))
    return kept
