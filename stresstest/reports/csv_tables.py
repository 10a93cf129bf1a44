"""Tables as CSV: RFC 4180 with Unix line ends, in UTF-8, every number to its last digit.

A spreadsheet takes a text that begins with = + - @ for a formula, and runs it. Such a text gets an apostrophe before
it, as does one that begins with an apostrophe: whoever takes one apostrophe away has the text again. Numbers are never
touched, nor is what begins with anything else.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

from stresstest.reports.output import Tables

_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20'")  # the wide ones count where Asian scripts are written


def write(tables: Tables, folder: Path) -> None:
    """Write `NAME.csv` for each table."""
    for name, columns in tables.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(_UnixLines(file), lineterminator="\r\n")
            lines.writerow(map(harmless, columns))
            lines.writerows(zip(*map(_written, columns.values()), strict=True))


class _UnixLines:
    """Lines that end with a newline alone: `csv` quotes a carriage return only where one ends the lines."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        """Write one line."""
        self._file.write(line.removesuffix("\r\n") + "\n")


@lru_cache(maxsize=4096)
def harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _written(values: Sequence[Any]) -> Iterable[Any]:
    """The fields of a column: none is empty, truth is true or false; numbers are written as `repr` has them."""
    return values if all(type(value) in (float, int) for value in values) else map(_field, values)


def _field(value: Any) -> Any:
    if isinstance(value, str):
        return harmless(value)
    return str(value).lower() if isinstance(value, bool) else value
