"""What the templates hold, as columns: one a name, told apart by what indexes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from stresstest.logs.curve import Curve, Floats, Ints
from stresstest.logs.readers.text.scan import Scan
from stresstest.logs.readers.text.tables import Table, is_missing
from stresstest.logs.readers.text.template import Template
from stresstest.logs.readers.text.words import Kind, kind_of

Level = Literal["step", "batch", "epoch", "above", "none"]


@dataclass(frozen=True)
class Column:
    """A name's numbers in the order of their lines.

    level: what names their place: a step, a batch within an epoch, an epoch, a step of the lines above, or nothing.
    step, epoch, total: [n], NaN where neither the line nor one above says it. drawn: by a progress bar.
    """

    name: str
    kind: Kind
    level: Level
    step_name: str
    value: Floats
    step: Floats
    epoch: Floats
    total: Floats
    place: Ints
    rank: Floats
    drawn: bool = False

    def __len__(self) -> int:
        return len(self.value)

    def chosen(self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Column:
        """The rows that a mask keeps."""
        cut = (self.value[keep], self.step[keep], self.epoch[keep], self.total[keep], self.place[keep], self.rank[keep])
        return Column(self.name, self.kind, self.level, self.step_name, *cut, self.drawn)

    def curve(self) -> Curve:
        """Its rows with their steps."""
        return Curve(self.step, self.value, self.place)


def columns_of(scanned: Scan, summary: re.Pattern[str] | None = None) -> list[Column]:
    """Every column; parts from lines of several shapes are joined where they are of one level.

    Lines that match `summary` are by epoch, whatever step they name.
    """
    parts = [
        replace(part, level="epoch") if summary is not None and summary.search(template.example) else part
        for template in scanned.templates
        for part in _of_template(template)
    ]
    parts += [part for table in scanned.tables for part in _of_table(table)]
    groups: dict[tuple[str, Level], list[Column]] = {}
    for part in parts:
        groups.setdefault((part.name, part.level), []).append(part)
    return [_once(_joined(group)) for group in groups.values()]


def _once(column: Column) -> Column:
    """Of what a bar drew again at one place the last: its number came before the loss of that place.

    A bar that is set before it moves on is drawn once more at its end: that row is the one before it.
    """
    if not column.drawn or column.level != "batch" or len(column) < 2:
        return column
    same = (np.diff(column.step) == 0) & ((np.diff(column.epoch) == 0) | ~np.isfinite(column.epoch[1:]))
    column = column.chosen(np.append(~same, True))
    value = column.value
    alike = np.append(False, (value[1:] == value[:-1]) | np.isnan(value[1:]))
    return column.chosen(~(alike & (column.step == column.total) & bool((column.step == 0).any())))


def _of_template(template: Template) -> Iterable[Column]:
    block, places = template.rows.table()
    rows = len(places)
    if not rows:
        return
    arrays = list(block.T)
    beside = arrays[len(template.fields) :]
    nothing = np.full(rows, np.nan)
    step_at, epoch_at = template.step_at, template.epoch_at
    total_at = (
        None
        if step_at is None
        else next((at for at, field in enumerate(template.fields) if at == step_at + 1 and field.kind == "total"), None)
    )
    rank_at = next((at for at, field in enumerate(template.fields) if field.kind == "rank"), None)
    above_step, above_epoch = beside[:2] if template.inherits else (nothing, nothing)
    prefixed = beside[2 * template.inherits :]
    step = arrays[step_at] if step_at is not None else above_step
    epoch = arrays[epoch_at] if epoch_at is not None else above_epoch
    total = arrays[total_at] if total_at is not None else nothing
    rank = arrays[rank_at] if rank_at is not None else prefixed[0] if prefixed else nothing
    level, step_name = _level(template, step, epoch)
    if level == "epoch":
        step = step if step_at is None and _moves(step) else epoch
    for at, field in enumerate(template.fields):
        if field.kind in ("total", "rank"):
            continue
        yield Column(
            field.name, field.kind, level, step_name, arrays[at], step, epoch, total, places, rank, template.is_bar
        )


def _level(template: Template, step: Floats, epoch: Floats) -> tuple[Level, str]:
    if template.step_at is not None:
        field = template.fields[template.step_at]
        return ("batch" if field.kind == "batch" else "step"), field.name
    if template.epoch_at is not None:
        return "epoch", template.fields[template.epoch_at].name
    if _moves(step):
        return "above", "step"
    if _moves(epoch):
        return "epoch", "epoch"
    return "none", ""


def _moves(index: Floats) -> bool:
    """Whether an index from the lines above names these rows: it goes up nearly always."""
    if len(index) < 2 or not np.isfinite(index).all():
        return False
    return bool(np.mean(np.diff(index) > 0) > 0.7)


def _of_table(table: Table) -> Iterable[Column]:
    rows = len(table.places)
    if not rows:
        return
    arrays = [np.array(values) for values in table.values]
    places = np.array(table.places, dtype=np.int64)
    nothing = np.full(rows, np.nan)
    kinds = [kind_of(name) for name in table.names]
    step_at = next((at for at, kind in enumerate(kinds) if kind == "step"), None)
    epoch_at = next((at for at, kind in enumerate(kinds) if kind == "epoch"), None)
    step = _present(arrays[step_at]) if step_at is not None else nothing
    epoch = _present(arrays[epoch_at]) if epoch_at is not None else nothing
    level: Level = "step" if step_at is not None else "epoch" if epoch_at is not None else "none"
    index = step if step_at is not None else epoch
    step_name = table.names[step_at if step_at is not None else epoch_at or 0]
    for at, name in enumerate(table.names):
        if kinds[at] != "noise":
            there = np.array([not is_missing(value) for value in arrays[at]], dtype=bool)
            column = Column(name, kinds[at], level, step_name, arrays[at], index, epoch, nothing, places, nothing)
            if there.any():
                yield column.chosen(there)


def _present(values: Floats) -> Floats:
    return np.array([np.nan if is_missing(value) else value for value in values])


def _joined(group: Sequence[Column]) -> Column:
    first = group[0]
    if len(group) == 1:
        return first
    place = np.concatenate([part.place for part in group])
    order = np.argsort(place, kind="stable")

    def both(arrays: Iterable[Floats]) -> Floats:
        return np.concatenate(list(arrays))[order]

    return Column(
        first.name,
        first.kind,
        first.level,
        max(group, key=len).step_name,
        both(part.value for part in group),
        both(part.step for part in group),
        both(part.epoch for part in group),
        both(part.total for part in group),
        place[order],
        both(part.rank for part in group),
        any(part.drawn for part in group),
    )
