"""A result in the terminal: what the experiment shows, the findings, how to run it again."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from stresstest.reports.terminal_depth_sweep import print_depth_sweep
from stresstest.reports.terminal_lr_range import print_lr_range
from stresstest.reports.words import paragraph
from stresstest.results import Result

_PRINTERS = {"lr-range": print_lr_range, "depth-sweep": print_depth_sweep}


def print_result(result: Result, console: Console, where: str) -> None:
    """Print the report of a result; `where` is the run directory."""
    console.print()
    _PRINTERS[result.command](result, console)
    for finding in result.findings:
        paragraph(console, finding.text, bullet="- ")
    console.print()
    console.print(Text(f"run:   {where}", style="dim"), soft_wrap=True)
    console.print(Text(f"again: {result.reproduce}", style="dim"), soft_wrap=True)
