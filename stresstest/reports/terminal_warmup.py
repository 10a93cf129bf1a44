"""A warm-up map and search in the terminal: a map of each arm, tables over LRs and warm-ups, the best settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stresstest.reports.warmup_map import (
    LossFormat,
    Rows,
    arm_title,
    best_settings,
    css,
    grid,
    legend,
    lr_headers,
    mark,
    needs_words,
    over_lrs_rows,
    over_warmups_rows,
    sensitivity_legend,
    setting,
    title,
)
from stresstest.reports.words import loss_format, paragraph, plain_table
from stresstest.results.records import MapPlace, Result, TrendRow

_LABEL, _PLACE = 8, 7  # columns of the warm-up, and of one place with its gap, at least
_STYLES = {
    "trains": "white on dark_green",
    "mixed": "white on orange4",
    "flat": "white on grey35",
    "fails": "white on dark_red",
}


def print_warmup(result: Result, console: Console) -> None:
    """Print title, maps and tables."""
    console.print(Text(title(result), style="bold"))
    paragraph(console, setting(result), style="dim")
    console.print()
    for trend in result.trends:
        for line in _map(trend, console.width, loss_format(result)):
            console.print(line)
        console.print()
    if result.trends:
        paragraph(console, legend(result), style="dim")
        console.print()
        console.print(_table("variant", over_lrs_rows(result), console.width))
        if over_warmups := over_warmups_rows(result):
            console.print(_table("over warm-ups", over_warmups, console.width))
        paragraph(console, sensitivity_legend(), style="dim")
        console.print()
    if result.searches:
        console.print(_table("variant", best_settings(result), console.width))
        console.print()


def _map(trend: TrendRow, width: int, loss: LossFormat) -> Iterator[Text]:
    """Warm-ups down, peak learning rates across, in as many pieces as the width asks for."""
    yield Text(arm_title(trend), style="bold")
    headers, needs, rows = lr_headers(trend), needs_words(trend), grid(trend)
    lowest = min((place for places in rows.values() for place in places), key=lambda place: place.loss)
    wide = max(_PLACE, *(len(loss(place.loss)) + 2 for place in trend.map))
    at_once = max(1, (width - _LABEL) // wide)
    for start in range(0, len(headers), at_once):
        some = slice(start, start + at_once)
        yield _words("peak LR", headers[some], wide)
        for steps, places in rows.items():
            texts = [(f"{loss(place.loss):>{wide - 2}}", place) for place in places[some]]
            shown = [part for text, place in texts for part in (_place(text, place, place is lowest), " ")]
            yield Text.assemble((f"{steps:>{_LABEL - 2}}  ", "dim"), *shown[:-1])
        yield _words("needs", needs[some], wide)


def _words(label: str, words: Sequence[str], wide: int) -> Text:
    """Under the losses, whose marks stand to the right of them."""
    return Text(f"{label:<{_LABEL}}{''.join(f'{word:>{wide - 2}}  ' for word in words)}".rstrip(), style="dim")


def _place(text: str, place: MapPlace, lowest: bool) -> tuple[str, str]:
    return f"{text}{mark(place):<1}", f"{'bold ' * lowest}{_STYLES[css(place)]}"


def _table(first: str, rows: Rows, width: int) -> Table:
    """A name that stands above the same name is left out."""
    table = plain_table(width)
    table.add_column(first, overflow="fold")
    for header in rows[0][1]:
        table.add_column(header, justify="right")
    previous = ""
    for name, values in rows:
        table.add_row(Text("" if name == previous else name, style="bold"), *values.values())
        previous = name
    return table
