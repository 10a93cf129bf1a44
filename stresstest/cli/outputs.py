"""The options `--output` and `--verbose`, which commands that read no settings of experiments have too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from stresstest.reports.output import JSON, formats_help


def output_option(*others: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--output` of a command that writes these formats too."""
    help_text = f"Also write {formats_help(*others)}. May be repeated."
    return click.option("-o", "--output", multiple=True, metavar="FORMAT:PATH", help=help_text)


OUTPUT = output_option(*JSON)
VERBOSE = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print the whole report: charts, intervals, theory, every finding. Without it, the answer alone.",
)
