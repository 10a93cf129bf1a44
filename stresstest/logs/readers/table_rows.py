"""The rows of a table in blocks of columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat

from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.logs.readers.damage import ConflictFilter, Damage
from stresstest.logs.readers.dialect import Dialect, is_header, is_row

_BLOCK = 1 << 13  # lines that are taken apart at once
_DIGITS = frozenset("0123456789")
_ODD = frozenset('#%/<=>|:-+ \t"')


@dataclass
class TableRows:
    """A table's rows; iterate over `blocks` once, then `damage` says what was left out."""

    file: LogFile
    dialect: Dialect
    damage: Damage = field(default_factory=Damage)

    def __post_init__(self) -> None:
        self._header = self.dialect.header
        self._seen_header = self.dialect.header_line is None

    def blocks(self) -> Iterator[dict[str, Sequence[str]]]:
        """Rows as columns by name; below another header begins another block."""
        lines = self.file.lines()
        start = 0 if self.dialect.header_line is None else self.dialect.header_line
        for _ in islice(lines, start):
            pass
        without_marks = ConflictFilter(self.damage)
        block = list(islice(lines, _BLOCK))
        while block:
            following = list(islice(lines, _BLOCK))
            lines_of_block = without_marks(block)
            plain = self._plain(lines_of_block)
            if plain is not None:
                yield plain
            else:
                for header, rows in self._tables(self._fields(lines_of_block), last=not following):
                    yield dict(zip(header, zip(*rows, strict=True), strict=True))
            block = following

    def _plain(self, lines: Sequence[str]) -> dict[str, Sequence[str]] | None:
        """The columns of lines that all begin with a digit and have every field; None if one does not."""
        delimiter, width = self.dialect.delimiter, len(self._header)
        if delimiter is None or not self._seen_header or not {line[:1] for line in lines} <= _DIGITS:
            return None
        if set(map(str.count, lines, repeat(delimiter))) != {width - 1}:
            return None
        text = delimiter.join(lines)
        if '"' in text:
            return None
        tokens = text.split(delimiter)
        return {name: tokens[place::width] for place, name in enumerate(self._header)}

    def _fields(self, lines: Sequence[str]) -> list[list[str]]:
        delimiter = self.dialect.delimiter
        if any(line[:1] in _ODD for line in lines):
            lines = [line for line in lines if is_row(line)]
        if delimiter is None or delimiter == "|":
            return [self.dialect.split(line) for line in lines]
        if any('"' in line for line in lines):
            try:
                return [row for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row]
            except csv.Error as error:
                raise ConfigError(f"{self.file.shown}: a quoted field of this table never ends ({error})") from error
        return [line.split(delimiter) for line in lines if line]

    def _tables(self, rows: list[list[str]], last: bool) -> Iterator[tuple[tuple[str, ...], list[list[str]]]]:
        """The rows of each header in them, each as long as its header."""
        begin = 0
        if not self._seen_header and rows:
            self._seen_header = True
            begin = 1
        for place in [place for place, row in enumerate(rows) if place >= begin and self._is_header(row)]:
            yield from self._even(rows[begin:place], last=False)
            self._header = self.dialect.names(rows[place])
            self.damage.headers += 1
            begin = place + 1
        yield from self._even(rows[begin:], last)

    def _is_header(self, row: list[str]) -> bool:
        return not row[0].strip()[:1].isdigit() and is_header(row) and self._shares_names(row)

    def _shares_names(self, row: list[str]) -> bool:
        return len(set(self.dialect.names(row)) & set(self._header)) * 2 >= min(len(row), len(self._header))

    def _even(self, rows: list[list[str]], last: bool) -> Iterator[tuple[tuple[str, ...], list[list[str]]]]:
        width = len(self._header)
        if any(len(row) != width for row in rows):
            rows = self._mended(rows, width, last)
        if rows:
            yield self._header, rows

    def _mended(self, rows: list[list[str]], width: int, last: bool) -> list[list[str]]:
        ragged = sum(len(row) < width for row in rows) * 2 > len(rows) > 2
        kept = []
        for place, row in enumerate(rows):
            if len(row) > width:
                self.damage.wide += any(field.strip() for field in row[width:])
                kept.append(row[:width])
            elif len(row) == width:
                kept.append(row)
            elif ragged:
                kept.append(row + [""] * (width - len(row)))
            elif last and place == len(rows) - 1:
                self.damage.cut = True
            else:
                self.damage.malformed += 1
        return kept
