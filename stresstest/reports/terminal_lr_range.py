"""An LR range test in the terminal: a table of variants and a chart of each."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stresstest.engine.optimizers import theory_formula
from stresstest.reports.chart import line_chart, place
from stresstest.reports.numbers import interval, middle
from stresstest.reports.words import (
    WIDE,
    data_words,
    loss_ends,
    loss_range,
    model_words,
    paragraph,
    plain_table,
    probes_words,
)
from stresstest.results.records import MetricSummary, Result, SummaryRow

_CHART_HEIGHT = 3
_LABEL = 13


def print_lr_range(result: Result, console: Console) -> None:
    """Print title, table and charts."""
    console.print(Text(_title(result), style="bold"))
    paragraph(console, _setting(result), style="dim")
    console.print()
    if result.summary:
        console.print(_table(result, console.width))
        paragraph(console, _legend(result) + probes_words(result), style="dim")
        console.print()
        if any(cell.theory for cell in result.cells):
            console.print(_theory(result, console.width))
            paragraph(console, _theory_legend(result), style="dim")
            console.print()
        for line in _charts(result, console):
            console.print(line)


def _title(result: Result) -> str:
    spec = result.spec
    seeds = len(spec["seeds"])
    return (
        f"Learning-rate range test: {model_words(spec, result.data)}, "
        f"{spec['optimizer']}, {seeds} seed{'s' * (seeds > 1)}"
    )


def _setting(result: Result) -> str:
    spec, env = result.spec, result.environment
    return (
        f"{data_words(spec, result.data)}; {spec['ramp']} ramp "
        f"{spec['start_lr']:g} to {spec['end_lr']:g} in {spec['num_steps']} steps, holds of "
        f"{spec['hold_steps']} steps; {env['device_name']}, {spec['dtype']}"
    )


def _table(result: Result, width: int) -> Table:
    table = plain_table(width)
    table.add_column("variant", overflow="fold")
    columns = ["max_stable_lr", "onset_lr", "explosion_lr", "steps_survived"]
    if result.spec["lr_window"]:
        columns.insert(1, "lr_window")
    for name in (columns[0], "vs weakest", *columns[1:]):
        table.add_column(name if width >= WIDE else _in_two(name), justify="right", no_wrap=True)
    for row in result.summary:
        seeds = sum(row.outcomes.values())
        cells = [_cell(row.metrics.get(name), seeds) for name in columns]
        table.add_row(Text(row.variant, style="bold"), cells[0], _cell(row.times_weakest, seeds), *cells[1:])
    return table


def _in_two(name: str) -> str:
    """A narrow header: the name's last word under the others."""
    head, gap, tail = name.replace("_", "_ ").rpartition(" ")
    return f"{head.replace('_ ', '_')}\n{tail}" if gap else name


def _cell(metric: MetricSummary | None, seeds: int) -> Text:
    if metric is None:
        return Text("-")
    text = Text.assemble((middle(metric), "bold"), ("\n" + interval(metric), "dim"))
    if metric.n < seeds:
        text.append(f"\n{metric.n} of {seeds} seeds", style="dim")
    return text


def _legend(result: Result) -> str:
    metric = next(iter(result.summary[0].metrics.values()))
    sure = (
        "Use --seeds 3 or more: one seed does not show the scatter."
        if metric.n == 1
        else f"Median over {metric.n} seeds; below it an interval that covers the median {metric.coverage:.0%} "
        f"of the time."
    )
    harmless = any(trial["outcome"] == "flat" for cell in result.cells for trial in cell.hold)
    trained = "trained, or did no harm where there was too little to learn," if harmless else "trained"
    return (
        f"{sure} Use max_stable_lr: the last constant LR that {trained} from a fresh start; the first that did not is "
        f"one {result.spec['hold_resolution']} higher. onset_lr, where the ramp began to lose what it had "
        f"learned (-: it "
        "had learned nothing), is a rough estimate, because the early part of a ramp works as a warm-up. vs weakest is "
        "paired by seed."
    )


def _theory(result: Result, width: int) -> Table:
    """Three learning rates side by side: the ramp's, the hold's, and what theory says at initialisation."""
    table = plain_table(width)
    table.add_column("vs theory", overflow="fold")
    columns = ["onset_lr", "max_stable_lr", "critical_lr", "predicted_lr"]
    for name in columns:
        table.add_column(name if width >= WIDE else _in_two(name), justify="right", no_wrap=True)
    for row in result.summary:
        seeds = sum(row.outcomes.values())
        table.add_row(Text(row.variant, style="bold"), *(_cell(row.metrics.get(name), seeds) for name in columns))
    return table


def _theory_legend(result: Result) -> str:
    said = [cell for cell in result.cells if "forwards" in cell.theory]
    if not said:
        reasons = [cell.theory["no_curvature"] for cell in result.cells if "no_curvature" in cell.theory]
        return (
            f"No theory: {reasons[0].rstrip('.')}."
            if reasons
            else "No theory: the loss at initialisation is not finite."
        )
    forwards = statistics.median(cell.theory.get("forwards", 0) for cell in said)
    products = statistics.median(cell.theory.get("products", 0) for cell in said)
    return (
        "At initialisation, on one batch: critical_lr is where the optimizer's first step begins to raise the loss, "
        f"predicted_lr what the sharpness allows ({theory_formula(result.spec['optimizer'])}). A seed's cost: "
        f"{forwards:.0f} forward passes and {products:.0f} Hessian products."
    )


def _charts(result: Result, console: Console) -> Iterator[Text]:
    spec = result.spec
    width = min(console.width, 110) - _LABEL - 1
    start = spec["start_lr"] or spec["end_lr"] / spec["num_steps"]
    ends = (start, spec["end_lr"])
    if not any(row.curve for row in result.summary):
        return
    low, high = loss_range(result)
    yield Text(f"Loss ({' to '.join(loss_ends(result))}) against the ramp's LR, median over seeds", style="bold")
    for row in result.summary:
        points = [point for point in row.curve if point[0] > 0]
        lines = line_chart(points, width, _CHART_HEIGHT, low, high, ends, console.options.ascii_only)
        labels = textwrap.wrap(row.variant, _LABEL - 1)
        for i, line in enumerate(lines):
            yield Text.assemble((f"{labels[i] if i < len(labels) else '':<{_LABEL}}", "bold"), line)
        yield Text(" " * _LABEL + _marks(row, width, ends), style="dim")
    axis = f"{ends[0]:.2g}".ljust(width - len(f"{ends[1]:.2g}")) + f"{ends[1]:.2g}"
    yield Text(" " * _LABEL + axis, style="dim")
    yield Text(" " * _LABEL + "s max_stable_lr   o onset_lr   x explosion_lr", style="dim")
    yield Text("")


def _marks(row: SummaryRow, width: int, ends: tuple[float, float]) -> str:
    line = ["-"] * width
    for name, mark in (("max_stable_lr", "s"), ("onset_lr", "o"), ("explosion_lr", "x")):
        metric = row.metrics.get(name)
        if metric is not None and metric.median.low is not None and metric.median.high is not None:
            line[place(metric.median.low, width, ends)] = mark
    return "".join(line)
