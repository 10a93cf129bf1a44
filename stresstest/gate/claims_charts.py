"""The claims of a scenario as forest plots: how far each figure lies beyond what is claimed, with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stresstest.gate.claims import ClaimVerdict, Evidence, Judged
from stresstest.reports.document import Axis, Chart, Tone
from stresstest.reports.forest import ForestRow, forest

TONES: Mapping[ClaimVerdict, Tone] = {"seen": "good", "not seen": "bad", "undecided": "mixed"}
_RATIO = ""
_SHAPES = "A circle is seen, a cross not seen, a triangle undecided; the bar is the 95 % interval of the median."


def claims_charts(scenario: str, judged: Sequence[Judged]) -> Iterator[Chart]:
    """The claims of a scenario as one forest of ratios to what is claimed, and one of the differences of each metric.

    A claim along a path has a row for each place, and a tested cause its own.
    """
    panels: dict[str, list[ForestRow]] = {}
    for name, one in _rows(judged):
        row = row_of(name, one)
        if row is not None:
            panels.setdefault(_panel(one), []).append(row)
    for metric, rows in panels.items():
        if metric == _RATIO:
            yield forest(
                f"{scenario}: ratios and sizes",
                Axis("times the claimed threshold, in the claimed direction"),
                rows,
                ("threshold", 1.0),
                f"Right of the dashed line a claim holds, in times its threshold. {_SHAPES}",
                f"claims-{scenario}-ratios",
            )
        else:
            yield forest(
                f"{scenario}: differences of {metric}",
                Axis(f"{metric} beyond the threshold, in the claimed direction", log=False),
                rows,
                ("threshold", 0.0),
                f"Right of the dashed line a claim holds, in the unit of {metric}. {_SHAPES}",
                f"claims-{scenario}-{metric.replace('_', '-')}",
            )


def row_of(name: str, one: Evidence) -> ForestRow | None:
    """A figure beside its threshold, turned so that more is more of what is claimed; `None` where it has no value."""
    middle = one.median.low if one.median.low is not None else one.median.high
    if middle is None:
        return None
    ends = [_beyond(one, value) for value in (one.low, middle, one.high)]
    low, at, high = reversed(ends) if one.statement.operator.startswith("<") else ends
    if at is None:
        return None
    return ForestRow(name, at, low, high, TONES[one.verdict], f"{one.verdict}: {one.figure}; {one.statement.text}")


def _rows(judged: Sequence[Judged]) -> Iterator[tuple[str, Evidence]]:
    for one in judged:
        for place in one.places:
            yield ", ".join(filter(None, (one.claim.says, place.statement.at))), place
        if one.cause is not None and one.claim.because is not None and one.verdict != "seen":
            yield f"because {one.claim.because.says}", one.cause


def _panel(one: Evidence) -> str:
    """Ratios together; what cannot be divided by its metric."""
    statement = one.statement
    return statement.left.metric if statement.how == "-" or statement.limit <= 0 else _RATIO


def _beyond(one: Evidence, value: float | None) -> float | None:
    """Times the threshold or more than it; of a claim of less, the other way round. An open side stays open."""
    if value is None:
        return None
    limit, less = one.statement.limit, one.statement.operator.startswith("<")
    if _panel(one) != _RATIO:
        return limit - value if less else value - limit
    if not less:
        return value / limit
    return limit / value if value > 0 else None
