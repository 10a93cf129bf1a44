"""`cells.jsonl` of a run directory: a line for each finished cell, sealed with a checksum.

A line of an earlier version has none and is read as it is. A cell names the checksum of its curves' file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stresstest.results.sums import DamagedError, digest, seal, unseal

if TYPE_CHECKING:
    from stresstest.results.records import Cell

NAME = "cells.jsonl"
_START = re.compile(rb'\{"key":"([^"\\]+)",.*?"seed":\d+,"status":"(\w+)"')  # of a cell's line, as it is written


class ForeignCellError(Exception):
    """Why a line is not a cell of this version."""


@dataclass
class CellLines:
    """What a file holds: the cells by key, the later line of one counting, and what is wrong with it.

    whole: the lines that are kept. damaged: those that are not what was written, by their number. cut: bytes at the
    end that a crash left of a line.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    whole: list[bytes] = field(default_factory=list)
    damaged: dict[int, bytes] = field(default_factory=dict)
    cut: int = 0


@dataclass
class Condition:
    """What can be told of a file without reading its cells.

    statuses: of each cell, by key, the later line counting. damaged: the numbers of lines that are not what was
    written. unsealed: lines of an earlier version, which have no checksum.
    """

    statuses: dict[str, str] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    unsealed: int = 0


def line_of(cell: Cell) -> bytes:
    """The line of a cell."""
    return seal(cell.model_dump_json().encode())


def cell_of(line: bytes) -> Cell:
    """The cell of a line; a `DamagedError` or a `ForeignCellError` where it is none."""
    from pydantic import ValidationError  # `status` reads no cell, and does without both

    from stresstest.results.cell import Cell

    try:
        cell = Cell.model_validate_json(unseal(line)[0])
    except ValidationError as error:
        raise ForeignCellError(error.errors()[0]["msg"]) from None
    if Path(cell.key).name != cell.key or cell.key.startswith("."):  # its files are named by it
        raise ForeignCellError("its key is the name of no file")
    return cell


def read_cells(folder: Path, check_curves: bool = True) -> CellLines:
    """All cells of a run directory. A line of another version is a `ForeignCellError` that begins with its number."""
    found = CellLines()
    for number, line, state in _judged(folder):
        try:
            cell = cell_of(line) if state != "damaged" else None
        except (DamagedError, ForeignCellError) as error:
            if state != "partial":
                raise ForeignCellError(f"{number} is not a cell of this version ({error})") from None
            found.cut = len(line)
            continue
        if cell is None or (check_curves and not curves_fit(folder, cell)):
            found.damaged[number] = line
        else:
            found.whole.append(line)
            found.cells[cell.key] = cell
    return found


def condition(folder: Path) -> Condition:
    """What can be told of a run directory's cells without reading them."""
    found = Condition()
    for number, line, state in _judged(folder):
        start = _START.match(line)
        if state == "damaged":
            found.damaged.append(number)
        elif start and line.endswith(b"}\n"):
            found.statuses[start[1].decode()] = start[2].decode()
            found.unsealed += state == "unsealed"
    return found


def whole_lines(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, status, line) of each line that is what was written."""
    for _, line, state in _judged(folder):
        start = _START.match(line)
        if start and state in ("sealed", "unsealed") and line.endswith(b"}\n"):
            yield start[1].decode(), start[2].decode(), line


def curves_fit(folder: Path, cell: Cell) -> bool:
    """Whether the curves of a cell, if they are there, are what was written; of an older cell that is not known."""
    path = folder / "curves" / f"{cell.key}.npz"
    return not cell.curves_sum or not path.is_file() or digest(path.read_bytes()) == cell.curves_sum


def _judged(folder: Path) -> Iterator[tuple[int, bytes, Literal["sealed", "unsealed", "damaged", "partial"]]]:
    """Each line with its number: a partial one is the last, which is being written or was cut short.

    Where some are sealed, one that is not is of an earlier version, or was sealed once and is damaged.
    """
    try:
        lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    except OSError:
        return
    some_sealed = any(b'"sum":"' in line for line in lines)
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            yield number, line, "partial"
            continue
        try:
            sealed = unseal(line)[1]
            if not sealed and some_sealed:
                cell_of(line)
        except (DamagedError, ForeignCellError):
            yield number, line, "damaged"
        else:
            yield number, line, "sealed" if sealed else "unsealed"
