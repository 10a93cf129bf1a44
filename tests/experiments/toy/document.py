"""The report of a few learning rates."""

from __future__ import annotations

from stresstest.reports.document import Column, Document, Fact, Table, Value
from stresstest.reports.numbers import middle, number
from stresstest.results.records import Result


def document(result: Result) -> Document:
    """A table."""
    rows = tuple(
        (Value(row.variant), Value(number(row.point["peak_lr"])), Value(middle(row.metrics["validation_loss"])))
        for row in result.summary
    )
    return Document(
        name="lr-points",
        title="Losses at a few learning rates",
        blocks=(Table((Column("variant", "left"), Column("peak LR"), Column("loss")), rows),),
        findings=tuple(finding.text for finding in result.findings),
        footer=(Fact("again", result.reproduce),),
    )
