"""What a race found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stresstest.reports.numbers import interval, lr, middle, number
from stresstest.results.records import Finding, SummaryRow


def race_findings(rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> list[Finding]:
    """Who is there first, and by how much; who never is; and where a best LR is an end of the grid."""
    return [*_faster(rows, spec), *_at_the_end(rows, spec)]


def entrant(row: SummaryRow, spec: Mapping[str, Any]) -> str:
    """The variant, the optimizer, or both: what the rows differ in."""
    if len(spec["optimizer"]) == 1:
        return row.variant
    return row.optimizer if len(spec["variant"]) == 1 else f"{row.variant}, {row.optimizer}"


def _faster(rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    for row in rows[1:]:
        name, speedup = entrant(row, spec), row.metrics.get("speedup")
        if speedup is None:
            continue
        reference = entrant(rows[0], spec)
        low, high = speedup.low, speedup.high
        range_ = f"{interval(speedup)} over {speedup.n} seeds"
        if low is not None and low > 1.0:
            text = f"{name} reaches the target {middle(speedup)} times as fast as {reference} ({range_})."
        elif high is not None and high < 1.0:
            text = (
                f"{name} is slower than {reference}: it reaches the target {middle(speedup)} times as fast ({range_})."
            )
        else:
            text = f"These seeds cannot separate {name} from {reference}: {middle(speedup)} times as fast ({range_})."
        yield Finding(kind="speedup", subject=name, text=text)
    for row in rows:
        steps = row.metrics.get("steps_to_target")
        if steps is not None and steps.median.high is None:
            name = entrant(row, spec)
            text = f"{name} does not reach the target within {spec['train_steps']} steps at any peak LR in most seeds."
            yield Finding(kind="not-there", subject=name, text=text)


def _at_the_end(rows: Sequence[SummaryRow], spec: Mapping[str, Any]) -> Iterator[Finding]:
    if spec["num_lrs"] == 1:
        return
    for edge, which, word in ((spec["start_lr"], "lowest", "--start-lr"), (spec["end_lr"], "highest", "--end-lr")):
        hit = [entrant(row, spec) for row in rows if abs(row.point["peak_lr"] / edge - 1.0) < 1e-9]
        if hit:
            beyond = number(edge / 4 if which == "lowest" else edge * 4)
            text = f"The best peak LR of {', '.join(hit)} is the {which} of the grid, {lr(edge)}: try {word} {beyond}."
            yield Finding(kind="end-of-grid", subject=",".join(hit), text=text)
