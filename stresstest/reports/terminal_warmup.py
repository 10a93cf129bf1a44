"""A warm-up map and search in the terminal: a map of each arm, tables over LRs and warm-ups, the best settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stresstest.findings.warmup import arm_name, peak_lrs
from stresstest.reports.warmup_map import (
    best_setting,
    css,
    grid,
    legend,
    lr_words,
    mark,
    needs_words,
    over_lrs,
    over_warmups,
    sensitivity_legend,
    setting,
    title,
)
from stresstest.reports.words import paragraph, plain_table
from stresstest.results import MapPlace, Result, TrendRow

_LABEL, _PLACE = 8, 7
_STYLES = {"trains": "on dark_green", "mixed": "on orange4", "fails": "on dark_red"}


def print_warmup(result: Result, console: Console) -> None:
    """Print title, maps and tables."""
    console.print(Text(title(result), style="bold"))
    paragraph(console, setting(result), style="dim")
    console.print()
    for trend in result.trends:
        for line in _map(trend, result, console.width):
            console.print(line)
        console.print()
    if result.trends:
        paragraph(console, legend(result), style="dim")
        console.print()
        console.print(_over_lrs(result, console.width))
        over = [(arm_name(trend, result.spec), over_warmups(trend)) for trend in result.trends]
        console.print(_table("over warm-ups", over, console))
        paragraph(console, sensitivity_legend(), style="dim")
        console.print()
    if result.searches:
        rows = [(row.variant, best_setting(row, result.spec)) for row in result.searches]
        console.print(_table("variant", rows, console))
        console.print()


def _map(trend: TrendRow, result: Result, width: int) -> Iterator[Text]:
    """Warm-ups down, peak learning rates across, in as many pieces as the width asks for."""
    yield Text(f"{trend.variant}, {trend.optimizer}, {trend.point['warmup']} warm-up", style="bold")
    lrs, needs, rows = peak_lrs(trend), needs_words(trend), grid(trend)
    lowest = min((place for places in rows.values() for place in places), key=lambda place: place.loss)
    at_once = max(1, (width - _LABEL) // _PLACE)
    for start in range(0, len(lrs), at_once):
        some = slice(start, start + at_once)
        yield Text(f"{'peak LR':<{_LABEL}}{_aligned([lr_words(lr) for lr in lrs[some]])}", style="dim")
        for steps, places in rows.items():
            shown = [_place(place, place is lowest) for place in places[some]]
            yield Text.assemble((f"{steps:>{_LABEL - 2}}  ", "dim"), *shown)
        yield Text(f"{'needs':<{_LABEL}}{_aligned(needs[some])}", style="dim")


def _aligned(words: Sequence[str]) -> str:
    """Under the losses, whose marks stand to the right of them."""
    return "".join(f"{word:>{_PLACE - 2}}  " for word in words).rstrip()


def _place(place: MapPlace, lowest: bool) -> tuple[str, str]:
    return f"{place.loss:>{_PLACE - 2}.2f}{mark(place):<1} ", f"{'bold ' * lowest}{_STYLES[css(place)]}"


def _over_lrs(result: Result, width: int) -> Table:
    table = plain_table(width)
    table.add_column("variant", overflow="fold")
    for header in ("warm-up", *over_lrs(result.summary[0])):
        table.add_column(header, justify="right")
    previous = ""
    for row in result.summary:
        name = arm_name(row, result.spec)
        shown = "" if name == previous else name
        table.add_row(Text(shown, style="bold"), str(row.point["warmup_steps"]), *over_lrs(row).values())
        previous = name
    return table


def _table(first: str, rows: Sequence[tuple[str, Mapping[str, str]]], console: Console) -> Table:
    table = plain_table(console.width)
    table.add_column(first, overflow="fold")
    for header in rows[0][1]:
        table.add_column(header, justify="right")
    for name, values in rows:
        table.add_row(Text(name, style="bold"), *values.values())
    return table
