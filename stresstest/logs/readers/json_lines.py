"""One JSON object a line: detectron2, mmengine, LLaMA-Factory, W&B histories, one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.assembly import Columns
from stresstest.logs.readers.damage import ConflictFilter, Damage
from stresstest.logs.readers.json_rows import Row, block_of, flat
from stresstest.logs.readers.known import recognised
from stresstest.logs.values import number

_BLOCK = 1 << 13
_TRIED = 50
_DECODER = json.JSONDecoder()
_BRACKETS = frozenset({"[", "]", "],", "{", "}", "},"})


class JsonLines:
    """Each line is a row, whatever stands before its object."""

    name = "JSON lines"
    reads = "JSON lines: detectron2, mmengine, LLaMA-Factory, W&B histories, and any with a step and a loss"

    def fits(self, file: LogFile) -> bool:
        """At least half of the first lines hold an object with a number in it."""
        first = file.head_text.split("\n")[:_TRIED]
        if [line.strip()[:1] for line in first if line.strip()][:2] == ["{", '"'] and first[0].strip() == "{":
            return False  # a document whose names begin on the second line
        lines = [line for line in first if _may_hold(line)]
        found = [row for line in lines if (row := _row(line)) is not None and _has_number(row)]
        if len(lines) == 1:  # else it is a document in one line
            return len(found) == 1 and not any(isinstance(value, list | dict) for value in found[0].values())
        return bool(found) and len(found) * 2 >= len(lines)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        damage = Damage()
        columns: Columns | None = None
        names: dict[str, None] = {}
        rows_read = 0
        for rows in _blocks(file, damage):
            block = block_of(rows)
            if columns is None:
                known = recognised(list(block), of_csv=False)
                columns = Columns(list(block), None if known is None else known.step)
            columns.add(block)
            names.update(dict.fromkeys(block))
            rows_read += len(rows)
        if columns is None or damage.malformed > rows_read:
            raise ConfigError(
                f"{file.shown}: {damage.malformed} of {damage.malformed + rows_read} lines hold no JSON object"
            )
        yield columns.log(self.name, recognised(list(names), of_csv=False), notes=damage.notes())


def _blocks(file: LogFile, damage: Damage) -> Iterator[list[Row]]:
    lines = file.lines()
    without_marks = ConflictFilter(damage)
    first = 1
    block = list(islice(lines, _BLOCK))
    while block:
        following = list(islice(lines, _BLOCK))
        rows = _rows(without_marks(block), damage, first, last=not following)
        if rows:
            yield rows
        first += len(block)
        block = following


def _rows(lines: Sequence[str], damage: Damage, first: int, last: bool) -> list[Row]:
    """The rows of a block; of a clean one at once, since a call for each line costs more than its numbers."""
    text = ",".join(lines)
    try:
        rows = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        rows = None
    if rows is None or len(rows) != len(lines) or set(map(type, rows)) != {dict}:
        rows = _one_by_one(lines, damage, first, last)
    opened = text.count("{") > len(rows) or '"value"' in text
    return flat(rows) if opened else rows


def _one_by_one(lines: Sequence[str], damage: Damage, first: int, last: bool) -> list[Row]:
    rows = []
    for place, line in enumerate(lines):
        row = _row(line) if _may_hold(line) else None
        if row is not None:
            rows.append(row)
        elif _may_hold(line):
            if last and place == len(lines) - 1 and "{" in line:
                damage.cut = True
            else:
                damage.malformed += 1
                damage.example = damage.example or first + place
    return rows


def _may_hold(line: str) -> bool:
    text = line.strip()
    return bool(text) and text not in _BRACKETS and not text.startswith(("<<<<<<<", "=======", ">>>>>>>", "|||||||"))


def _row(line: str) -> Row | None:
    """The one object in a line, also behind a prefix; None without one."""
    at = line.find("{")
    if at < 0:
        return None
    try:
        row, end = _DECODER.raw_decode(line, at)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and "{" not in line[end:] else None


def _has_number(row: Row) -> bool:
    return any(number(value) is not None or isinstance(value, dict) for value in row.values())
