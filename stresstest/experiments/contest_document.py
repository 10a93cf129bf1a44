"""What the reports of a race and of a sweep over batch sizes share: a table of what was compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stresstest.experiments.document_parts import (
    interval_words,
    machine_words,
    metric_cell,
    model_words,
    seeds_words,
)
from stresstest.experiments.race.findings import entrant
from stresstest.reports.document import AT_LENGTH, PAGE, Block, Column, Heading, Table, Value
from stresstest.reports.numbers import middle, number
from stresstest.results.records import Result, SummaryRow, TrendRow

_WIDE = ("tokens", "seconds")
_AS_THE_STEPS = ("tokens_to_target", "seconds_to_target")


def contest_title(what: str, result: Result) -> str:
    """What was compared, on which model and how many seeds."""
    optimizers = ", ".join(result.spec["optimizer"])
    return f"{what}: {model_words(result.spec, result.data)}, {optimizers}, {seeds_words(result)}"


def lrs_and(schedule: str, result: Result) -> str:
    """The peak LRs, a schedule and the machine."""
    spec = result.spec
    lrs = f"{spec['num_lrs']} peak LRs from {number(spec['start_lr'])} to {number(spec['end_lr'])}"
    return f"{lrs}; {schedule}; {machine_words(result)}"


def results_table(result: Result, columns: Mapping[str, str]) -> Iterator[Block]:
    """A row an entrant, or an optimizer and batch size."""
    if not result.summary:
        return
    measured = {header: name for header, name in columns.items() if any(name in r.metrics for r in result.summary)}
    measured |= {"BLEU": "bleu"} if any("bleu" in row.metrics for row in result.summary) else {}
    sized = "steps" in result.summary[0].point
    headers = ("", *(("batch", "steps") if sized else ()), "best peak LR", *measured, "trained")
    yield Heading("Results", formats=PAGE)
    table = Table(
        tuple(Column(header, wide=header in _WIDE) for header in headers),
        tuple(_row(row, measured.values(), result) for row in result.summary),
        grouped=True,
        formats=AT_LENGTH,
    )
    yield table.medians()
    yield table


def _row(row: SummaryRow, names: Iterable[str], result: Result) -> tuple[Value, ...]:
    point = row.point
    sizes = [Value(str(point["batch_size"])), Value(str(point["steps"]))] if "steps" in point else []
    cells = (
        Value(middle(row.metrics[name]))
        if name in _AS_THE_STEPS and name in row.metrics
        else metric_cell(row.metrics.get(name))
        for name in names
    )
    return (
        Value(row_name(row, result)),
        *sizes,
        Value(number(point["peak_lr"])),
        *cells,
        Value(_trained(row.outcomes)),
    )


def _trained(outcomes: Mapping[str, int]) -> str:
    return f"{sum(outcomes.get(word, 0) for word in ('stable', 'spiked'))} of {sum(outcomes.values())}"


def row_name(row: SummaryRow | TrendRow, result: Result) -> str:
    """An entrant, or of a row over all batch sizes its optimizer."""
    if isinstance(row, SummaryRow):
        return entrant(row, result.spec)
    return row.optimizer if len(result.spec["variant"]) == 1 else f"{row.variant}, {row.optimizer}"


def how_sure(result: Result) -> str:
    """What the intervals in the table are."""
    return interval_words(next((metric for row in result.summary for metric in row.metrics.values()), None))
