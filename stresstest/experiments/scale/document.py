"""The report of a path of sizes."""

from __future__ import annotations

from stresstest.experiments.answers import Answer
from stresstest.experiments.document_parts import data_words, model_words, report_of, seeds_words
from stresstest.reports.document import AT_LENGTH, Column, Document, Table, Value
from stresstest.reports.numbers import interval, middle
from stresstest.results.records import Result


def document(result: Result) -> Document:
    """The whole report."""
    spec = result.spec
    title = f"Scale: {model_words(spec, result.data)}, {spec['optimizer']}, {seeds_words(result)}"
    names = ("max_stable_lr", "best_lr", "onset_lr")
    rows = tuple(
        (
            Value(row.variant),
            Value(str(row.depth)),
            Value(str(dict(row.point))),
            *(
                Value(middle(row.metrics[n]), interval(row.metrics[n])) if n in row.metrics else Value("-")
                for n in names
            ),
        )
        for row in result.summary
    )
    table = Table(
        (Column("variant"), Column("depth"), Column("size"), *map(Column, names)), rows, stacked=True, formats=AT_LENGTH
    )
    return report_of(result, title, data_words(spec, result.data), [table] if rows else [], Answer())
