"""The report of a sweep over batch sizes."""

from __future__ import annotations

from collections.abc import Iterator

from stresstest.experiments.batch_sweep.charts import charts
from stresstest.experiments.batch_sweep.verdicts import answer
from stresstest.experiments.contest_document import contest_title, how_sure, lrs_and, results_table, row_name
from stresstest.experiments.document_parts import data_words, metric_cell, report_of
from stresstest.reports.document import AT_LENGTH, Block, Column, Document, Paragraph, Table, Value
from stresstest.reports.numbers import exponent_words, number
from stresstest.results.records import Result

_COLUMNS = {"max_stable_lr": "max_stable_lr", "lowest loss": "validation_loss"}
_OVER = ("scales up to", "max_stable_lr ~ batch^")


def document(result: Result) -> Document:
    """The report of a sweep over batch sizes."""
    spec = result.spec
    schedule = f"{number(spec['tokens'])} tokens per run, {spec['lr_scaling']} LR scaling, linear-epoch warm-up, "
    schedule += f"then {spec['decay']}"
    sizes = f"{spec['batch_sizes'][0]} to {spec['batch_sizes'][-1]}"
    subtitle = f"{data_words({**spec, 'batch_size': sizes}, result.data)}; {lrs_and(schedule, result)}"
    legend = Paragraph(_legend(result), "dim", formats=AT_LENGTH)
    blocks = [*results_table(result, _COLUMNS), *_over_sizes(result), *charts(result), legend]
    return report_of(result, contest_title("Batch sweep", result), subtitle, blocks, answer(result))


def _over_sizes(result: Result) -> Iterator[Block]:
    """A row an optimizer, over all batch sizes."""
    if result.trends:
        rows = (
            (
                Value(row_name(row, result)),
                metric_cell(row.metrics.get("scaling_batch")),
                Value(exponent_words(row.metrics.get("batch_lr_exponent"))),
            )
            for row in result.trends
        )
        yield Table((Column("over batch sizes"), *map(Column, _OVER)), tuple(rows), formats=AT_LENGTH)


def _legend(result: Result) -> str:
    return (
        "Lowest loss: on held-out data, over the peak LRs of the grid (that of the first batch size times the LR "
        "scaling), at equal tokens. Scales up to: the largest batch size that keeps 90 % of the smallest batch's loss "
        f"reduction. {how_sure(result)}"
    )
