"""Rows of numbers of one width, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stresstest.logs.curve import Curve, Floats, Ints
from stresstest.logs.thinning import halved

_CHUNK = 8192  # rows held as lists before they become an array
_CELLS = 5 << 18  # numbers held before neighbouring rows are merged


class Rows:
    """Rows as they come, with the place of each in the log.

    Beyond `cells` numbers neighbouring rows are merged in pairs, again and again: `measured` columns as `halved` merges
    them, the others (indices) as the second of the pair has them. step_at: the column in which going back separates.
    """

    def __init__(self, measured: Sequence[int], step_at: int | None, cells: int = _CELLS) -> None:
        self.halvings = 0
        self.seen = 0
        self._measured = tuple(measured)
        self._step_at = step_at
        self._cells = cells
        self._pending: list[list[float]] = []
        self._pending_places: list[int] = []
        self._blocks: list[Floats] = []
        self._places: list[Ints] = []
        self._held = 0

    def add(self, row: list[float], place: int) -> None:
        """The next row; all have one width."""
        self._pending.append(row)
        self._pending_places.append(place)
        if len(self._pending) >= _CHUNK:
            self._settle()

    def __len__(self) -> int:
        return self.seen + len(self._pending)

    def table(self) -> tuple[Floats, Ints]:
        """All rows, [n, width], and their places, [n]."""
        self._settle()
        if not self._blocks:
            return np.empty((0, 0)), np.empty(0, dtype=np.int64)
        self._blocks, self._places = [np.concatenate(self._blocks)], [np.concatenate(self._places)]
        return self._blocks[0], self._places[0]

    def _settle(self) -> None:
        if not self._pending:
            return
        block, places = np.array(self._pending), np.array(self._pending_places, dtype=np.int64)
        self.seen += len(block)
        self._pending, self._pending_places = [], []
        for _ in range(self.halvings):
            block, places = self._halved(block, places)
        self._keep(block, places)
        if self._held > self._cells:
            block, places = self._halved(*self.table())
            self._blocks, self._places, self._held = [], [], 0
            self._keep(block, places)
            self.halvings += 1

    def _keep(self, block: Floats, places: Ints) -> None:
        self._blocks.append(block)
        self._places.append(places)
        self._held += block.size

    def _halved(self, block: Floats, places: Ints) -> tuple[Floats, Ints]:
        order = np.arange(len(block), dtype=np.int64)
        steps = order.astype(float) if self._step_at is None else block[:, self._step_at]
        curves = {column: halved(Curve(steps, block[:, column], order)) for column in self._measured}
        kept = np.minimum.reduce(
            [halved(Curve(steps, order.astype(float), order)).row, *(curve.row for curve in curves.values())]
        )
        merged = block[kept]
        for column, curve in curves.items():
            merged[:, column] = curve.value
        return merged, places[kept]
