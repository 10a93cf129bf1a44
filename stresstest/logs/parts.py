"""The rows of the loss that make each segment, in their final steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresstest.logs.beside import Span
from stresstest.logs.curve import Floats, Ints, RawLog
from stresstest.logs.seams import Indices, Start, Stretch, stretches
from stresstest.logs.steps import Stepped
from stresstest.logs.writers import chains, without_repeats, without_summary


@dataclass(frozen=True)
class Part:
    """Rows of the loss that make a segment, their steps, and where in the log what was logged beside them lies."""

    rows: Indices
    step: Floats
    start: Start
    dropped: int
    span: Span


def parts_of(raw: RawLog, steps: Stepped) -> tuple[list[Part], tuple[str, ...]]:
    """The stretches of a log without what was written twice, and what was done."""
    kept, notes = _once(steps)
    lost = np.delete(steps.loss.row, kept)
    in_turns = chains(steps.order[kept]) if steps.unit != "rows" else [np.arange(len(kept))]
    if len(in_turns) > 1:
        notes = (*notes, f"{len(in_turns)} runs wrote into the log in turns: each is judged")
    parts: list[Part] = []
    for chain in in_turns:
        rows = kept[chain]
        seams = _rows_at(raw.seams, steps.loss.row[rows])
        found = stretches(steps.order[rows], steps.loss.value[rows], seams)
        notes = (*notes, *(note for stretch in found for note in stretch.notes))
        parts += _parts(found, rows, steps, lost, in_turns=len(in_turns) > 1)
    return parts, notes


def _once(steps: Stepped) -> tuple[Indices, tuple[str, ...]]:
    """The rows without the summary at the end and those that repeat a step."""
    summary = without_summary(steps.loss.step, steps.loss.value, counted=steps.unit == "rows")
    kept = np.flatnonzero(summary)
    notes: tuple[str, ...] = () if summary.all() else ("the last row is the mean of all others: a summary, left out",)
    if steps.unit == "rows":
        return kept, notes
    repeats = without_repeats(steps.order[kept], steps.loss.value[kept])
    return kept[repeats.kept], (*notes, repeats.note)


def _rows_at(seams: Sequence[int], rows: Ints) -> tuple[int, ...]:
    """The first row with a loss at or after each seam of the log."""
    return tuple(int(place) for place in np.searchsorted(rows, np.array(seams, dtype=np.int64)))


def _parts(found: list[Stretch], rows: Indices, steps: Stepped, lost: Ints, in_turns: bool) -> list[Part]:
    parts = []
    log_row = steps.loss.row[rows]
    for i, stretch in enumerate(found):
        mine = rows[stretch.rows]
        step = _steps(steps, mine, stretch)
        following = found[i + 1] if i + 1 < len(found) else None
        resumed = following is not None and following.start == "resume" and steps.unit != "rows"
        span = Span(
            row=steps.loss.row[mine],
            step=step,
            raw=steps.loss.step[mine] if steps.shifted_by is None else steps.shifted_by[mine],
            after=float(log_row[stretch.rows[0] - 1]) if stretch.rows[0] > 0 else -np.inf,
            before=float(log_row[following.rows[0]]) if following is not None else np.inf,
            until=_steps(steps, rows[following.rows[:1]], following)[0]
            if resumed and following is not None
            else np.inf,
            alone=len(found) == 1 and not in_turns,
            lost=lost,
            only_same_rows=in_turns,
        )
        parts.append(Part(mine, step, stretch.start, stretch.dropped, span))
    return parts


def _steps(steps: Stepped, mine: Indices, stretch: Stretch) -> Floats:
    offset = 0.0 if steps.unit == "rows" else stretch.offset[: len(mine)]
    return steps.loss.step[mine] + offset
