"""What a few learning rates found."""

from __future__ import annotations

from collections.abc import Sequence

from stresstest.reports.numbers import middle, number
from stresstest.results.records import Finding, SummaryRow


def best(rows: Sequence[SummaryRow]) -> list[Finding]:
    """The learning rate of the lowest loss."""
    found = min(rows, key=lambda row: row.metrics["validation_loss"].median.low or 0.0)
    text = f"{number(found.point['peak_lr'])} is best: {middle(found.metrics['validation_loss'])}."
    return [Finding(kind="best", subject=found.variant, text=text)]
