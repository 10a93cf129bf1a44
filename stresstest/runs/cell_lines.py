"""`cells.jsonl` of a run directory: a line for each finished cell, sealed with a checksum.

A line of an earlier version has none and is read as it is. A cell names the checksum of its curves' file.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stresstest.errors import ConfigError
from stresstest.results.sums import DamagedError, digest, seal, unseal

if TYPE_CHECKING:
    from stresstest.results.records import Cell

NAME = "cells.jsonl"
_MANY = 10_000  # cells
_PIECE = 1 << 16  # bytes, more than most curves take
_FILE_NAME = re.compile(r"[^./\0][^/\0]{0,199}")
_START = re.compile(rb'\{"key":"([^"\\]+)",.*?"seed":\d+,"status":"(\w+)"')  # of a cell's line, as it is written


class ForeignCellError(Exception):
    """Why a line is not a cell of this version."""


@dataclass
class CellLines:
    """What a file holds: the cells by key, the later line of one counting, and what is wrong with it.

    damaged: the lines that are not what was written, by their number. cut: bytes at the end that a crash left of a
    line. ends: whether the last line that is kept has its end.
    """

    cells: dict[str, Cell] = field(default_factory=dict)
    damaged: dict[int, bytes] = field(default_factory=dict)
    cut: int = 0
    ends: bool = True


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
    return _cell_of(unseal(line)[0])


def _cell_of(record: bytes) -> Cell:
    """The cell of a line without its seal."""
    from pydantic import ValidationError  # `status` reads no cell, and does without both

    from stresstest.results.cell import Cell

    try:
        cell = Cell.model_validate_json(record)
    except ValidationError as error:
        raise ForeignCellError(error.errors()[0]["msg"]) from None
    if not _FILE_NAME.fullmatch(cell.key):  # its files are named by it
        raise ForeignCellError("its key is the name of no file")
    return cell


def read_cells(folder: Path, check_curves: bool = True) -> CellLines:
    """All cells of a run directory. A line of another version is a `ForeignCellError` that begins with its number."""
    found = CellLines()
    with _without_collector(found):
        _read_cells(folder, check_curves, found)
    return found


def _read_cells(folder: Path, check_curves: bool, found: CellLines) -> None:
    for number, line, record, state in _judged(folder):
        try:
            cell = None if state == "damaged" else cell_of(line) if state == "partial" else _cell_of(record)
        except (DamagedError, ForeignCellError) as error:
            if state != "partial":
                raise ForeignCellError(f"{number} is not a cell of this version ({error})") from None
            found.cut = len(line)
            continue
        if cell is None or (check_curves and not curves_fit(folder, cell)):
            found.damaged[number] = line
        else:
            found.ends = line.endswith(b"\n")
            found.cells[cell.key] = cell


@contextlib.contextmanager
def _without_collector(found: CellLines) -> Iterator[None]:
    """Cells have no cycles, and looking for some in ever more of them takes a third of the time of reading.

    Of very many none is looked for later either.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
        if len(found.cells) > _MANY:
            gc.freeze()
    finally:
        if before:
            gc.enable()


def condition(folder: Path) -> Condition:
    """What can be told of a run directory's cells without reading them."""
    found = Condition()
    for number, line, _, state in _judged(folder):
        start = _START.match(line)
        if state == "damaged":
            found.damaged.append(number)
        elif start and line.endswith(b"}\n"):
            found.statuses[start[1].decode()] = start[2].decode()
            found.unsealed += state == "unsealed"
    return found


def whole_lines(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """(key, status, line) of each line that is what was written."""
    for _, line, _, state in _judged(folder):
        start = _START.match(line)
        if start and state in ("sealed", "unsealed") and line.endswith(b"}\n"):
            yield start[1].decode(), start[2].decode(), line


def kept_lines(folder: Path, found: CellLines) -> Iterator[bytes]:
    """The lines that are neither damaged nor cut short, each with its end."""
    with (folder / NAME).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number not in found.damaged and (line.endswith(b"\n") or not found.cut):
                yield line.rstrip(b"\n") + b"\n"


def curves_fit(folder: Path, cell: Cell) -> bool:
    """Whether the curves of a cell, if they are there, are what was written; of an older cell that is not known."""
    if not cell.curves_sum:
        return True
    try:
        file = os.open(f"{folder}/curves/{cell.key}.npz", os.O_RDONLY)  # of very many files: half the time of open()
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        return digest(b"".join(iter(lambda: os.read(file, _PIECE), b""))) == cell.curves_sum
    except IsADirectoryError:
        return True
    finally:
        os.close(file)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be read any more ({error.strerror or error}); it was not changed") from None


def _judged(folder: Path) -> Iterator[tuple[int, bytes, bytes, Literal["sealed", "unsealed", "damaged", "partial"]]]:
    """Each line with its number and what it seals: a partial one is the last, which is being written or was cut short.

    Where some are sealed, one that is not is of an earlier version, or was sealed once and is damaged.
    """
    try:
        file = (folder / NAME).open("rb")
    except OSError:
        return
    with file, _readable(folder / NAME):
        some_sealed = any(b'"sum":"' in line for line in file)
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                yield number, line, line, "partial"
                return  # what a driver may append by now is not its end
            try:
                record, sealed = unseal(line)
                if not sealed and some_sealed:
                    _cell_of(record)
            except (DamagedError, ForeignCellError):
                yield number, line, line, "damaged"
            else:
                yield number, line, record, "sealed" if sealed else "unsealed"
