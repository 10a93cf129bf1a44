"""What a path of sizes found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.reports.numbers import NO_DATA, failures
from stresstest.results.records import Cell, Finding, SummaryRow, TrendRow


def scale_findings(
    rows: Sequence[SummaryRow],
    trends: Sequence[TrendRow],
    cells: Sequence[Cell],
    spec: Mapping[str, Any],
    data: Mapping[str, Any] = NO_DATA,
) -> list[Finding]:
    """All findings, the most important first; `data` says in which unit its losses are."""
    return [*failures(cells)]
