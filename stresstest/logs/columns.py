"""Rows of named tokens, collected into curves, in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Floats
from stresstest.logs.roles import has_a_role
from stresstest.logs.thinning import halved
from stresstest.logs.values import number

_CELLS = 3 << 20  # numbers that are held before neighbours are merged: 1 million rows of 3 columns
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
    steps: array[float] = field(default_factory=lambda: array("d"))
    rows: array[int] = field(default_factory=lambda: array("q"))
    fresh: list[Curve] = field(default_factory=list)
    merged: list[Curve] = field(default_factory=list)
    halvings: int = 0

    def __len__(self) -> int:
        return len(self.pending) + sum(map(len, self.fresh)) + sum(map(len, self.merged))

    def flush(self) -> None:
        """Lists become arrays."""
        if self.pending:
            self.fresh.append(Curve(np.array(self.steps), np.array(self.pending), np.array(self.rows, dtype=np.int64)))
            self.pending, self.steps, self.rows = array("d"), array("d"), array("q")

    def settle(self, whole: bool = False) -> None:
        """What came since is merged as often as what came before; of an odd rest only if it is to be the `whole`."""
        self.flush()
        curve = _joined(self.fresh)
        end = len(curve) if whole else len(curve) - len(curve) % (1 << self.halvings)
        self.fresh = [_part(curve, end, len(curve))] if end < len(curve) else []
        curve = _part(curve, 0, end)
        for _ in range(self.halvings):
            curve = halved(curve)
        if len(curve):
            self.merged.append(curve)

    def halve(self) -> None:
        """Twice as many rows of the log in each row."""
        self.settle()
        self.merged = [halved(_joined(self.merged))]
        self.halvings += 1

    def curve(self) -> Curve:
        """All of it."""
        self.settle(whole=True)
        return _joined(self.merged)


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

    def add(self, row: Mapping[str, object]) -> None:
        """A row; what is missing in it or no number is left out."""
        place = self._rows
        self._rows += 1
        step = number(row.get(self._step_key)) if self._step_key is not None else None
        at = float("nan") if step is None else step
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
            column.steps.append(at)
            column.rows.append(place)
        self._cells += len(row)
        if self._rows % _PENDING == 0:
            self._bound()

    def add_columns(
        self, columns: Mapping[str, Floats | Sequence[object]], present: Mapping[str, Bools] | None = None
    ) -> None:
        """The next rows, as columns of one length: tokens, or numbers, all there unless a mask says which."""
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
            column.flush()
            column.fresh.append(
                Curve(steps, values, places) if there is None else Curve(steps[there], values[there], places[there])
            )
            self._cells += len(column.fresh[-1])
        self._bound()

    def curves(self) -> dict[str, Curve]:
        """The curves, in the order in which their names came; nothing is left here."""
        found: dict[str, Curve] = {}
        while self._columns:
            key = next(iter(self._columns))
            found[key] = _sharing(self._columns.pop(key).curve(), next(iter(found.values()), None))
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What was merged or left out because the log is large; to be asked before `curves`."""
        halvings = max((column.halvings for column in self._columns.values()), default=0)
        said = []
        if halvings:
            said.append(f"the log is large: {1 << halvings} rows each were merged into one, rises within them kept")
        if self._dropped:
            said.append(f"the log is large: {len(self._dropped)} columns that play no known role were left out")
        return tuple(said)

    def _bound(self) -> None:
        if self._cells <= self._limit:
            return
        self._leave_out_what_plays_no_role()
        for column in self._columns.values():
            column.settle()
        if self._held() > self._limit // 2:
            longest = max(map(len, self._columns.values()))
            for column in self._columns.values():
                if len(column) > longest // 4:
                    column.halve()
        self._cells = self._held()

    def _held(self) -> int:
        return sum(map(len, self._columns.values()))

    def _leave_out_what_plays_no_role(self) -> None:
        kept = [key for key in self._columns if has_a_role(key)]
        if kept:
            self._dropped.update(set(self._columns) - set(kept))
            self._columns = {key: self._columns[key] for key in kept}


def _joined(curves: list[Curve]) -> Curve:
    if len(curves) == 1:
        return curves[0]
    if not curves:
        return Curve(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))
    return Curve(
        np.concatenate([curve.step for curve in curves]),
        np.concatenate([curve.value for curve in curves]),
        np.concatenate([curve.row for curve in curves]),
    )


def _part(curve: Curve, start: int, end: int) -> Curve:
    if start == 0 and end == len(curve):
        return curve
    return Curve(curve.step[start:end], curve.value[start:end], curve.row[start:end])


def _sharing(curve: Curve, other: Curve | None) -> Curve:
    """Two curves of the same rows hold one array of steps and one of rows."""
    if other is not None and len(other) == len(curve) and np.array_equal(other.row, curve.row):
        return Curve(other.step, curve.value, other.row)
    return curve


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
