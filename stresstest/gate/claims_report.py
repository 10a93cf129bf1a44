"""Claims and what became of them, in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stresstest.gate.claims import Judged
from stresstest.reports.words import paragraph

_STYLES = {"seen": "green", "not seen": "red", "undecided": "yellow"}
LEGEND = (
    "seen: the claim holds over the whole interval of the median (paired seeds); not seen: it holds nowhere in it; "
    "undecided: it holds in part of it, or there are fewer than three seeds. figure: this run; published: the paper, "
    "at its own size."
)


@dataclass(frozen=True)
class Chapter:
    """One scenario: what it is about, its claims, and the seconds of training that they took."""

    name: str
    paper: str
    judged: Sequence[Judged]
    seconds: float


def print_claims(chapters: Sequence[Chapter], console: Console) -> None:
    """Print a table a scenario, all of one layout, and why what was not seen was not."""
    widths = _widths(console.width)
    for chapter in chapters:
        title = f"{chapter.paper}: {chapter.name}"
        console.print(Text.assemble((title, "bold"), (f"  {_minutes(chapter.seconds)}", "dim")))
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=chapter is chapters[0])
        for header, width in zip(("claim", "verdict", "figure", "published"), widths, strict=True):
            table.add_column(header, overflow="fold", width=width, header_style="dim")
        for one in chapter.judged:
            verdict = Text(one.verdict, style=_STYLES[one.verdict])
            table.add_row(Text(one.claim.says), verdict, Text(one.figure), Text(one.claim.published or "-"))
        console.print(table)
        console.print()
    paragraph(console, LEGEND, style="dim")
    console.print()
    for reason in reasons(chapters):
        paragraph(console, reason, bullet="- ")
    every = [one.verdict for chapter in chapters for one in chapter.judged]
    counts = ", ".join(f"{every.count(word)} {word}" for word in _STYLES if word in every)
    console.print(f"\n{len(every)} claims: {counts}", markup=False)


def _widths(columns: int) -> tuple[int, int, int, int]:
    """Of the claim, the verdict, the figure and the published figure."""
    room = min(columns, 120) - len("undecided") - 4
    claim, figure = round(0.42 * room), round(0.3 * room)
    return claim, len("undecided"), figure, room - claim - figure


def markdown_claims(chapters: Sequence[Chapter]) -> str:
    """The same as Markdown."""
    lines = ["| paper | claim | verdict | figure | published | cost |", "|---|---|---|---|---|---:|"]
    for chapter in chapters:
        for number, one in enumerate(chapter.judged):
            first, cost = (chapter.paper, _minutes(chapter.seconds)) if number == 0 else ("", "")
            cells = (first, one.claim.says, one.verdict, one.figure, one.claim.published or "-", cost)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", LEGEND, "", *(f"- {reason}" for reason in reasons(chapters))]).rstrip() + "\n"


def reasons(chapters: Sequence[Chapter]) -> list[str]:
    """Why what was not seen was not, where that was found."""
    missed = [one for chapter in chapters for one in chapter.judged if one.verdict != "seen" and one.claim.because]
    return [f"{one.verdict}: {one.claim.says}: {one.claim.because}" for one in missed]


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min of one core"
