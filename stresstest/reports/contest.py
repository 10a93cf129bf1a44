"""A race and a sweep over batch sizes in tables, for every format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stresstest.experiments.race.findings import entrant
from stresstest.reports.numbers import interval, loss_unit, middle, number, with_unit
from stresstest.reports.words import data_words, model_words, paragraph, plain_table
from stresstest.results.records import MetricSummary, Result, SummaryRow, TrendRow

_RACE = {
    "steps": "steps_to_target",
    "tokens": "tokens_to_target",
    "seconds": "seconds_to_target",
    "times as fast": "speedup",
    "loss at the end": "validation_loss",
}
_BATCHES = {"max_stable_lr": "max_stable_lr", "lowest loss": "validation_loss"}
_OVER = {"scales up to": "scaling_batch", "max_stable_lr ~ batch^": "batch_lr_exponent"}

Sheet = list[tuple[str, dict[str, str]]]  # a name, and the text of each column by its header


def title(result: Result) -> str:
    """What was compared."""
    spec, seeds = result.spec, len(result.spec["seeds"])
    what = "Race" if result.command == "race" else "Batch sweep"
    optimizers = ", ".join(spec["optimizer"])
    return f"{what}: {model_words(spec, result.data)}, {optimizers}, {seeds} seed{'s' * (seeds > 1)}"


def setting(result: Result) -> str:
    """What every run shares."""
    spec, env = result.spec, result.environment
    if result.command == "race":
        schedule = f"{spec['warmup_steps']} steps of warm-up, then {spec['decay']}, {spec['train_steps']} steps"
    else:
        schedule = f"{number(spec['tokens'])} tokens per run, {spec['lr_scaling']} LR scaling, linear-epoch warm-up, "
        schedule += f"then {spec['decay']}"
    if result.command == "batch-sweep":
        spec = {**spec, "batch_size": f"{spec['batch_sizes'][0]} to {spec['batch_sizes'][-1]}"}
    lrs = f"{spec['num_lrs']} peak LRs from {number(spec['start_lr'])} to {number(spec['end_lr'])}"
    return f"{data_words(spec, result.data)}; {lrs}; {schedule}; {env['device_name']}, {spec['dtype']}"


def rows(result: Result) -> Sheet:
    """A row an entrant, or an optimizer and batch size."""
    return [(_name(row, result), _values(row, result)) for row in result.summary]


def over_rows(result: Result) -> Sheet:
    """A row an optimizer, over all batch sizes."""
    return [
        (_name(row, result), {header: _with_interval(row.metrics.get(name)) for header, name in _OVER.items()})
        for row in result.trends
    ]


def legend(result: Result) -> str:
    """How to read the tables."""
    metric = next((m for row in result.summary for m in row.metrics.values()), None)
    sure = (
        f"In brackets: intervals over {metric.n} seeds that cover the median {metric.coverage:.0%} of the time."
        if metric is not None and metric.n > 1
        else "Use --seeds 3 or more: one seed does not show the scatter."
    )
    if result.command == "race":
        target = result.spec["target_loss"]
        said = (
            "the reference's loss at its end" if target is None else with_unit(number(target), loss_unit(result.data))
        )
        return (
            f"Target (smoothed training loss): {said}. Each entrant runs at its own best peak LR of the grid, "
            f"where its "
            "median reaches the target first; ratios of steps are taken seed by seed against the first entrant. "
            f"Seconds are measured on this machine. {sure}"
        )
    return (
        "Lowest loss: on held-out data, over the peak LRs of the grid (that of the first batch size times the LR "
        "scaling), at equal tokens. Scales up to: the largest batch size that keeps 90 % of the smallest batch's loss "
        f"reduction. {sure}"
    )


def contest_facts(result: Result) -> dict[str, Any]:
    """What the template reads beside the result."""
    sheets = [("", rows(result)), ("over batch sizes", over_rows(result))]
    return {
        "title": title(result),
        "setting": setting(result),
        "sheets": [(first, sheet) for first, sheet in sheets if sheet],
        "legend": legend(result),
    }


def print_contest(result: Result, console: Console) -> None:
    """Print title, tables and legend."""
    facts = contest_facts(result)
    console.print(Text(facts["title"], style="bold"))
    paragraph(console, facts["setting"], style="dim")
    console.print()
    for first, sheet in facts["sheets"]:
        console.print(_table(first, sheet, console.width))
    paragraph(console, facts["legend"], style="dim")
    console.print()


def _values(row: SummaryRow, result: Result) -> dict[str, str]:
    columns = _RACE if result.command == "race" else _BATCHES
    measured = {h: n for h, n in columns.items() if any(n in each.metrics for each in result.summary)}
    measured |= {"BLEU": "bleu"} if any("bleu" in each.metrics for each in result.summary) else {}
    first = {"batch": str(row.point["batch_size"]), "steps": str(row.point["steps"])} if "steps" in row.point else {}
    best = {"best peak LR": number(row.point["peak_lr"])}
    texts = {header: _with_interval(row.metrics.get(name)) for header, name in measured.items()}
    for header, name in measured.items():
        if name in ("tokens_to_target", "seconds_to_target") and name in row.metrics:
            texts[header] = middle(row.metrics[name])  # they go as the steps do
    return first | best | texts | {"trained": _trained(row.outcomes)}


def _trained(outcomes: Mapping[str, int]) -> str:
    return f"{sum(outcomes.get(word, 0) for word in ('stable', 'spiked'))} of {sum(outcomes.values())}"


def _name(row: SummaryRow | TrendRow, result: Result) -> str:
    if isinstance(row, SummaryRow):
        return entrant(row, result.spec)
    return row.optimizer if len(result.spec["variant"]) == 1 else f"{row.variant}, {row.optimizer}"


def _table(first: str, sheet: Sheet, width: int) -> Table:
    table = plain_table(width)
    table.add_column(first, overflow="fold")
    for header in sheet[0][1]:
        table.add_column(header, justify="right", overflow="fold")
    previous = ""
    for name, values in sheet:
        table.add_row(Text("" if name == previous else name, style="bold"), *values.values())
        previous = name
    return table


def _with_interval(metric: MetricSummary | None) -> str:
    if metric is None:
        return "-"
    return middle(metric) if metric.n == 1 else f"{middle(metric)} ({interval(metric)})"
