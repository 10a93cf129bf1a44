"""A result that is shown: its document in the terminal and in files, or its JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stresstest.errors import ConfigError
from stresstest.experiments.result_views import document_of
from stresstest.experiments.unfinished import unfinished_document, unfinished_result
from stresstest.reports.document import Document, Fact
from stresstest.reports.output import Made, Output, Tables, console, text_of, write_outputs
from stresstest.reports.terminal import print_document
from stresstest.results.records import Result
from stresstest.results.tables import result_tables, without_curves


def show_result(
    result: Result,
    where: str,
    outputs: Sequence[Output],
    as_json: bool = False,
    verbose: bool = False,
    document: Document | None = None,
) -> None:
    """Write the outputs, and the result on stdout: its report, or its JSON and nothing else.

    document: its report, where it has been made.
    """
    with result.being_read():
        write_outputs(outputs, made_of(result, Path(where), document))
        if as_json:
            sys.stdout.writelines(result.json_parts())
        else:
            print_result(result, console(), where, verbose, document)


def made_of(result: Result, folder: Path, document: Document | None = None) -> Made:
    """What the outputs of a result are made of; `folder` is its run directory, which has the curves."""
    return Made(lambda: document or document_of(result), lambda: _tables(result, folder), {"json": result.to_json})


def _tables(result: Result, folder: Path) -> Tables:
    """The tables of a result; what is missing of its curves is said on stderr."""
    if lacking := without_curves(result, folder):
        done = sum(cell.status == "done" for cell in result.cells)
        text = (
            f"{folder / 'curves'} lacks the curves of {lacking} of {done} cells: of these the tables have the thinned "
            "ramps of result.json alone"
        )
        console(stderr=True).print(text, markup=False, soft_wrap=True)
    return result_tables(result, folder)


def show_unfinished(path: Path, outputs: Sequence[Output], verbose: bool = False) -> None:
    """The same of a run without a result: of its cells that have ended."""

    def no_json() -> str:
        raise ConfigError(f"the run in {path} has no result yet for a JSON; html, md and csv show what has ended")

    def tables() -> Tables:
        return result_tables(unfinished_result(path), path)

    write_outputs(outputs, Made(lambda: unfinished_document(path), tables, {"json": no_json}))
    print_document(unfinished_document(path).with_facts(_where(str(path))), console(), verbose)


def result_text(result: Result, kind: str) -> str:
    """A result in one format."""
    with result.being_read():
        return text_of(made_of(result, Path()), kind)


def print_result(
    result: Result, console: Console, where: str, verbose: bool = False, document: Document | None = None
) -> None:
    """Print the answer of a result, or its whole report; `where` is the run directory."""
    print_document((document or document_of(result)).with_facts(_where(where)), console, verbose)


def _where(run: str) -> list[Fact]:
    """What lies in a run directory to be opened."""
    page = Path(run) / "report.html"
    facts = [Fact("report", str(page), file=True) if page.exists() else Fact("run", run)]
    if (journal := Path(run) / "study.journal").exists():
        facts.append(Fact("board", f"optuna-dashboard {journal}"))
    return facts
