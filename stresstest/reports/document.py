"""A report as data: headings, paragraphs, tables, charts and heat maps, which each format renders in its own way.

A block says what is shown and never how: no colour, no width, no markup. `formats` of a block names the formats that
show it; without it all do. A terminal that is asked for all there is (-v) is a format of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Tone = Literal["", "good", "mixed", "dull", "bad"]  # what became of it; dull is neither good nor bad
Style = Literal["plain", "dim", "strong", "bullet"]
SeriesKind = Literal["line", "seed", "guide", "steps", "dots"]
Point = tuple[float, float]
Formats = tuple[str, ...]

BRIEF: Formats = ("terminal",)
VERBOSE: Formats = ("terminal -v",)
TERMINAL: Formats = (*BRIEF, *VERBOSE)
PAGE: Formats = ("html",)
WRITTEN: Formats = ("html", "md")  # what is read at leisure, with all that there is
AT_LENGTH: Formats = (*VERBOSE, *WRITTEN)
_NAME = 60  # characters of the name of a picture's files, at most


@dataclass(frozen=True)
class Block:
    """Anything that stands in a document."""

    formats: Formats = field(default=(), kw_only=True)

    def shown_in(self, kind: str) -> bool:
        """Whether a format shows it."""
        return not self.formats or kind in self.formats


@dataclass(frozen=True)
class Heading(Block):
    """A title of what follows; `note` stands beside it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Paragraph(Block):
    """Running text."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True)
class Code(Block):
    """Text that keeps its lines."""

    text: str


@dataclass(frozen=True)
class Item:
    """One line of a list with what became of it, and what that rests on."""

    text: str
    tone: Tone
    detail: str = ""


@dataclass(frozen=True)
class Items(Block):
    """A list of judgements."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Value:
    """A value with its interval, and a note under both, e.g. of how many seeds it is; `short` where room is little.

    link: what it opens on a page, a relative path that is quoted already and begins with "./".
    """

    text: str
    interval: str = ""
    note: str = ""
    tone: Tone = ""
    tooltip: str = ""
    short: str = ""
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table; one that is `wide` is left out where there is little room. A newline may break a header."""

    header: str
    align: Literal["left", "right"] = "right"
    wide: bool = False
    share: int = 0  # of the width, where the columns of several tables stand under each other; the others of such
    at_least: int = 0  # a table are as wide as what is in them, and have so many characters

    @property
    def one_line(self) -> str:
        """The header where there is room."""
        return self.header.replace("\n", " ")


@dataclass(frozen=True)
class Table(Block):
    """Rows under columns, the first of which names the row.

    stacked: intervals stand under their values even where there is room beside them. grouped: a name that stands
    above the same name may be left out.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    stacked: bool = False
    grouped: bool = False
    caption: str = ""

    def medians(self) -> Table:
        """The same without intervals and notes, for a terminal that is not asked for all there is."""
        rows = tuple(tuple(replace(cell, interval="", note="") for cell in row) for row in self.rows)
        return replace(self, rows=rows, formats=BRIEF)


@dataclass(frozen=True)
class Axis:
    """One direction of a chart, as far as its points go or between `low` and `high`, where points beyond are drawn.

    names: of the places 0, 1, ... of an axis that stands for no number, the first at the top or on the left.
    ticks: its own, where those that are round say too little.
    """

    label: str
    log: bool = True
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A place on the x axis, with the letter that stands for its name where space is short; of terminals alone."""

    name: str
    letter: str
    x: float
    tone: Tone = ""


@dataclass(frozen=True)
class Series:
    """A named line through points, and what is marked along it; lines of one name share a colour.

    kind: a "line" (of a median, or alone), one "seed" of it (thin, not in a terminal), a "guide" (dashed, e.g. a
    slope), "steps" (of a histogram, each from its x to the next), or "dots".
    spans: what is between these is as likely as the points; along y, or along x where y has names.
    tones, notes: what became of each point, and what is said of it beside its values.
    """

    name: str
    points: Sequence[Point]
    marks: tuple[Mark, ...] = ()
    kind: SeriesKind = "line"
    spans: tuple[Point, ...] = ()
    tones: tuple[Tone, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chart(Block):
    """Series on common axes. The reference is a named level of y, or of x where y has names.

    below: drawn under it on the same x axis. name: of its files. dots: each point of a line is drawn too.
    height: lines of each in a terminal, where a high one has the ends of its y axis beside it.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    reference: tuple[str, float] | None = None
    dots: bool = False
    height: int = 3
    below: Chart | None = None
    caption: str = ""
    name: str = ""


