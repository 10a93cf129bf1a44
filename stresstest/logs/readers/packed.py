"""Long curves kept small while they are read: four bytes a row where steps and rows are evenly spaced."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Ints
from stresstest.logs.thinning import halved, merged_note

_BLOCK = 1 << 16  # rows that are merged at once; even
_AT_ONCE = 1 << 19  # values of all curves that are held as arrays
_LONGEST = 1 << 18  # rows of a curve before neighbours are merged
_HELD = 1 << 20  # values of all curves before the longest are merged

Integers = range | NDArray[np.int32] | Ints


@dataclass
class PackedCurve:
    """One curve that grows by pieces; steps and rows are whole numbers. Each row stands for 2^halvings of the log's."""

    steps: list[Integers] = field(default_factory=list)
    rows: list[Integers] = field(default_factory=list)
    values: list[NDArray[np.floating]] = field(default_factory=list)
    halvings: int = 0
    fresh: int = 0  # pieces that are not merged yet

    def append(self, steps: Ints, values: NDArray[np.floating], rows: Ints) -> None:
        """Add rows, all [n]."""
        self.steps.append(_packed(steps))
        self.rows.append(_packed(rows))
        self.values.append(values)
        self.fresh += 1

    def __len__(self) -> int:
        return sum(map(len, self.values))

    def unpacked(self) -> Curve:
        """The curve as arrays."""
        value = np.concatenate([piece.astype(np.float64) for piece in self.values])
        return Curve(_joined(self.steps).astype(np.float64), value, _joined(self.rows))

    def halve(self) -> None:
        """Merge neighbours in pairs, those that came since the last time as often as the others."""
        kind = np.result_type(*self.values)
        old = len(self.values) - self.fresh
        merged = PackedCurve(self.steps[:old], self.rows[:old], self.values[:old])
        if self.fresh:
            curve = PackedCurve(self.steps[old:], self.rows[old:], self.values[old:]).unpacked()
            for _ in range(self.halvings):
                curve = halved(curve)
            merged._append_curve(curve, kind)
        whole = merged.unpacked()
        self.steps, self.rows, self.values = [], [], []
        for start in range(0, len(whole), _BLOCK):
            part = slice(start, start + _BLOCK)
            self._append_curve(halved(Curve(whole.step[part], whole.value[part], whole.row[part])), kind)
        self.fresh = 0
        self.halvings += 1

    def _append_curve(self, curve: Curve, kind: np.dtype[np.floating]) -> None:
        if len(curve):
            self.append(curve.step.astype(np.int64), curve.value.astype(kind), curve.row)


@dataclass
class PackedLog:
    """Curves by name while a log is read; the longest are merged where all of them take too much memory."""

    curves: dict[str, PackedCurve] = field(default_factory=dict)
    any_step: bool = False
    taken: int = 0  # values that were added

    def append(self, name: str, steps: Ints, values: NDArray[np.floating], rows: Ints) -> None:
        """Add rows to a curve, all [n]."""
        self.any_step = self.any_step or bool(steps.any())
        self.taken += len(values)
        self.curves.setdefault(name, PackedCurve()).append(steps, values, rows)

    def __len__(self) -> int:
        return sum(map(len, self.curves.values()))

    def bound(self) -> None:
        """Merge neighbours where there are too many."""
        for curve in self.curves.values():
            if len(curve) > _LONGEST:
                curve.halve()
        if len(self) > _HELD:
            longest = max(map(len, self.curves.values()))
            for curve in self.curves.values():
                if len(curve) > longest // 2:
                    curve.halve()

    def keep_below(self, step: int, names: Collection[str]) -> int:
        """Drop the rows of these curves at a step and after it; returns how many."""
        dropped = 0
        for name, packed in [(name, self.curves[name]) for name in names if name in self.curves]:
            curve = packed.unpacked()
            kept = curve.step < step
            dropped += int((~kept).sum())
            del self.curves[name]
            if kept.any():
                self.curves[name] = PackedCurve(halvings=packed.halvings)
                values = curve.value[kept].astype(np.result_type(*packed.values))
                self.curves[name].append(curve.step[kept].astype(np.int64), values, curve.row[kept])
                self.curves[name].fresh = 0
        return dropped

    def unpacked(self) -> Mapping[str, Curve]:
        """The curves, as arrays at once where they are small; without steps where all are 0."""
        if len(self) > _AT_ONCE and self.any_step:
            return PackedCurves(self.curves)
        curves = {name: curve.unpacked() for name, curve in self.curves.items()}
        return curves if self.any_step else {name: _without_steps(curve) for name, curve in curves.items()}

    def notes(self) -> list[str]:
        """What was merged, and whether there are steps."""
        notes = []
        merged = 1 << max((curve.halvings for curve in self.curves.values()), default=0)
        if merged > 1:
            notes.append(merged_note(merged, at_most=True))
        if not self.any_step and max(map(len, self.curves.values()), default=0) > 1:
            notes.append("every step is 0, so none was given to the writer: rows are counted instead")
        return notes


class PackedCurves(Mapping[str, Curve]):
    """Curves by name, each made when it is asked for."""

    def __init__(self, packed: Mapping[str, PackedCurve]) -> None:
        self._packed = packed

    def __getitem__(self, name: str) -> Curve:
        return self._packed[name].unpacked()

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def _without_steps(curve: Curve) -> Curve:
    return Curve(np.full(len(curve), np.nan), curve.value, curve.row) if len(curve) > 1 else curve


def _packed(numbers: Ints) -> Integers:
    first, last = int(numbers[0]), int(numbers[-1])
    stride = int(numbers[1]) - first if len(numbers) > 1 else 1
    if stride and last - first == stride * (len(numbers) - 1) and (np.diff(numbers) == stride).all():
        return range(first, last + (1 if stride > 0 else -1), stride)
    limit = np.iinfo(np.int32)
    fits = limit.min <= numbers.min() and numbers.max() <= limit.max
    return numbers.astype(np.int32) if fits else numbers


def _joined(pieces: list[Integers]) -> Ints:
    arrays = [
        np.arange(piece.start, piece.stop, piece.step) if isinstance(piece, range) else piece.astype(np.int64)
        for piece in pieces
    ]
    return np.concatenate(arrays).astype(np.int64, copy=False)
