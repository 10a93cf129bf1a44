"""A table in the terminal: as much of it as there is room for; no word is broken."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from stresstest.reports.document import Column, Table, Tone, Value

AIRY = 100  # columns from which a table has air between its own
TONES: dict[Tone, str] = {"": "", "good": "green", "mixed": "yellow", "dull": "dim", "bad": "red"}
_DROPS = 60  # columns from which a column that does not fit is left out
_SHARED = 110  # columns of tables that stand under each other, at most
_SHARE = 6  # and of one of theirs, at least
_NARROW_NAME = 16  # columns of a row's name where space is short
_COARSE_BARS = str.maketrans("▁▂▃▄▅▆▇█\u2800", ".:-=+*%# ")


def grids(table: Table, console: Console, whole: bool = False) -> tuple[list[Grid], int]:
    """The roomiest layout that fits, and how many columns it leaves out: those that are wide first, then the last.

    Of the `whole` table, and in the narrowest terminals, only those that are wide: the others follow in pieces.
    """
    if any(column.share for column in table.columns):
        widths = _shares(table, console.width)
        return [_grid(table, range(len(table.columns)), console, stacked=False, widths=widths)], 0
    for given, shown, stacked, narrow in _layouts(table, drops=not whole and console.width >= _DROPS):
        grid = _grid(given, shown, console, stacked, narrow)
        if Measurement.get(console, console.options.update(max_width=1000), grid).maximum <= console.width:
            return [grid], len(table.columns) - len(shown)
    shown = [i for i, column in enumerate(table.columns) if not column.wide]
    return list(_wrapped(_brief(table), shown, console)), len(table.columns) - len(shown)


def _layouts(table: Table, drops: bool) -> Iterator[tuple[Table, list[int], bool, bool]]:
    """(table, columns, whether intervals stand under their values, whether headers are narrow), the roomiest first."""
    brief, wide = _brief(table), [i for i, column in enumerate(table.columns) if column.wide]
    fewer = [[i for i in range(len(table.columns)) if i not in wide[k:]] for k in range(len(wide), -1, -1)]
    for given, shown in [(table, fewer[0]), *((brief, shown) for shown in fewer)]:
        yield from ((given, shown, table.stacked, narrow) for narrow in (False, True))
    folded = replace(brief, rows=tuple((_folded(row[0]), *row[1:]) for row in brief.rows))
    yield from ((given, fewer[-1], True, True) for given in (brief, folded))
    if drops:
        yield from ((folded, fewer[-1][:number], True, True) for number in range(len(fewer[-1]) - 1, 1, -1))


def _brief(table: Table) -> Table:
    return replace(table, rows=tuple(tuple(map(_short, row)) for row in table.rows))


def _folded(name: Value) -> Value:
    return replace(name, text="\n".join(name_lines(name.text, _NARROW_NAME)))


def name_lines(name: str, width: int) -> list[str]:
    """A long name in lines that end where its parts do."""
    words = re.findall(r"[^\s:,=]+[\s:,=]?|[\s:,=]", name)
    parts = [part for whole in words for part in textwrap.wrap(whole, width, drop_whitespace=False)]
    lines = [""]
    for part in parts:
        if lines[-1].strip() and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _grid(
    table: Table,
    shown: Sequence[int],
    console: Console,
    stacked: bool,
    narrow: bool = False,
    widths: Sequence[int] | None = None,
) -> Grid:
    """A grid without a frame; where there is room, with air between its columns and a line under the headers."""
    airy = console.width >= AIRY and widths is None
    padding = (0, 1) if airy else (0, 1, 0, 0)
    grid = Grid(box=box.SIMPLE_HEAD if airy else None, padding=padding, pad_edge=False)
    for place, i in enumerate(shown):
        width = None if widths is None else widths[place]
        justify = table.columns[i].align if i else "left"
        grid.add_column(_header(table, i, narrow), justify=justify, width=width, no_wrap=width is None, overflow="fold")
    for row in _rows(table):
        grid.add_row(*(_words(row[i], stacked, i == 0, console.options.ascii_only) for i in shown))
    return grid


def _rows(table: Table) -> Iterator[Sequence[Value]]:
    """The rows, without a name that stands above the same name where that may be left out."""
    previous = None
    for name, *others in table.rows:
        yield Value("") if table.grouped and name == previous else name, *others
        previous = name


def _header(table: Table, i: int, narrow: bool) -> str:
    """A narrow header has its last word under the others."""
    header = table.columns[i].header
    if not narrow or not i or "\n" in header:
        return header
    return "\n".join(header.rsplit(" ", 1))


def _short(cell: Value) -> Value:
    return replace(cell, text=cell.short or cell.text)


def _words(cell: Value, stacked: bool, is_name: bool, ascii_only: bool) -> Text:
    shown = cell.text.translate(_COARSE_BARS) if ascii_only else cell.text
    bold = is_name or (stacked and cell.interval)
    text = Text(shown, style=TONES[cell.tone] or ("bold" if bold else ""))
    for more in filter(None, (cell.interval, cell.note)):
        text.append(f"\n{more}" if stacked else f" ({more})", style="not bold dim")
    return text


def _wrapped(table: Table, shown: Sequence[int], console: Console) -> Iterator[Grid]:
    """Words under each other, in pieces of as many columns as fit; each begins with the name of the row."""
    table = replace(table, rows=tuple((_folded(row[0]), *row[1:]) for row in table.rows))
    sizes = {i: _size(table, i, console) for i in shown}
    name, *others = shown
    piece = [name]
    for i in others:
        if len(piece) > 1 and sum(sizes[j].minimum + 1 for j in (*piece, i)) - 1 > console.width:
            yield _piece(table, piece, sizes, console)
            piece = [name]
        piece.append(i)
    yield _piece(table, piece, sizes, console)


def _size(table: Table, i: int, console: Console) -> Measurement:
    """The widths of a column's longest word and of its longest line."""
    texts = [Text(_header(table, i, narrow=True))]
    texts += [_words(row[i], True, False, console.options.ascii_only) for row in table.rows]
    found = [Measurement.get(console, console.options, text) for text in texts]
    return Measurement(max(each.minimum for each in found), max(each.maximum for each in found))


def _piece(table: Table, shown: Sequence[int], sizes: dict[int, Measurement], console: Console) -> Grid:
    """What is left of the width goes to the columns that want most."""
    widths = [sizes[i].minimum for i in shown]
    wanted = [sizes[i].maximum for i in shown]
    left = console.width - sum(widths) - len(widths) + 1
    while left > 0 and widths != wanted:
        most = max(range(len(widths)), key=lambda place: wanted[place] - widths[place])
        widths[most], left = widths[most] + 1, left - 1
    return _grid(table, shown, console, stacked=True, narrow=True, widths=widths)


def _shares(table: Table, room: int) -> list[int]:
    """Widths of columns that share it, so that tables under each other line up."""
    fixed = [_fixed(column, [row[i].text for row in table.rows]) for i, column in enumerate(table.columns)]
    left = min(room, _SHARED) - sum(fixed) - len(fixed) + 1
    whole = sum(column.share for column in table.columns)
    shares = [max(_SHARE, left * column.share // whole) for column in table.columns]
    return [width or share for width, share in zip(fixed, shares, strict=True)]


def _fixed(column: Column, texts: Sequence[str]) -> int:
    return 0 if column.share else max(column.at_least, len(column.header), *map(len, texts))
