"""What Python shows of a report: a few lines of text, or a fragment of HTML in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from stresstest.reports.document import BRIEF, Chart, Document, Heading, Heatmap, Items, Paragraph, Table, Verdict
from stresstest.reports.verdict_lines import verdict_lines

if TYPE_CHECKING:
    from stresstest.reports.figure import Figure

_WIDTH = 110  # characters
_MOST = 10  # verdicts


class InPython:
    """Something that has a report: how it prints, what a notebook shows of it, its charts."""

    def _document(self) -> Document:
        raise NotImplementedError  # each class that shows itself so has its own

    def __repr__(self) -> str:
        """Its verdicts: a few lines."""
        return text(self._document())

    def __str__(self) -> str:
        """The same."""
        return repr(self)

    def _repr_html_(self) -> str:
        """Verdicts, tables and charts for a notebook: static, with styles that stay within it."""
        return fragment(self._document())

    @property
    def plots(self) -> dict[str, Figure]:
        """The charts of its report by name, as Vega-Lite specifications."""
        from stresstest.reports.figure import figures_of

        return figures_of(self._document())

    def plot(self, name: str = "") -> Figure:
        """A chart of its report, the first one without a name; one that there is not is a `ConfigError`."""
        from stresstest.reports.figure import figure_named

        return figure_named(self._document(), name)


def text(document: Document) -> str:
    """The title, a line a verdict, what spoils them, how sure they are, and what to try next."""
    said = document.verdicts or tuple(_told(document))
    if len(said) > _MOST:
        said = (*said[: _MOST - 1], Verdict("", f"and {len(said) - _MOST} more"), said[-1])  # the last one sums up
    lines = [
        document.title,
        *filter(None, [document.state]),
        *(line for _, few in verdict_lines(said, _WIDTH) for line in few),
    ]
    lines += [f"x {warning}" for warning in document.warnings]
    lines += [f"How sure: {document.sure}."] if document.sure else []
    lines += [f"{fact.name}: {fact.text}" for fact in document.next[:1]]
    return "\n".join(lines)


def _told(document: Document) -> Iterator[Verdict]:
    """The lines that stand for verdicts where a report has none."""
    shown = document.shown_in(*BRIEF)
    yield from (Verdict("", each.text) for each in shown if isinstance(each, Paragraph) and each.style == "strong")
    for block in shown:
        if isinstance(block, Items):
            yield from (Verdict("", item.text, item.tone) for item in block.items)
    yield from (Verdict("", finding) for finding in islice(document.findings, 3))


def fragment(document: Document) -> str:
    """Verdicts, tables and charts: no script, and styles that stay within it."""
    from stresstest.reports import html

    kept = [block for block in document.shown_in(html.KIND) if isinstance(block, Table | Chart | Heatmap | Heading)]
    blocks = [each for each, after in zip(kept, [*kept[1:], None], strict=True) if not _is_empty(each, after)]
    return html.fragment(replace(document, blocks=tuple(blocks)))


def _is_empty(block: object, after: object) -> bool:
    return isinstance(block, Heading) and (after is None or isinstance(after, Heading))
