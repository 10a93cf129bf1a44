"""The tables that the benchmarks print, for a terminal or a README."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def show(headings: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> None:
    """Print one table, as Markdown or for the terminal."""
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in (headings, ["---"] * len(headings), *rows)]
        print("", *lines, sep="\n")
        return
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