@dataclass(frozen=True)
class HeatCell:
    """One place of a map: what is written there, with a mark that tells its tone without colour."""

    text: str
    mark: str = ""
    tone: Tone = ""
    tooltip: str = ""
    best: bool = False


@dataclass(frozen=True)
class Heatmap(Block):
    """Rows by columns of places; `last` is a row of words under them, `key` what the tones stand for."""

    title: str
    across: str
    down: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    last: tuple[str, tuple[str, ...]] | None = None
    key: tuple[tuple[Tone, str], ...] = ()
    caption: str = ""
    name: str = ""


@dataclass(frozen=True)
class Tile:
    """One place of a row of tiles, from `start` to `end` of the x axis; no value where none is finite."""

    start: float
    end: float
    value: float | None
    note: str = ""


@dataclass(frozen=True)
class Tiles(Block):
    """A map of numbers: each row's tiles beside each other, in a colour that tells their value.

    A value beyond the ends of `values` has the colour of the end; one that is zero on a logarithmic scale, or not
    finite, is named instead of coloured.
    """

    title: str
    x: Axis
    down: str
    rows: tuple[tuple[str, tuple[Tile, ...]], ...]
    values: Axis
    caption: str = ""
    name: str = ""
    formats: Formats = field(default=PAGE, kw_only=True)


Picture = Chart | Heatmap | Tiles


@dataclass(frozen=True)
class Details(Block):
    """What is there to look up: folded away on a page, left out elsewhere."""

    summary: str
    blocks: tuple[Block, ...]
    formats: Formats = field(default=PAGE, kw_only=True)


@dataclass(frozen=True)
class Verdict:
    """The answer about one thing that was compared, in a line: what to do, then the sign behind it."""

    subject: str  # as the tables name it; empty where the answer names it itself
    answer: str
    tone: Tone = ""

    @property
    def text(self) -> str:
        """The line without its mark."""
        return f"{self.subject}: {self.answer}" if self.subject else self.answer


@dataclass(frozen=True)
class Fact:
    """A name and what is to be copied: a path, a command; `why` one would. What is a `file` can be opened."""

    name: str
    text: str
    why: str = ""
    file: bool = False


@dataclass(frozen=True)
class Document:
    """A whole report. Its answer is the last thing in a terminal, above the prompt, and the first on a page.

    The answer is its verdicts, how sure they are, and what to try next; the findings are the whole story, which a
    terminal tells where it is asked for, or where there are no verdicts. It always tells the warnings.
    """

    name: str  # of a page, in the browser
    title: str
    subtitle: str = ""
    blocks: tuple[Block, ...] = ()
    findings: tuple[str, ...] = ()
    footer: tuple[Fact, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    sure: str = ""
    warnings: tuple[str, ...] = ()  # findings that spoil a verdict: a cell that has no result
    next: tuple[Fact, ...] = ()
    state: str = ""  # of a report that is not final: how much of it there is
    live: bool = False  # a page that is written again and again, and reads itself again
    links: tuple[str, ...] = ()  # files beside a page, relative to it
    date: str = ""  # of the run's end, as it is to be read

    @property
    def page_title(self) -> str:
        """What a browser's tab and its history name the page: title and date."""
        return ", ".join(filter(None, (self.title or self.name, self.date)))

    def shown_in(self, kind: str) -> list[Block]:
        """The blocks of one format."""
        return [block for block in self.blocks if block.shown_in(kind)]

    def pictures(self, kind: str) -> list[tuple[str, Picture]]:
        """(name of its files, picture) of each chart with something to draw and of each map, those in details too."""
        found = [block for block in _flat(self.shown_in(kind)) if isinstance(block, Picture)]
        names: list[str] = []
        for block in found:
            name = block.name or re.sub(r"[^a-z0-9]+", "-", block.title.lower()).strip("-")[:_NAME] or "picture"
            names.append(name if name not in names else f"{name}-{len(names) + 1}")
        return list(zip(names, found, strict=True))

    def with_facts(self, facts: Sequence[Fact]) -> Document:
        """The same with more facts above those of the footer."""
        return replace(self, footer=(*facts, *self.footer))


def _flat(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _flat(block.blocks)
