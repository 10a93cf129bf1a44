"""`cells.jsonl` of a run directory: a line for each finished cell, sealed with a checksum.

A line of an earlier version has none and is read as it is. A cell names the checksum of its curves' file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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

    whole: the lines that are kept. damaged: those that are not what was written, by their number. unsealed: how many
    have no checksum. cut: bytes at the end that a crash left of a line.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    whole: list[bytes] = field(default_factory=list)
    damaged: dict[int, bytes] = field(default_factory=dict)
    unsealed: int = 0
    cut: int = 0


def line_of(cell: Cell) -> bytes:
    """The line of a cell."""
    return seal(cell.model_dump_json().encode())


def cell_of(line: bytes) -> tuple[Cell, bool]:
    """The cell of a line, and whether it was sealed; a `DamagedError` or a `ForeignCellError` where it is none."""
    from pydantic import ValidationError  # `status` reads no cell, and does without both

    from stresstest.results.cell import Cell

    record, sealed = unseal(line)
    try:
        return Cell.model_validate_json(record), sealed
    except ValidationError as error:
        raise ForeignCellError(error.errors()[0]["msg"]) from None


def read_cells(folder: Path, check_curves: bool = True) -> CellLines:
    """All cells of a run directory. A line of another version is a `ForeignCellError` that begins with its number."""
    found = CellLines()
    lines = _lines(folder)
    sealed_file = _some_sealed(lines)
    for number, line in enumerate(lines, start=1):
        try:
            cell, sealed = cell_of(line)
            if check_curves and not curves_fit(folder, cell):
                raise DamagedError("its curves are not those that were written")
        except DamagedError:
            found.damaged[number] = line
            continue
        except ForeignCellError as error:
            if number == len(lines) and not line.endswith(b"\n"):
                found.cut = len(line)
            elif sealed_file and not _is_sealed(line):
                found.damaged[number] = line
            else:
                raise ForeignCellError(f"{number} is not a cell of this version ({error})") from None
            continue
        found.unsealed += not sealed
        found.whole.append(line)
        found.cells[cell.key] = cell
    return found


def whole_lines(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, status, line) of each line that is what was written, without reading the rest of it."""
    for _, line, state in _judged(folder):
        start = _START.match(line)
        if start and state in ("sealed", "unsealed"):
            yield start[1].decode(), start[2].decode(), line


def damaged_lines(folder: Path) -> list[int]:
    """The numbers of the lines that are not what was written."""
    return [number for number, _, state in _judged(folder) if state == "damaged"]


def unsealed_lines(folder: Path) -> int:
    """How many lines an earlier version wrote, without a checksum."""
    return sum(state == "unsealed" for _, _, state in _judged(folder))


def _judged(folder: Path) -> Iterator[tuple[int, bytes, Literal["sealed", "unsealed", "damaged", "partial"]]]:
    """Each line with its number: a partial one is the last, which is being written or was cut short."""
    lines = _lines(folder)
    sealed_file = _some_sealed(lines)
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"}\n") and number == len(lines):
            yield number, line, "partial"
            continue
        try:
            sealed = unseal(line)[1]
            if not sealed and sealed_file:
                cell_of(line)  # of an earlier version, or sealed once
        except (DamagedError, ForeignCellError):
            yield number, line, "damaged"
        else:
            yield number, line, "sealed" if sealed else "unsealed"


def curves_fit(folder: Path, cell: Cell) -> bool:
    """Whether the curves of a cell, if they are there, are what was written; of an older cell that is not known."""
    path = folder / "curves" / f"{cell.key}.npz"
    return not cell.curves_sum or not path.is_file() or digest(path.read_bytes()) == cell.curves_sum


def is_whole(folder: Path, line: bytes) -> bool:
    """Whether a line is a cell of this version, with curves that fit."""
    try:
        return curves_fit(folder, cell_of(line)[0])
    except (DamagedError, ForeignCellError):
        return False


def _is_sealed(line: bytes) -> bool:
    try:
        return unseal(line)[1]
    except DamagedError:
        return False


def _some_sealed(lines: Sequence[bytes]) -> bool:
    """Whether a version that seals its lines has written some of them."""
    return any(b'"sum":"' in line for line in lines)


def _lines(folder: Path) -> list[bytes]:
    try:
        return (folder / NAME).read_bytes().splitlines(keepends=True)
    except OSError:
        return []
