"""Tables in print: a header that names a loss, and rows of numbers below it."""

from __future__ import annotations

import re
from array import array

from stresstest.logs.readers.text.words import is_loss, kind_of
from stresstest.logs.values import number

_RULE = re.compile(r"[\s|+\-=:─━┃│┼╇┏┓┗┛┡┩]*")
_BARS = re.compile(r"[|│┃]")
_MAX_COLUMNS = 40


class Table:
    """The columns under a header, and where their rows stood.

    A row whose last cell is longer (a progress bar behind it) is read by its first cells.
    """

    def __init__(self, names: tuple[str, ...], header: str, barred: bool) -> None:
        self.names = names
        self.header = header
        self.barred = barred
        self.values = tuple(array("d") for _ in names)
        self.places: array[int] = array("q")
        self.ended = False
        self._misses = 0

    def add(self, line: str, place: int) -> bool:
        """Keep a line that is a row of this table; False for any other."""
        if _RULE.fullmatch(line):
            return False
        cells = _cells(line, self.barred)
        numbers = [number(_plain(cell)) for cell in cells[: len(self.names)]]
        if len(cells) < len(self.names) - 1 or numbers[0] is None or sum(x is not None for x in numbers) < 2:
            self._misses += 1
            self.ended = self._misses > 50
            return False
        self._misses = 0
        for kept, value in zip(self.values, numbers, strict=False):
            kept.append(_MISSING if value is None else value)
        for kept in self.values[len(numbers) :]:
            kept.append(_MISSING)
        self.places.append(place)
        return True


# Stands for a cell that holds no number; NaN is a number that was logged.
_MISSING = -1.2345678901234567e300


def is_missing(value: float) -> bool:
    """Whether a kept value stands for an empty cell."""
    return value == _MISSING


def table_of(line: str) -> Table | None:
    """The table that a header begins; None of another line."""
    if len(line) > 1000 or not re.search("loss|rmse|gpu_mem", line, re.I):
        return None
    barred = bool(_BARS.search(line))
    names = tuple(_cells(line, barred))
    if not barred and len(names) != len(re.split(r"\s{2,}|\t", line.strip())):
        names = tuple(re.split(r"\s{2,}|\t", line.strip()))
    names = tuple(_renamed(names))
    if not 2 <= len(names) <= _MAX_COLUMNS or any(re.search(r"[=:{}()\[\]\"]", name) for name in names):
        return None
    if any(len(name.split()) > 4 for name in names) or kind_of(names[0]) not in ("step", "epoch", "batch"):
        return None
    return Table(names, line, barred) if any(is_loss(name) for name in names) else None


def _renamed(names: tuple[str, ...]) -> list[str]:
    """Names as words: spaCy's `E` and `#` are epoch and step, YOLOv5's `box` is a loss."""
    if names[:2] == ("E", "#"):
        return ["epoch", "step", *names[2:]]
    if "gpu_mem" in names:
        return [f"{name}_loss" if name in ("box", "obj", "cls") else name for name in names]
    return list(names)


def _cells(line: str, barred: bool) -> list[str]:
    if barred:
        return [cell.strip() for cell in _BARS.split(line.strip().strip("|│┃"))]
    if "\t" in line.strip():
        return [cell.strip() for cell in line.strip().split("\t")]
    return line.split()


def _plain(cell: str) -> str:
    """A cell without a total (`3/300`), a unit (`2.4G`) or a colon behind it."""
    found = re.fullmatch(r"([-+]?[\d.,]+(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf)(?:/\d+|[GMK]i?B?|:|%)?", cell, re.I)
    return found[1] if found else cell
