"""The claims of papers as forest plots: how far each figure lies beyond what is claimed, with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stresstest.gate.claims import ClaimVerdict, Judged
from stresstest.reports.document import Axis, Chart, Tone
from stresstest.reports.forest import ForestRow, forest

TONES: Mapping[ClaimVerdict, Tone] = {"seen": "good", "not seen": "bad", "undecided": "mixed"}
_RATIO = ""
_SHAPES = "A circle is seen: it holds over the whole interval (bar). A cross is not seen, a triangle undecided."


def claims_charts(chapters: Sequence[tuple[str, Sequence[Judged]]]) -> Iterator[Chart]:
    """(scenario, its claims) as one forest of ratios to what is claimed, and one of the differences of each metric."""
    panels: dict[str, list[ForestRow]] = {}
    for name, judged in chapters:
        for one in judged:
            row = row_of(name, one)
            if row is not None:
                panels.setdefault(_panel(one), []).append(row)
    for metric, rows in panels.items():
        if metric == _RATIO:
            yield forest(
                "Claims about ratios and sizes",
                Axis("times the claimed threshold, in the claimed direction"),
                rows,
                ("threshold", 1.0),
                f"Right of the dashed line a claim holds, in times its threshold. {_SHAPES}",
                "claims-ratios",
            )
        else:
            yield forest(
                f"Claims about differences of {metric}",
                Axis(f"{metric} beyond the threshold, in the claimed direction", log=False),
                rows,
                ("threshold", 0.0),
                f"Right of the dashed line a claim holds, in the unit of {metric}. {_SHAPES}",
                f"claims-{metric.replace('_', '-')}",
            )


def row_of(scenario: str, one: Judged) -> ForestRow | None:
    """A figure beside its threshold, turned so that more is more of what is claimed; `None` where it has no value."""
    middle = one.median.low if one.median.low is not None else one.median.high
    if middle is None:
        return None
    ends = [_beyond(one, value) for value in (one.low, middle, one.high)]
    low, at, high = reversed(ends) if one.claim.operator.startswith("<") else ends
    if at is None:
        return None
    name = f"{scenario}: {one.claim.says}"
    return ForestRow(name, at, low, high, TONES[one.verdict], f"{one.verdict}: {one.figure}; {one.claim.text}")


def _panel(one: Judged) -> str:
    """Ratios together; what cannot be divided by its metric."""
    claim = one.claim
    return claim.left.metric if claim.how == "-" or claim.limit <= 0 else _RATIO


def _beyond(one: Judged, value: float | None) -> float | None:
    """Times the threshold or more than it; of a claim of less, the other way round. An open side stays open."""
    if value is None:
        return None
    limit, less = one.claim.limit, one.claim.operator.startswith("<")
    if _panel(one) != _RATIO:
        return limit - value if less else value - limit
    if not less:
        return value / limit
    return limit / value if value > 0 else None
