"""A document in the terminal, as wide as it is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import singledispatch
from itertools import zip_longest

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from stresstest.reports.charts import column_of, drawn, scales, text_chart
from stresstest.reports.document import (
    Block,
    Cell,
    Chart,
    Code,
    Column,
    Document,
    Heading,
    HeatCell,
    Heatmap,
    Items,
    Paragraph,
    Series,
    Table,
    Tone,
)
from stresstest.reports.numbers import number

KIND = "terminal"
_AIRY = 100  # columns from which a table has air between its own
_TEXT = 110  # columns of running text and charts, at most
_CHART_HEIGHT = 3
_NARROW_NAME = 16  # columns of a row's name where there is no more room
_LABEL = (13, 21)  # columns for the names beside a chart
_HEAT_LABEL, _HEAT_PLACE = 8, 7  # columns of a map's rows, and of one place with its gap, at least
_FACT = 6  # columns of a fact's name
_COLORS: dict[Tone, str] = {"": "", "good": "green", "mixed": "yellow", "dull": "dim", "bad": "red"}
_HEAT: dict[Tone, str] = {
    "": "",
    "good": "white on dark_green",
    "mixed": "white on orange4",
    "dull": "white on grey35",
    "bad": "white on dark_red",
}
_MARKS: dict[Tone, str] = {"": "-", "good": "+", "mixed": "?", "dull": "-", "bad": "x"}
_COARSE_BARS = str.maketrans("▁▂▃▄▅▆▇█", ".:-=+*%#")


def print_document(document: Document, console: Console) -> None:
    """Title, blocks, findings, and below them what is to be copied."""
    console.print()
    console.print(Text(document.title, style="bold"))
    _paragraph(console, document.subtitle, style="dim")
    previous: Block | None = None
    for block in document.shown_in(KIND):
        if isinstance(block, Chart) and not drawn(block):
            continue
        if not _belongs_to(block, previous, console.width >= _AIRY):
            console.print()
        _print(block, console)
        previous = block
    if document.findings:
        console.print()
    for finding in document.findings:
        _paragraph(console, finding, bullet="- ")
    if document.footer:
        console.print()
    for fact in document.footer:
        console.print(Text(f"{fact.name + ':':<{_FACT}} {fact.text}", style="dim"), soft_wrap=True)


def _belongs_to(block: Block, previous: Block | None, airy: bool) -> bool:
    """Whether no blank line stands between two blocks; airy tables bring their own."""
    if isinstance(block, Paragraph):
        legend = block.style == "dim" and isinstance(previous, Table)
        return legend or (isinstance(previous, Paragraph) and previous.style == block.style)
    if isinstance(block, Table) and isinstance(previous, Table):
        return airy
    return isinstance(previous, Heading) or (isinstance(block, Items) and isinstance(previous, Items))


@singledispatch
def _print(block: Block, console: Console) -> None:
    """Print one block; Details are left out."""


@_print.register
def _(block: Heading, console: Console) -> None:
    note = f"  {block.note}" if block.note else ""
    console.print(Text.assemble((block.text, "bold"), (note, "dim")))


@_print.register
def _(block: Paragraph, console: Console) -> None:
    style = {"dim": "dim", "strong": "bold"}.get(block.style, "")
    _paragraph(console, block.text, "- " if block.style == "bullet" else "", style)


@_print.register
def _(block: Code, console: Console) -> None:
    console.print(Text(block.text), soft_wrap=True)


@_print.register
def _(block: Items, console: Console) -> None:
    for item in block.items:
        console.print(Text(f"  {_MARKS[item.tone]} {item.text}", style=_COLORS[item.tone]), soft_wrap=True)
        _paragraph(console, item.detail, bullet="      ")


def _paragraph(console: Console, text: str, bullet: str = "", style: str = "") -> None:
    """Wrapped text without the trailing blanks that a padded block would print into a pipe."""
    indent = " " * len(bullet)
    for line in textwrap.wrap(
        text,
        min(console.width, _TEXT),
        initial_indent=bullet,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    ):
        console.print(Text(line, style=style), soft_wrap=True)


@_print.register
def _(block: Table, console: Console) -> None:
    for grid in _fitted(block, console):
        console.print(grid)


def _fitted(table: Table, console: Console) -> list[Grid]:
    """The table with as much as there is room for; what no layout has room for is printed in pieces."""
    everything = range(len(table.columns))
    wide = [i for i in everything if table.columns[i].wide]
    fewer = [[i for i in everything if i not in wide[k:]] for k in range(len(wide), -1, -1)]
    layouts: list[tuple[Sequence[int], bool, bool]] = [(fewer[0], False, table.stacked)]
    layouts += [(shown, True, table.stacked) for shown in fewer]
    layouts += [(fewer[-1], True, True)]
    if not any(column.share for column in table.columns):
        for shown, narrow, stacked in layouts:
            grid = _grid(table, shown, console, narrow, stacked)
            if _measured(grid, console).maximum <= console.width:
                return [grid]
    grid = _grid(table, fewer[-1], console, True, True, wraps=True)
    if _measured(grid, console).minimum <= console.width:
        return [grid]
    return [_grid(table, piece, console, True, True, wraps=True) for piece in _pieces(table, fewer[-1], console)]


def _measured(grid: Grid, console: Console) -> Measurement:
    return Measurement.get(console, console.options.update(max_width=1000), grid)


def _pieces(table: Table, shown: Sequence[int], console: Console) -> list[list[int]]:
    """The name of the row and as many columns as fit, and so on until all are shown."""
    name, *others = shown
    pieces: list[list[int]] = []
    for column in others:
        longer = [*(pieces[-1] if pieces else [name]), column]
        grid = _grid(table, longer, console, True, True, wraps=True)
        if pieces and _measured(grid, console).minimum <= console.width:
            pieces[-1] = longer
        else:
            pieces.append([name, column])
    return pieces


def _grid(
    table: Table, shown: Sequence[int], console: Console, narrow: bool, stacked: bool, wraps: bool = False
) -> Grid:
    """A grid without a frame; where there is room, with air between its columns and a line under the headers."""
    airy = console.width >= _AIRY and not any(column.share for column in table.columns)
    padding = (0, 1) if airy else (0, 1, 0, 0)
    grid = Grid(box=box.SIMPLE_HEAD if airy else None, padding=padding, pad_edge=False)
    widths = _shares([table.columns[i] for i in shown], [[row[i] for row in table.rows] for i in shown], console.width)
    for i, width in zip(shown, widths, strict=True):
        header = table.columns[i].header
        align = table.columns[i].align if i else "left"
        header = _in_two(header) if narrow and i else header
        grid.add_column(header, justify=align, width=width, no_wrap=not wraps, overflow="fold")
    previous, ascii_only = "", console.options.ascii_only
    for row in table.rows:
        name = "" if table.grouped and row[0].text == previous else row[0].text
        if wraps and widths[0] is None:
            name = "\n".join(_name_lines(name, _NARROW_NAME))
        first = replace(row[0], text=name)
        texts = [_words(row[i], stacked, "", ascii_only) for i in shown[1:]]
        grid.add_row(_words(first, stacked, "bold", ascii_only), *texts)
        previous = row[0].text
    return grid


def _shares(columns: Sequence[Column], cells: Sequence[Sequence[Cell]], room: int) -> list[int | None]:
    """Widths of columns that share it, so that tables under each other line up."""
    if not any(column.share for column in columns):
        return [None] * len(columns)
    fixed = [
        0 if column.share else max(column.at_least, len(column.header), *(len(cell.text) for cell in inside))
        for column, inside in zip(columns, cells, strict=True)
    ]
    left = min(room, _TEXT) - sum(fixed) - len(columns)
    whole = sum(column.share for column in columns)
    return [width or left * column.share // whole for width, column in zip(fixed, columns, strict=True)]


def _in_two(header: str) -> str:
    """A narrow header: the last word under the others."""
    if "\n" in header:
        return header
    head, gap, tail = header.replace("_", "_ ").rpartition(" ")
    return f"{head.replace('_ ', '_')}\n{tail}" if gap else header


def _words(cell: Cell, stacked: bool, style: str, ascii_only: bool) -> Text:
    shown = cell.text.translate(_COARSE_BARS) if ascii_only else cell.text
    text = Text(shown, style=style or _COLORS[cell.tone] or "bold" * (stacked and bool(cell.interval)))
    for more in filter(None, (cell.interval, cell.note)):
        text.append(f"\n{more}" if stacked else f" ({more})", style="not bold dim")
    return text


@_print.register
def _(block: Chart, console: Console) -> None:
    """Each line by itself, on common axes."""
    lines = drawn(block)
    x, y = scales(block)
    label = min(_LABEL[1], max(_LABEL[0], *(len(series.name) + 1 for series in lines)))
    width = min(console.width, _TEXT) - label - 1
    console.print(Text(block.title, style="bold"))
    for series in lines:
        names = _name_lines(series.name, label - 1)
        rows = text_chart(series.points, width, _CHART_HEIGHT, x, y, console.options.ascii_only)
        for name, row in zip_longest(names, rows, fillvalue=""):
            console.print(Text.assemble((f"{name:<{label}}", "bold"), row.rstrip()))
        if any(each.marks for each in lines):
            console.print(Text(" " * label + _marked(series, width, lambda at: column_of(at, width, x)), style="dim"))
    left, right = f"{block.x.label} {number(x.low)}".strip(), number(x.high)
    console.print(Text(" " * label + left + right.rjust(width - len(left)), style="dim"))
    letters = dict.fromkeys(f"{mark.letter} {mark.name}" for series in lines for mark in series.marks)
    if letters:
        key = "   ".join(letters)
        console.print(Text(" " * max(0, min(label, console.width - len(key))) + key, style="dim"))


def _marked(series: Series, width: int, column: Callable[[float], int]) -> str:
    line = ["-"] * width
    for mark in series.marks:
        line[column(mark.x)] = mark.letter
    return "".join(line)


def _name_lines(name: str, width: int) -> list[str]:
    """A long name in lines that end where its parts do."""
    parts = [part for whole in re.findall(r"[^\s:,=]+[\s:,=]?|[\s:,=]", name) for part in textwrap.wrap(whole, width)]
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


@_print.register
def _(block: Heatmap, console: Console) -> None:
    """Rows down, columns across, in as many pieces as the width asks for."""
    console.print(Text(block.title, style="bold"))
    texts = [len(cell.text) for _, cells in block.rows for cell in cells]
    wide = max(_HEAT_PLACE, *(length + 2 for length in texts))
    at_once = max(1, (console.width - _HEAT_LABEL) // wide)
    for start in range(0, len(block.columns), at_once):
        some = slice(start, start + at_once)
        console.print(_heat_words(block.across, block.columns[some], wide))
        for label, cells in block.rows:
            shown = [part for cell in cells[some] for part in (_heat_place(cell, wide - 2), " ")]
            console.print(Text.assemble((f"{label:>{_HEAT_LABEL - 2}}  ", "dim"), *shown[:-1]))
        if block.last is not None:
            console.print(_heat_words(block.last[0], block.last[1][some], wide))


def _heat_words(label: str, words: Sequence[str], wide: int) -> Text:
    """Under the places, whose marks stand to the right of their texts."""
    return Text(f"{label:<{_HEAT_LABEL}}{''.join(f'{word:>{wide - 2}}  ' for word in words)}".rstrip(), style="dim")


def _heat_place(cell: HeatCell, wide: int) -> tuple[str, str]:
    return f"{cell.text:>{wide}}{cell.mark:<1}", f"{'bold ' * cell.best}{_HEAT[cell.tone]}"
