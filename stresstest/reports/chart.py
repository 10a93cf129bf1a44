"""A small chart of dots in text: eight dots a character in braille, one in ASCII."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

# Bit of each dot in a braille cell, by column and row from the top (Unicode 2800 block).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))

Points = Sequence[tuple[float, float]]


def line_chart(
    points: Points, width: int, height: int, low: float, high: float, ends: tuple[float, float], ascii_only: bool
) -> list[str]:
    """`height` lines of `width` characters: y from `low` to `high`, x logarithmic between `ends`.

    Neighbouring points are joined, so that a jump stays visible; y is clipped to its range.
    """
    across, down = (1, 1) if ascii_only else (2, 4)
    columns, rows = width * across, height * down
    cells = [[0] * width for _ in range(height)]
    for column, row in _dots(points, columns, rows, low, high, ends):
        cells[row // down][column // across] |= 1 if ascii_only else _BITS[column % 2][row % 4]
    if ascii_only:
        return ["".join("*" if cell else " " for cell in line) for line in cells]
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in line) for line in cells]


def place(lr: float, width: int, ends: tuple[float, float]) -> int:
    """The column of a learning rate on the logarithmic axis."""
    share = math.log(lr / ends[0]) / math.log(ends[1] / ends[0])
    return min(width - 1, max(0, round(share * (width - 1))))


def _dots(
    points: Points, columns: int, rows: int, low: float, high: float, ends: tuple[float, float]
) -> Iterable[tuple[int, int]]:
    span = (high - low) or 1.0
    previous: int | None = None
    last_column = -1
    for lr, loss in points:
        column = place(lr, columns, ends)
        share = min(1.0, max(0.0, (loss - low) / span))
        row = round((1.0 - share) * (rows - 1))
        for between in range(last_column + 1, column):
            if previous is not None:
                yield between, previous
        for y in range(
            min(row, row if previous is None else previous), max(row, row if previous is None else previous) + 1
        ):
            yield column, y
        previous, last_column = row, column
