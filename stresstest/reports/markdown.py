"""A document as Markdown, for pull requests and notes; charts are left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import singledispatch

from stresstest.reports.document import (
    Block,
    Code,
    Column,
    Document,
    Heading,
    Heatmap,
    Items,
    Paragraph,
    Table,
    Value,
    Verdict,
)

KIND = "md"


def render(document: Document) -> str:
    """Title, the answer, blocks, findings, and how to run it again."""
    parts = [f"### {_text(document.title)}", _text(document.subtitle)]
    parts.append(document.state and f"**{_text(document.state)}**")
    parts.append("\n".join(map(_verdict, document.verdicts)))
    parts.append(_text(document.sure and f"How sure: {document.sure}."))
    parts += [f"{_text(fact.name)}: {_text(fact.why)}: `{fact.text}`" for fact in document.next]
    parts += ["\n".join(_lines(block)) for block in document.shown_in(KIND)]
    parts.append("\n".join(f"- {_text(finding)}" for finding in document.findings))
    parts += [f"{_text(fact.name)}: `{fact.text}`" for fact in document.footer]
    return "\n\n".join(filter(None, parts)) + "\n"


def _verdict(verdict: Verdict) -> str:
    subject = f"**{_text(verdict.subject)}**: " if verdict.subject else ""
    return f"- {subject}{_text(verdict.answer)}"


@singledispatch
def _lines(block: Block) -> list[str]:
    """The lines of one block: none of a chart."""
    return []


@_lines.register
def _(block: Heading) -> list[str]:
    return [f"**{_text(block.text)}**" + (f" {_text(block.note)}" if block.note else "")]


@_lines.register
def _(block: Paragraph) -> list[str]:
    return [{"bullet": "- {}", "strong": "**{}**"}.get(block.style, "{}").format(_text(block.text))]


@_lines.register
def _(block: Code) -> list[str]:
    return [f"    {line}" for line in block.text.splitlines()]


@_lines.register
def _(block: Items) -> list[str]:
    return [f"- {_text(item.text)}" + (f" {_text(item.detail)}" if item.detail else "") for item in block.items]


@_lines.register
def _(block: Table) -> list[str]:
    return _table(block.columns, [[_value(cell) for cell in row] for row in block.rows])


@_lines.register
def _(block: Heatmap) -> list[str]:
    rows = [[label, *(f"{cell.text}{cell.mark}" for cell in cells)] for label, cells in block.rows]
    rows += [[block.last[0], *block.last[1]]] if block.last else []
    columns = [Column(header) for header in (block.down, *block.columns)]
    return [f"**{_text(block.title)}**", "", *_table(columns, rows)]


def _value(cell: Value) -> str:
    return " ".join([cell.text, *(f"({more})" for more in (cell.interval, cell.note) if more)])


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(map(_text, (column.one_line for column in columns)))} |",
        "|---|" + "".join("---:|" if column.align == "right" else "---|" for column in columns[1:]),
        *(f"| {' | '.join(map(_text, row))} |" for row in rows),
    ]


def _text(text: str) -> str:
    """In one line, where nothing is taken for a cell's end or a tag."""
    return " ".join(re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text.replace("|", "\\|")).split())
