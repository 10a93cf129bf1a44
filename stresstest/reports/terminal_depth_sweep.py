"""A depth sweep in the terminal: a table over variants and depths, what depth does, charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from stresstest.reports.chart import line_chart
from stresstest.reports.depth_table import (
    Column,
    TrainingRow,
    depth_words,
    first_seed_cells,
    gradient_points,
    law_words,
    legend,
    main_columns,
    signal_columns,
    spectrum_words,
    stable_lr_points,
    training_rows,
    trend_columns,
    trend_legend,
)
from stresstest.reports.numbers import number
from stresstest.reports.words import model_words, paragraph, plain_table, probes_words, sweep_words
from stresstest.results.records import Cell, Result, SummaryRow

_LABEL = 20
_CHART_HEIGHT = 3
_CHART_WIDTH = 60
_COARSE_BARS = str.maketrans("▁▂▃▄▅▆▇█", ".:-=+*%#")


def print_depth_sweep(result: Result, console: Console) -> None:
    """Print title, tables and charts."""
    console.print(Text(_title(result), style="bold"))
    paragraph(console, sweep_words(result), style="dim")
    console.print()
    if not result.summary:
        return
    console.print(_table(result, console))
    paragraph(console, legend(result) + probes_words(result), style="dim")
    console.print()
    if len(result.spec["depths"]) > 1 and any(row.metrics for row in result.trends):
        console.print(_trends(result, console.width))
        paragraph(console, trend_legend(result), style="dim")
        console.print()
    if rows := training_rows(result):
        console.print(Text("Signal propagation before steps of the fixed recipe", style="bold"))
        console.print(_training(rows, console))
        console.print()
    for line in _charts(result, console):
        console.print(line)


def _title(result: Result) -> str:
    spec = result.spec
    seeds = len(spec["seeds"])
    what = "Signal propagation at initialisation" if spec["init_only"] else "Depth sweep"
    return f"{what}: {model_words(spec, result.data)}, {seeds} seed{'s' * (seeds > 1)}"


def _table(result: Result, console: Console) -> Table:
    """As many columns as there is room for."""
    rows = [((depth_words(row, result),), row) for row in result.summary]
    return _fitted(["depth"], rows, main_columns(result), console)


def _training(rows: Sequence[TrainingRow], console: Console) -> Table:
    keyed = [((str(one.row.depth), str(one.step) if one.step else "init"), one.row) for one in rows]
    return _fitted(["depth", "step"], keyed, signal_columns(), console)


def _fitted(
    keys: Sequence[str], rows: Sequence[tuple[tuple[str, ...], SummaryRow]], columns: list[Column], console: Console
) -> Table:
    while True:
        table = plain_table(console.width)
        table.add_column("variant", no_wrap=True)
        for header in (*keys, *(column.header for column in columns)):
            table.add_column(header, justify="right", no_wrap=True)
        previous = ""
        for key, row in rows:
            name = "" if row.variant == previous else row.variant
            table.add_row(Text(name, style="bold"), *key, *(column.text(row) for column in columns))
            previous = row.variant
        spare = [column for column in columns if column.wide]
        if not spare or _width(table, console) <= console.width:
            return table
        columns.remove(spare[-1])


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=1000), table).maximum


def _trends(result: Result, width: int) -> Table:
    table = plain_table(width)
    table.add_column("over depth", no_wrap=True)
    columns = trend_columns(result)
    for header, _ in columns:
        table.add_column(header, justify="right")
    for row in result.trends:
        table.add_row(Text(row.variant, style="bold"), *(text(row) for _, text in columns))
    return table


def _charts(result: Result, console: Console) -> Iterator[Text]:
    variants = list(dict.fromkeys(row.variant for row in result.summary))
    curves = {variant: stable_lr_points(result.summary, variant) for variant in variants}
    yield from _chart("max_stable_lr against depth, both logarithmic, medians", "depth", curves, console, math.log)
    if result.spec["init_only"]:
        deepest = max(row.depth for row in result.summary)
        cells = first_seed_cells(result, deepest)
        curves = {cell.variant: gradient_points(cell.signal) for cell in cells}
        title = f"Gradient norm (logarithmic) over the blocks at depth {deepest}, seed {result.spec['seeds'][0]}"
        yield from _chart(title, "block", curves, console, lambda block: block / deepest)
        yield from _spectra(cells, deepest, console)


def _chart(
    title: str,
    across: str,
    curves: Mapping[str, list[tuple[float, float]]],
    console: Console,
    axis: Callable[[float], float],
) -> Iterator[Text]:
    """Each curve by itself, on common axes: `axis` of x, and the logarithm of y."""
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return
    values = [y for points in curves.values() for _, y in points]
    places = [x for points in curves.values() for x, _ in points]
    low, high, first, last = min(values), max(values), min(places), max(places)
    width = min(console.width - _LABEL - 1, _CHART_WIDTH)
    yield Text(f"{title} ({number(low)} to {number(high)})", style="bold")
    for name, points in curves.items():
        along = np.linspace(axis(points[0][0]), axis(points[-1][0]), 4 * width)
        heights = np.interp(along, [axis(x) for x, _ in points], [math.log(y) for _, y in points])
        # The chart's own axis is logarithmic.
        drawn = [(math.exp(x), float(y)) for x, y in zip(along, heights, strict=True)]
        ends = (math.exp(axis(first)), math.exp(axis(last)))
        lines = line_chart(drawn, width, _CHART_HEIGHT, math.log(low), math.log(high), ends, console.options.ascii_only)
        for i, text in enumerate(lines):
            yield Text.assemble((f"{name if i == 0 else '':<{_LABEL}.{_LABEL}}", "bold"), text.rstrip())
    left, right = f"{across} {first:.0f}", f"{last:.0f}"
    yield Text(" " * _LABEL + left + right.rjust(width - len(left)), style="dim")
    yield Text("")


def _spectra(cells: Sequence[Cell], depth: int, console: Console) -> Iterator[Text]:
    """The stream's growth and the Jacobian's singular values, a line a variant."""
    yield Text(f"Stream over the blocks and log10 singular values of the Jacobian, at depth {depth}", style="bold")
    for cell in cells:
        shape = spectrum_words(cell, console.width - _LABEL - 20)
        if console.options.ascii_only:
            shape = shape.translate(_COARSE_BARS)
        yield Text.assemble((f"{cell.variant:<{_LABEL}.{_LABEL}}", "bold"), f"{law_words(cell):<16}", shape)
    yield Text("")
