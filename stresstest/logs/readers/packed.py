"""Long curves kept small while they are read: four bytes a row where steps and rows are evenly spaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stresstest.logs.curve import Curve, Ints
from stresstest.logs.thinning import halved

AT_ONCE = 1 << 20  # values

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
        merged = PackedCurve(self.steps[: -self.fresh], self.rows[: -self.fresh], self.values[: -self.fresh])
        new = PackedCurve(self.steps[-self.fresh :], self.rows[-self.fresh :], self.values[-self.fresh :])
        curve = new.unpacked()
        for _ in range(self.halvings):
            curve = halved(curve)
        merged._append_curve(curve)
        whole = merged.unpacked()
        self.steps, self.rows, self.values, self.fresh = [], [], [], 0
        self._append_curve(halved(whole))
        self.fresh = 0
        self.halvings += 1

    def _append_curve(self, curve: Curve) -> None:
        if len(curve):
            self.append(curve.step.astype(np.int64), curve.value.astype(np.float32), curve.row)


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


def curves_of_packed(packed: Mapping[str, PackedCurve]) -> Mapping[str, Curve]:
    """The curves, as arrays at once where they are small."""
    if sum(map(len, packed.values())) > AT_ONCE:
        return PackedCurves(packed)
    return {name: curve.unpacked() for name, curve in packed.items()}


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
