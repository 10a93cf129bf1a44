"""The reports of a race and of a sweep over batch sizes: what was compared, in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stresstest.experiments.document_parts import (
    data_words,
    interval_words,
    metric_cell,
    model_words,
    report_of,
    seeds_words,
)
from stresstest.experiments.race.findings import entrant
from stresstest.reports.document import PAGE, Block, Column, Document, Heading, Paragraph, Table, Value
from stresstest.reports.numbers import loss_unit, middle, number, with_unit
from stresstest.results.records import Result, SummaryRow, TrendRow

_RACE = {
    "steps": "steps_to_target",
    "tokens": "tokens_to_target",
    "seconds": "seconds_to_target",
    "times as fast": "speedup",
    "loss at the end": "validation_loss",
}
_BATCHES = {"max_stable_lr": "max_stable_lr", "lowest loss": "validation_loss"}
_OVER = {"scales up to": "scaling_batch", "max_stable_lr ~ batch^": "batch_lr_exponent"}
_AS_THE_STEPS = ("tokens_to_target", "seconds_to_target")


def race_document(result: Result) -> Document:
    """The report of a race."""
    spec = result.spec
    schedule = f"{spec['warmup_steps']} steps of warm-up, then {spec['decay']}, {spec['train_steps']} steps"
    subtitle = f"{data_words(spec, result.data)}; {_lrs_and(schedule, result)}"
    blocks = [*_results(result, _RACE), Paragraph(race_legend(result), "dim")]
    return report_of(result, _title("Race", result), subtitle, blocks)


def batch_sweep_document(result: Result) -> Document:
    """The report of a sweep over batch sizes."""
    spec = result.spec
    schedule = f"{number(spec['tokens'])} tokens per run, {spec['lr_scaling']} LR scaling, linear-epoch warm-up, "
    schedule += f"then {spec['decay']}"
    sizes = f"{spec['batch_sizes'][0]} to {spec['batch_sizes'][-1]}"
    subtitle = f"{data_words({**spec, 'batch_size': sizes}, result.data)}; {_lrs_and(schedule, result)}"
    blocks = [*_results(result, _BATCHES), *_over_sizes(result), Paragraph(_batches_legend(result), "dim")]
    return report_of(result, _title("Batch sweep", result), subtitle, blocks)


def _title(what: str, result: Result) -> str:
    optimizers = ", ".join(result.spec["optimizer"])
    return f"{what}: {model_words(result.spec, result.data)}, {optimizers}, {seeds_words(result)}"


def _lrs_and(schedule: str, result: Result) -> str:
    spec, env = result.spec, result.environment
    lrs = f"{spec['num_lrs']} peak LRs from {number(spec['start_lr'])} to {number(spec['end_lr'])}"
    return f"{lrs}; {schedule}; {env['device_name']}, {spec['dtype']}"


def _results(result: Result, columns: Mapping[str, str]) -> Iterator[Block]:
    """A row an entrant, or an optimizer and batch size."""
    if not result.summary:
        return
    measured = {header: name for header, name in columns.items() if any(name in r.metrics for r in result.summary)}
    measured |= {"BLEU": "bleu"} if any("bleu" in row.metrics for row in result.summary) else {}
    sized = "steps" in result.summary[0].point
    headers = ("", *(("batch", "steps") if sized else ()), "best peak LR", *measured, "trained")
    yield Heading("Results", formats=PAGE)
    yield Table(
        tuple(map(Column, headers)),
        tuple(_row(row, measured.values(), result) for row in result.summary),
        grouped=True,
    )


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
        Value(_name(row, result)),
        *sizes,
        Value(number(point["peak_lr"])),
        *cells,
        Value(_trained(row.outcomes)),
    )


def _over_sizes(result: Result) -> Iterator[Block]:
    """A row an optimizer, over all batch sizes."""
    if result.trends:
        rows = (
            (Value(_name(row, result)), *(metric_cell(row.metrics.get(name)) for name in _OVER.values()))
            for row in result.trends
        )
        yield Table((Column("over batch sizes"), *map(Column, _OVER)), tuple(rows))


def _trained(outcomes: Mapping[str, int]) -> str:
    return f"{sum(outcomes.get(word, 0) for word in ('stable', 'spiked'))} of {sum(outcomes.values())}"


def _name(row: SummaryRow | TrendRow, result: Result) -> str:
    if isinstance(row, SummaryRow):
        return entrant(row, result.spec)
    return row.optimizer if len(result.spec["variant"]) == 1 else f"{row.variant}, {row.optimizer}"


def _sure(result: Result) -> str:
    return interval_words(next((metric for row in result.summary for metric in row.metrics.values()), None))


def race_legend(result: Result) -> str:
    """How to read a race's table."""
    target = result.spec["target_loss"]
    said = "the reference's loss at its end" if target is None else with_unit(number(target), loss_unit(result.data))
    return (
        f"Target (smoothed training loss): {said}. Each entrant runs at its own best peak LR of the grid, where its "
        "median reaches the target first; ratios of steps are taken seed by seed against the first entrant. "
        f"Seconds are measured on this machine. {_sure(result)}"
    )


def _batches_legend(result: Result) -> str:
    return (
        "Lowest loss: on held-out data, over the peak LRs of the grid (that of the first batch size times the LR "
        "scaling), at equal tokens. Scales up to: the largest batch size that keeps 90 % of the smallest batch's loss "
        f"reduction. {_sure(result)}"
    )
