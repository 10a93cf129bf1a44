"""A result that is shown: its document in the terminal and in files, or its JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stresstest.experiments.table import EXPERIMENTS
from stresstest.reports.document import Document, Fact
from stresstest.reports.output import Output, console, render, write_output
from stresstest.reports.terminal import print_document
from stresstest.results.records import Result


def show_result(
    result: Result, where: str, outputs: Sequence[Output], as_json: bool = False, verbose: bool = False
) -> None:
    """Write the outputs, and the result on stdout: its report, or its JSON and nothing else."""
    for kind, path in outputs:
        write_output(path, result_text(result, kind))
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        print_result(result, console(), where, verbose)


def result_text(result: Result, kind: str) -> str:
    """A result in one format."""
    return result.to_json() if kind == "json" else render(document_of(result), kind)


def document_of(result: Result) -> Document:
    """The report of a result, by the experiment that it is of."""
    return EXPERIMENTS[result.command].document(result)


def print_result(result: Result, console: Console, where: str, verbose: bool = False) -> None:
    """Print the answer of a result, or its whole report; `where` is the run directory."""
    page = Path(where) / "report.html"
    facts = [Fact("report", str(page), file=True) if page.exists() else Fact("run", where)]
    if (journal := Path(where) / "study.journal").exists():
        facts.append(Fact("board", f"optuna-dashboard {journal}"))
    print_document(document_of(result).with_facts(facts), console, verbose)
