"""What became of claims, and where the reports of several runs lie: what comes last, above the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.gate.tables import claims_tables
from stresstest.reports.document import Document, Fact
from stresstest.reports.output import Made, console, write_outputs
from stresstest.reports.terminal import print_document


def show_claims(chapters: Sequence[Chapter], folder: Path, line: str = "", verbose: bool = False) -> None:
    """Print what became of claims, and keep it as a page in a folder; `line` does it again."""
    document, page = claims_document(chapters, line), folder / "claims.html"
    write_outputs([("html", page)], Made(lambda: document, lambda: claims_tables(chapters), {}))
    print_document(document.with_facts([Fact("report", str(page), file=True)]), console(), verbose)


def show_reports(folder: Path, names: Iterable[str]) -> None:
    """Name the pages of the runs of a folder; nothing of a single run, which has named its own."""
    pages = {name: page for name in names if (page := folder / name / "report.html").exists()}
    if len(pages) > 1:
        facts = tuple(Fact(name, str(page), file=True) for name, page in pages.items())
        print_document(Document("", f"{len(pages)} reports", footer=facts), console())
