"""The report of shocks."""

from __future__ import annotations

from collections.abc import Iterator

from stresstest.experiments.document_parts import data_words, metric_cell, model_words, report_of, seeds_words
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.reports.document import Block, Column, Document, Table, Value
from stresstest.reports.numbers import number
from stresstest.results.records import Result, SummaryRow

_COLUMNS = {
    "peak excess": "peak_excess",
    "recovery steps": "recovery_steps",
    "lasting damage": "lasting_damage",
    "no scar up to": "shock_tolerance",
    "no break up to": "break_tolerance",
}


def document(result: Result) -> Document:
    """What became of each at the standard dose, the tolerances, the curves beside their twins."""
    spec = ShockSpec.model_validate(result.spec)
    at = f"peak LR {number(spec.peak_lr)}" if spec.peak_lr else f"{spec.lr_share:g} of each variant's max_stable_lr"
    title = f"Shocks: {model_words(result.spec, result.data)}, {spec.optimizer}, {seeds_words(result)}"
    subtitle = (
        f"{data_words(result.spec, result.data)}; {spec.after} steps before the shock, {spec.horizon} after; {at}"
    )
    return report_of(result, title, subtitle, [*_table(result)])


def _table(result: Result) -> Iterator[Block]:
    if result.summary:
        headers = ("variant", "shock", "dose", "LR", "outcome", *_COLUMNS)
        yield Table(tuple(map(Column, headers)), tuple(_row(row) for row in result.summary), grouped=True)


def _row(row: SummaryRow) -> tuple[Value, ...]:
    chosen = parse_shock(row.point["shock"])
    dose = chosen.words(chosen.shock.dose.standard if chosen.only is None else chosen.only)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes.items())
    guard = row.point.get("guard", "")
    return (
        Value(row.variant),
        Value(f"{row.point['shock']}{f' + {guard}' if guard else ''}"),
        Value(dose or "-"),
        Value(number(row.point["peak_lr"])),
        Value(outcomes),
        *(metric_cell(row.metrics.get(name)) for name in _COLUMNS.values()),
    )
