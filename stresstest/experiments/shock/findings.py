"""What the shocks of a run showed: advice first, then the sign behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.reports.numbers import failures, lr
from stresstest.results.records import Cell, Finding, SummaryRow

SURVIVAL: Mapping[str, str] = {
    "recovered": "recovers",
    "scarred": "keeps a scar",
    "broke": "breaks",
    "untrained": "was not trained before the shock",
}


def shock_findings(
    rows: Sequence[SummaryRow], cells: Sequence[Cell], spec: ShockSpec, data: Mapping[str, Any]
) -> list[Finding]:
    """What breaks at the standard dose, what saves it, what was not told, and cells without a result."""
    return [
        *_harm(rows, spec),
        *_untrained(rows),
        *_without_boundary(cells, spec),
        *_not_monotone(cells),
        *failures(cells),
    ]


def _harm(rows: Sequence[SummaryRow], spec: ShockSpec) -> Iterator[Finding]:
    for shock in spec.shock:
        mine = [row for row in rows if row.point["shock"] == shock and not row.point.get("guard")]
        chosen = parse_shock(shock)
        dose = chosen.words(chosen.shock.dose.standard if chosen.only is None else chosen.only)
        named = f"{shock}{f' of {dose}' if dose else ''}"
        parts = []
        for outcome in ("broke", "scarred", "recovered"):
            hit = [row.variant for row in mine if max(row.outcomes, key=lambda o: row.outcomes[o]) == outcome]
            if hit:
                parts.append(f"{outcome}: {', '.join(hit)}")
        if parts:
            yield Finding(kind="shock", subject=shock, text=f"{named}: {'; '.join(parts)}.")


def _untrained(rows: Sequence[SummaryRow]) -> Iterator[Finding]:
    hit = dict.fromkeys(row.variant for row in rows if "untrained" in row.outcomes)
    if hit:
        text = (
            f"Use a lower --peak-lr or a larger --after for {', '.join(hit)}: without any shock some seeds did not "
            "train, or break when their weights change in the last place, so a shock says nothing there."
        )
        yield Finding(kind="untrained", subject=", ".join(hit), text=text)


def _without_boundary(cells: Sequence[Cell], spec: ShockSpec) -> Iterator[Finding]:
    for cell in cells:
        if "shock" not in cell.point and cell.status == "done" and cell.metrics["max_stable_lr"].low is None:
            text = (
                f"Give --peak-lr for {cell.variant}: no held LR from {lr(spec.start_lr)} to {lr(spec.end_lr)} trained "
                f"in {spec.hold_steps} steps, so there is no boundary to take a share of."
            )
            yield Finding(kind="no-boundary", subject=cell.variant, text=text)


def _not_monotone(cells: Sequence[Cell]) -> Iterator[Finding]:
    hit = [cell for cell in cells if cell.shock and not cell.shock.get("monotone", True)]
    if hit:
        names = dict.fromkeys(f"{cell.variant} {cell.point['shock']}" for cell in hit)
        text = (
            f"A larger dose did less harm in {len(hit)} runs ({', '.join(names)}): their tolerance ends at the first "
            "dose that harms."
        )
        yield Finding(kind="not-monotone", subject=", ".join(names), text=text)
