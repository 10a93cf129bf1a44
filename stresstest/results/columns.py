"""The columns of tidy tables: the type of each, and what it means."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from stresstest.results.shocks import DoseRecord
from stresstest.results.typed import HoldRecord, RampRecord, RecipeRecord

Kind = Literal["text", "integer", "number", "boolean"]
_LISTS = ("curve", "progress")  # of a run's record: not numbers of the run as a whole


@dataclass(frozen=True)
class Column:
    """The type of a column, and what it means."""

    kind: Kind
    summary: str


CELL_COLUMNS: Mapping[str, Column] = {
    "cell": Column("text", "Key of the cell: one training at one point for one seed; its curves are named by it."),
    "variant": Column("text", "Norm variant, NAME[:key=value,...]."),
    "depth": Column("integer", "Number of blocks; empty in a row over all depths."),
    "optimizer": Column("text", "Optimizer, NAME[:key=value,...]."),
    "seed": Column("integer", "Seed of the initial weights and the batches."),
}
ROW_COLUMNS: Mapping[str, Column] = {
    "table": Column("text", "Where the row stands in result.json: summary, trends or searches."),
    **{name: CELL_COLUMNS[name] for name in ("variant", "depth", "optimizer")},
}
METRIC_COLUMNS: Mapping[str, Column] = {
    "status": Column("text", "done, or why the result is missing: crashed, oom, timeout."),
    "metric": Column("text", "Name of the metric."),
    "low": Column("number", "The value is at least this; empty: not known."),
    "high": Column("number", "The value is at most this; empty: not known. Equal to low of what was measured exactly."),
    "unit": Column("text", "Unit of the value; empty of a plain number."),
}
SEED_COLUMNS: Mapping[str, Column] = {
    "seed": CELL_COLUMNS["seed"],
    **{name: METRIC_COLUMNS[name] for name in ("metric", "low", "high", "unit")},
}
SUMMARY_COLUMNS: Mapping[str, Column] = {
    "metric": METRIC_COLUMNS["metric"],
    "median_low": Column("number", "The median over seeds is at least this."),
    "median_high": Column("number", "The median over seeds is at most this."),
    "low": Column("number", "Lower end of the median's interval; empty: unbounded."),
    "high": Column("number", "Upper end of the median's interval; empty: unbounded."),
    "coverage": Column("number", "How often such an interval holds the true median, 0 to 1."),
    "n": Column("integer", "Seeds that have a value."),
    "censored": Column("integer", "Seeds whose value lies beyond the range that was looked at."),
    "unit": METRIC_COLUMNS["unit"],
}


def column_of(field: FieldInfo) -> Column:
    """The column of a record's field."""
    return Column(_kind(field.annotation), str(field.description))


def _kind(hint: Any) -> Kind:
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return _kind(next(each for each in get_args(hint) if each is not type(None)))
    kinds: dict[Any, Kind] = {float: "number", int: "integer", bool: "boolean"}
    return kinds.get(hint, "text")


def _of_records() -> dict[str, Column]:
    """What became of a run, as the records of ramp, hold and schedule have it."""
    records = (RampRecord, HoldRecord, RecipeRecord, DoseRecord)
    hints = [get_type_hints(record, include_extras=True) for record in records]
    names = dict.fromkeys(name for each in hints for name in each if name not in _LISTS)
    found = {name: next(each[name] for each in hints if name in each) for name in names}
    return {name: Column(_kind(hint), str(hint.__metadata__[0].description)) for name, hint in found.items()}


RUN_COLUMNS: Mapping[str, Column] = {
    "phase": Column(
        "text",
        "ramp, hold, or recipe: the run through a schedule; twin: the undisturbed run beside a shock, null: one of its "
        "null twins, shock: the disturbed run.",
    ),
    "lr": Column("number", "The learning rate that was held."),
    **_of_records(),
}
CURVE_COLUMNS: Mapping[str, Column] = {
    "phase": RUN_COLUMNS["phase"],
    "run": Column("integer", "Number of the run within its cell, from 0."),
    "dose": RUN_COLUMNS["dose"],
    "step": Column("integer", "Step of training, from 0; empty of the points that result.json holds."),
    "lr": Column("number", "Learning rate of the step."),
    "loss": Column("number", "Training loss of the step's batch, before its update."),
    "judged_loss": Column("number", "The same without the luck of the batch: what outcomes are judged by."),
    "grad_norm": Column("number", "Norm of the gradient, before clipping."),
}
COLUMNS: Mapping[str, Column] = {
    **CELL_COLUMNS,
    **ROW_COLUMNS,
    **METRIC_COLUMNS,
    **SUMMARY_COLUMNS,
    **RUN_COLUMNS,
    **CURVE_COLUMNS,
}  # whatever the table: a name has one type
