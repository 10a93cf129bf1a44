"""Rows of named tokens, collected into curves, in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Floats, Ints
from stresstest.logs.roles import has_a_role
from stresstest.logs.thinning import Shared, merged_note
from stresstest.logs.values import number

_CELLS = 1 << 20  # numbers that are held before neighbours are merged: half a million rows of a step and a loss
_PENDING = 1 << 16  # rows held as lists before they become arrays

Bools = NDArray[np.bool_]


def curves_of(rows: Iterable[Mapping[str, object]], step_key: str | None) -> dict[str, Curve]:
    """The curves of rows; each value's step is that of its row."""
    collector = Collector(step_key)
    for row in rows:
        collector.add(row)
    return collector.curves()


@dataclass
class _Column:
    """One name's numbers: those not yet in arrays, those as they came, and those merged `halvings` times."""

    pending: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("q"))  # of the pending, in the rows not yet in arrays
    fresh: list[Curve] = field(default_factory=list)
    merged: list[Curve] = field(default_factory=list)
    halvings: int = 0

    def __len__(self) -> int:
        return len(self.pending) + sum(map(len, self.fresh)) + sum(map(len, self.merged))

    def flush(self, steps: Floats, rows: Ints) -> None:
        """Lists become arrays; those of all rows are shared."""
        if not self.pending:
            return
        values, places = np.array(self.pending), np.array(self.places, dtype=np.int64)
        whole = len(values) == len(steps)
        self.fresh.append(Curve(steps, values, rows) if whole else Curve(steps[places], values, rows[places]))
        self.pending, self.places = array("d"), array("q")

    def settle(self, shared: Shared, whole: bool = False) -> None:
        """What came since is merged as often as what came before; of an odd rest only if it is to be the `whole`."""
        if not self.halvings:
            self.merged += self.fresh
            self.fresh = []
            return
        curve = shared.joined(self.fresh)
        end = len(curve) if whole else len(curve) - len(curve) % (1 << self.halvings)
        self.fresh = [shared.part(curve, end, len(curve))] if end < len(curve) else []
        curve = shared.part(curve, 0, end)
        for _ in range(self.halvings):
            curve = shared.halved(curve)
        if len(curve):
            self.merged.append(curve)

    def halve(self, shared: Shared) -> None:
        """Twice as many rows of the log in each row."""
        self.settle(shared)
        if any(len(curve) % 2 for curve in self.merged[:-1]):
            self.merged = [shared.joined(self.merged)]
        for i, curve in enumerate(self.merged):  # in place, so that one is freed before the next is made
            self.merged[i] = shared.halved(curve)
        self.halvings += 1

    def curve(self, shared: Shared) -> Curve:
        """All of it."""
        self.settle(shared, whole=True)
        return shared.joined(self.merged)


class Collector:
    """Takes a log row by row or in chunks of columns, and gives its curves.

    Beyond `cells` numbers it keeps only the columns that play a role (a loss, a learning rate, ...), and then merges
    neighbouring rows in pairs, so that memory stays bounded; `notes` says so.
    """

    def __init__(self, step_key: str | None = None, *, cells: int = _CELLS) -> None:
        self._step_key = step_key
        self._limit = cells
        self._columns: dict[str, _Column] = {}
        self._dropped: set[str] = set()
        self._rows = 0
        self._cells = 0
        self._steps = array("d")  # of the rows that are not yet in arrays

    def add(self, row: Mapping[str, object]) -> None:
        """A row; what is missing in it or no number is left out."""
        step = number(row.get(self._step_key)) if self._step_key is not None else None
        place = len(self._steps)
        self._steps.append(float("nan") if step is None else step)
        self._rows += 1
        for key, token in row.items():
            value = number(token)
            if value is None:
                continue
            column = self._columns.get(key)
            if column is None:
                if key in self._dropped:
                    continue
                column = self._columns[key] = _Column()
            column.pending.append(value)
            column.places.append(place)
        self._cells += len(row)
        if place + 1 == _PENDING:
            self._flush()
            self._bound()

    def add_columns(
        self, columns: Mapping[str, Floats | Sequence[object]], present: Mapping[str, Bools] | None = None
    ) -> None:
        """The next rows, as columns of one length: tokens, or numbers, all there unless a mask says which."""
        self._flush()
        flags = present or {}
        parsed = {key: _numbers(tokens, flags.get(key)) for key, tokens in columns.items()}
        rows = max((len(values) for values, _ in parsed.values()), default=0)
        places = np.arange(self._rows, self._rows + rows, dtype=np.int64)
        steps = np.full(rows, np.nan)
        if self._step_key in parsed:
            values, there = parsed[self._step_key]
            steps = values if there is None else np.where(there, values, np.nan)
        self._rows += rows
        for key, (values, there) in parsed.items():
            if key in self._dropped or (there is not None and not there.any()):
                continue
            column = self._columns.setdefault(key, _Column())
            column.fresh.append(
                Curve(steps, values, places) if there is None else Curve(steps[there], values[there], places[there])
            )
            self._cells += len(column.fresh[-1])
        self._bound()

    def curves(self) -> dict[str, Curve]:
        """The curves, in the order in which their names came; nothing is left here."""
        self._flush()
        found: dict[str, Curve] = {}
        shared = Shared()
        while self._columns:
            key = next(iter(self._columns))
            found[key] = shared.like_another(self._columns.pop(key).curve(shared))
        return found

    def _flush(self) -> None:
        """Lists become arrays."""
        if not self._steps:
            return
        steps = np.array(self._steps)
        rows = np.arange(self._rows - len(steps), self._rows, dtype=np.int64)
        for column in self._columns.values():
            column.flush(steps, rows)
        self._steps = array("d")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was merged or left out because the log is large; to be asked before `curves`."""
        halvings = max((column.halvings for column in self._columns.values()), default=0)
        said = []
        if halvings:
            said.append(merged_note(1 << halvings))
        if self._dropped:
            said.append(f"the log is large: {len(self._dropped)} columns that play no known role were left out")
        return tuple(said)

    def _bound(self) -> None:
        if self._cells <= self._limit:
            return
        self._leave_out_what_plays_no_role()
        shared = Shared()
        for column in self._columns.values():
            column.settle(shared)
        if self._held() > 0.75 * self._limit:
            longest = max(map(len, self._columns.values()))
            for column in self._columns.values():
                if len(column) > longest // 4:
                    column.halve(shared)
        self._cells = self._held()

    def _held(self) -> int:
        return sum(map(len, self._columns.values()))

    def _leave_out_what_plays_no_role(self) -> None:
        kept = [key for key in self._columns if has_a_role(key)]
        if kept:
            self._dropped.update(set(self._columns) - set(kept))
            self._columns = {key: self._columns[key] for key in kept}


def _numbers(tokens: Floats | Sequence[object], present: Bools | None) -> tuple[Floats, Bools | None]:
    """Numbers of tokens, and which are there; None: all."""
    if isinstance(tokens, np.ndarray) and tokens.dtype == np.float64:
        return np.where(np.abs(tokens) >= 1.79e308, np.copysign(np.inf, tokens), tokens), present
    try:
        values = np.array(tokens, dtype=np.float64) if not _is_text(tokens) else np.array(tokens).astype(np.float64)
        return _numbers(values, present)
    except (ValueError, TypeError, OverflowError):
        found = [number(token) for token in tokens]
        there = np.array([value is not None for value in found], dtype=bool)
        values = np.array([0.0 if value is None else value for value in found])
        return values, there if present is None else there & present


def _is_text(tokens: Floats | Sequence[object]) -> bool:
    return len(tokens) > 0 and isinstance(tokens[0], str)
