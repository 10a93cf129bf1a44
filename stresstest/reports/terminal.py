"""A result in the terminal: what the experiment shows, the findings, how to run it again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stresstest.reports.contest import print_contest
from stresstest.reports.output import Output, console, write_outputs
from stresstest.reports.terminal_depth_sweep import print_depth_sweep
from stresstest.reports.terminal_lr_range import print_lr_range
from stresstest.reports.terminal_warmup import print_warmup
from stresstest.reports.words import paragraph
from stresstest.results.records import Result

_PRINTERS = {"lr-range": print_lr_range, "depth-sweep": print_depth_sweep, "warmup": print_warmup}
_PRINTERS |= {"race": print_contest, "batch-sweep": print_contest}


def show_result(result: Result, where: str, outputs: Sequence[Output], as_json: bool) -> None:
    """Write the outputs, and the result on stdout: its report, or its JSON and nothing else."""
    write_outputs(result, outputs)
    if as_json:
        sys.stdout.write(result.to_json())
    else:
        print_result(result, console(), where)


def print_result(result: Result, console: Console, where: str) -> None:
    """Print the report of a result; `where` is the run directory."""
    console.print()
    _PRINTERS[result.command](result, console)
    for finding in result.findings:
        paragraph(console, finding.text, bullet="- ")
    console.print()
    console.print(Text(f"run:   {where}", style="dim"), soft_wrap=True)
    if (journal := Path(where) / "study.journal").exists():
        console.print(Text(f"board: optuna-dashboard {journal}", style="dim"), soft_wrap=True)
    console.print(Text(f"again: {result.reproduce}", style="dim"), soft_wrap=True)
