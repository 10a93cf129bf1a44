"""The curves of a run, cut where training began again, in steps that go up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from stresstest.logs.beside import at_steps, beside, in_steps
from stresstest.logs.choosing import check_step, choose, of_one_rank
from stresstest.logs.curve import Curve, FormatFacts, RawLog, Role, RowKind
from stresstest.logs.missing import missing_after
from stresstest.logs.parts import Part, parts_of
from stresstest.logs.reading import READ, gaps, read_note, row_kind, without_loss
from stresstest.logs.seams import Start
from stresstest.logs.steps import Stepped, rows_of, spacing_of, stepped
from stresstest.logs.thinning import rows_merged
from stresstest.logs.zeros import zeros_told_apart


@dataclass(frozen=True)
class Segment:
    """One stretch of training without a seam: steps go up from row to row.

    loss: the train loss, clean. others: the curves of other roles in the same steps (lr, grad_norm, validation,
    loss_scale, skipped). start: what began it; after a resume the first row is the mean of fewer steps, and is marked
    by `first_row_is_partial`. steps_per_row: how many steps a row stands for, 1 if each was logged. epoch_rows: its
    steps count epochs, so that a row stands for many. Losses of 0.0 that stand for NaN are NaN here, and counted in
    `zeros_for_nan`. dropped: rows that a resume did again. missing_from: the step from which on rows go on without a
    loss, `missing_rows` of them; where the gradient norm was lost there, they are NaN in `loss`.
    """

    loss: Curve
    others: Mapping[Role, Curve] = field(default_factory=dict)
    start: Start = "start"
    steps_per_row: float = 1.0
    row_kind: RowKind = "unknown"
    epoch_rows: bool = False
    first_row_is_partial: bool = False
    zeros_for_nan: int = 0
    dropped: int = 0
    missing_from: float | None = None
    missing_rows: int = 0


@dataclass(frozen=True)
class Log:
    """A run, ready to be judged, and what was read.

    declined: why its loss is not to be judged; empty where it is. unit: of the loss. step_unit: what a step counts.
    """

    path: str
    format: str
    name: str
    loss_key: str
    step_key: str
    segments: tuple[Segment, ...]
    facts: FormatFacts
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    declined: str = ""
    unit: str = "nats"
    step_unit: str = "steps"


@np.errstate(invalid="ignore", over="ignore")  # losses that are not finite are what is looked for
def assemble(
    raw: RawLog, path: str, metric: str | None = None, step: str | None = None, rank: int | None = None
) -> Log:
    """The run of a raw log; where no loss is found it has no segments.

    A `ConfigError` where `step` or `rank` name what is not there.
    """
    check_step(raw, step, path)
    of_rank, rank_note = of_one_rank(raw, rank, path)
    chosen = choose(of_rank, metric)
    log = Log(path, raw.format, raw.name, chosen.key, step or "step", (), raw.facts, tuple(raw.curves), raw.notes)
    log = replace(log, declined=chosen.declined, unit=chosen.unit)
    if chosen.loss is None or not len(chosen.loss):
        return log
    steps = stepped(of_rank, chosen.loss, step)
    others = beside(of_rank, chosen.key)
    parts, part_notes = parts_of(of_rank, steps)
    made = [_segment(part, of_rank, steps, others.curves, chosen.key) for part in parts]
    segments = tuple(segment for segment, _ in made)
    notes = (
        read_note(chosen.key, steps, segments, raw.facts.row_note, rows_merged(raw.notes)),
        *raw.notes,
        *chosen.notes,
        rank_note,
        *steps.notes,
        *others.notes,
        *part_notes,
        *(note for _, note in made),
        *gaps(segments, steps.unit),
        without_loss(of_rank, chosen.loss, steps.key),
    )
    notes = tuple(dict.fromkeys(note for note in notes if note))
    return replace(log, step_key=steps.key, step_unit=steps.unit, segments=segments, notes=notes)


def _segment(
    part: Part, raw: RawLog, steps: Stepped, others: Mapping[Role, Curve], loss_key: str
) -> tuple[Segment, str]:
    """A segment, and what is to be said of its zeros."""
    loss = replace(rows_of(steps.loss, part.rows), step=part.step)
    spans = {role: in_steps(curve, part.span) for role, curve in others.items()}
    beside_it = {role: curve for role, curve in spans.items() if curve is not None}
    norm = at_steps(beside_it.get("grad_norm"), loss.step)
    kind = row_kind(raw.facts, loss_key, steps.unit, raw.notes)
    zeros = zeros_told_apart(
        loss.value, norm.value, norm.there & np.isnan(norm.value), raw.facts.zero_for_nan, raw.facts.loss_decimals
    )
    spacing = 1.0 if steps.unit in READ else max(1.0, spacing_of(loss.step))
    clean = replace(loss, value=zeros.loss)
    missing = missing_after(clean, beside_it)
    segment = Segment(
        loss=missing.as_nan(clean) if missing and missing.norm_is_lost else clean,
        others=beside_it,
        start=part.start,
        steps_per_row=spacing,
        row_kind=kind,
        epoch_rows=steps.unit == "epochs",
        first_row_is_partial=part.start == "resume" and kind != "sample" and (spacing > 1 or steps.unit == "epochs"),
        zeros_for_nan=zeros.count,
        dropped=part.dropped,
        missing_from=float(missing.step[0]) if missing else None,
        missing_rows=len(missing.step) if missing else 0,
    )
    return segment, zeros.note
