"""A document in the terminal, as wide as it is."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import singledispatch
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stresstest.reports.charts import Scale, column_of, lines_of, scales, text_chart
from stresstest.reports.document import (
    BRIEF,
    VERBOSE,
    Block,
    Chart,
    Code,
    Document,
    Fact,
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
from stresstest.reports.terminal_table import AIRY, TONES, grids, name_lines
from stresstest.reports.verdict_lines import MARKS, verdict_lines

_TEXT = 110  # columns of running text and charts, at most
_LOW_CHART = 3  # lines: one without the ends of its y axis
_CHART_WIDTH = 8  # at least
_LABEL = 13  # columns for the names beside a chart, at least; a third of all at most
_HEAT_LABEL, _HEAT_PLACE = 8, 7  # columns of a map's rows, and of one place with its gap, at least
_FACT = 6  # columns of a fact's name
_HEAT: dict[Tone, str] = {
    "": "",
    "good": "white on dark_green",
    "mixed": "white on orange4",
    "dull": "white on grey35",
    "bad": "white on dark_red",
}


def print_document(document: Document, console: Console, verbose: bool = False) -> None:
    """Title, blocks, the answer, and below it what is to be copied; with `verbose` all that there is."""
    whole = verbose or not document.verdicts
    console.print()
    _paragraph(console, document.title, style="bold")
    _paragraph(console, document.subtitle * whole, style="dim")
    previous: Block | None = None
    for block in document.shown_in(*(VERBOSE if verbose else BRIEF)):
        if isinstance(block, Chart) and not lines_of(block):
            continue
        if not _belongs_to(block, previous, console.width >= AIRY):
            console.print()
        if isinstance(block, Table):
            _table(block, console, verbose)
        else:
            _print(block, console)
        previous = block
    if whole and document.findings:
        console.print()
        for finding in document.findings:
            _paragraph(console, finding, bullet="- ")
    _answer(document, console, () if whole else document.warnings)
    if document.next or document.footer:
        console.print()
    for fact in (*document.next, *document.footer):
        _fact(fact, console)


def _answer(document: Document, console: Console, warnings: Sequence[str]) -> None:
    """The verdicts, what spoils them, how sure they are."""
    if document.verdicts:
        console.print()
    for verdict, lines in verdict_lines(document.verdicts, min(console.width, _TEXT)):
        shown = Text("\n".join(lines))
        shown.stylize(f"bold {TONES[verdict.tone]}", 0, 2 + len(verdict.subject) if verdict.subject else len(shown))
        console.print(shown, soft_wrap=True)
    for warning in warnings:
        _paragraph(console, warning, bullet=f"{MARKS['bad']} ", style=TONES["bad"])
    _paragraph(console, document.sure and f"How sure: {document.sure}.", style="dim")
    if document.state:
        console.print()
        _paragraph(console, document.state, style=TONES["mixed"])


def _fact(fact: Fact, console: Console) -> None:
    """In one line, however long, so that it can be copied whole; a file can be opened with a click."""
    named = f"{fact.name + ':':<{_FACT}} "
    if fact.why:
        _paragraph(console, f"{fact.name}: {fact.why}")
        named = "  "
    link = f" link {Path(fact.text).absolute().as_uri()}" if fact.file else ""
    console.print(Text.assemble((named, "dim"), (fact.text, f"dim{link}")), soft_wrap=True)


def _belongs_to(block: Block, previous: Block | None, airy: bool) -> bool:
    """Whether no blank line stands between two blocks; airy tables bring their own."""
    if isinstance(previous, Heading):
        return True
    if isinstance(block, Paragraph):
        legend = block.style == "dim" and (previous is None or isinstance(previous, Table))
        return legend or (isinstance(previous, Paragraph) and previous.style == block.style)
    if isinstance(block, Table) and isinstance(previous, Table):
        return airy
    return isinstance(block, Items) and isinstance(previous, Items)


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
        _paragraph(console, item.text, bullet=f"  {MARKS[item.tone]} ", style=TONES[item.tone])
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


def _table(block: Table, console: Console, whole: bool) -> None:
    shown, left_out = grids(block, console, whole)
    for grid in shown:
        console.print(grid)
    if left_out:
        more = f"{left_out} more column{'s' * (left_out > 1)}: widen the terminal or see the report"
        _paragraph(console, more, style="dim")


@_print.register
def _(block: Chart, console: Console) -> None:
    """Each line by itself, on common axes."""
    lines = lines_of(block)
    x, y = scales(block, lines)
    room = min(console.width, _TEXT)
    label = min(max(2, room // 3), max(_LABEL, *(len(series.name) + 1 for series in lines)))
    width = max(_CHART_WIDTH, room - label - 1)
    if block.title:
        console.print(Text(block.title, style="bold"))
    for series in lines:
        names = name_lines(series.name, label - 1)
        if block.height > _LOW_CHART:
            names = _between_ends(names, block.height, y, label - 1)
        rows = text_chart(series.points, width, block.height, x, y, console.options.ascii_only)
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


def _between_ends(names: Sequence[str], height: int, y: Scale, width: int) -> list[str]:
    """The name of a line in the middle, its axis's high end above and its low end below, where they differ."""
    free = height - 2
    above = (free - len(names[:free])) // 2
    low, high = number(y.low), number(y.high)
    beside = [("" if high == low else high).rjust(width), *[""] * above, *names[:free]]
    return [*beside, *[""] * (height - 1 - len(beside)), low.rjust(width)]


def _marked(series: Series, width: int, column: Callable[[float], int]) -> str:
    line = ["-"] * width
    for mark in series.marks:
        line[column(mark.x)] = mark.letter
    return "".join(line)


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
