"""A result as Python shows it: a few lines of text, a fragment of HTML, its charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresstest.experiments.answers import answered
from stresstest.experiments.table import EXPERIMENTS
from stresstest.reports import in_python
from stresstest.reports.document import Document
from stresstest.results.records import Result

if TYPE_CHECKING:
    from stresstest.reports.figure import Figure


def text(result: Result) -> str:
    """What it was, and its verdicts."""
    if result.command not in EXPERIMENTS:
        return f"Result of {result.command}, an experiment that is not registered: {len(result.cells)} cells"
    return in_python.text(_shown(result))


def fragment(result: Result) -> str:
    """Verdicts, tables and charts."""
    return in_python.fragment(_shown(result))


def figures(result: Result) -> dict[str, Figure]:
    """The charts of its report by name."""
    from stresstest.reports.figure import figures_of

    return figures_of(document_of(result))


def figure(result: Result, name: str) -> Figure:
    """One of them; the first where no name is given."""
    from stresstest.reports.figure import figure_named

    return figure_named(document_of(result), name)


def _shown(result: Result) -> Document:
    """Its report; of a run that lacks cells, that of those that have ended by now."""
    from stresstest.experiments.unfinished import is_unfinished, unfinished_document

    if result.run_dir is not None and is_unfinished(result.run_dir):
        return unfinished_document(result.run_dir)
    return document_of(result)


def document_of(result: Result) -> Document:
    """The report of a result, by the experiment that it is of."""
    with result.being_read():
        return answered(EXPERIMENTS[result.command].document(result), result)
