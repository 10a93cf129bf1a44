"""The charts of a diagnosis on a page: the curves of its segments with the places that the findings are about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stresstest.diagnosis.records import SegmentDiagnosis, Spike
from stresstest.diagnosis.words import ROLES, loss, step
from stresstest.reports.document import PAGE, Axis, Chart, Point, Series, Tone

_LOG_FROM = 20.0  # ratio of the highest to the lowest loss from which the axis is logarithmic
_POSITIVE = 0.9  # share of the losses that such an axis needs
_FEW = 4  # breaks that have a line of their own
_FLAT = 1.5  # times a value that never changes: the end of the upright lines over it


def page_charts(segments: Sequence[SegmentDiagnosis]) -> Iterator[Chart]:
    """The losses, and what else the log has, on the same steps."""
    yield _chart("Loss", ("loss", "validation"), segments, None)
    for role, log in (("lr", False), ("grad_norm", True), ("loss_scale", True)):
        if any(points_of(segment, role) for segment in segments):
            yield _chart(ROLES[role].capitalize(), (role,), segments, log)


def _chart(title: str, roles: Sequence[str], segments: Sequence[SegmentDiagnosis], log: bool | None) -> Chart:
    lines = [
        Series(series_name(role, segment, len(segments)), points)
        for segment in segments
        for role in roles
        if (points := points_of(segment, role))
    ]
    values = [y for each in lines for _, y in each.points if math.isfinite(y)]
    log = wants_log(values) if log is None else log
    shown = [value for value in values if value > 0 or not log]
    label = "loss" if "loss" in roles else ROLES[roles[0]]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if low == high:
        low, high = sorted((low / _FLAT, high * _FLAT))
    places = [*_places(segments, low, high, "loss" in roles)] if shown else []
    caption = _caption(segments) if places and "loss" in roles else ""
    return Chart(title, step_axis(lines), Axis(label, log=log), (*lines, *places), caption=caption, formats=PAGE)


def _caption(segments: Sequence[SegmentDiagnosis]) -> str:
    """What is marked in the picture of the loss."""
    broken = sum(segment.broke_between is not None for segment in segments)
    lines = "dashed line" if broken == 1 else "dashed lines" if broken <= _FEW else "crosses"
    breaks = f"Look left of the {lines}: there the run breaks." if broken else ""
    marked = {
        "a spike, at its highest loss": any(segment.spikes for segment in segments),
        "the start of a resumed segment": any(segment.start == "resume" for segment in segments),
    }
    dots = " or ".join(words for words, there in marked.items() if there)
    return " ".join(filter(None, (breaks, dots and f"A dot is {dots}.", "The steps are those of the log.")))


def _places(segments: Sequence[SegmentDiagnosis], low: float, high: float, spikes: bool) -> Iterator[Series]:
    """Where it breaks as an upright line, resumes and spikes as dots."""
    broken = [segment.broke_between[1] for segment in segments if segment.broke_between is not None]
    for at in broken if len(broken) <= _FEW else ():
        yield Series(f"breaks at step {step(at)}", ((at, low), (at, high)), kind="guide")
    if len(broken) > _FEW:
        tones: tuple[Tone, ...] = tuple("bad" for _ in broken)
        notes = tuple(f"breaks at step {step(at)}" for at in broken)
        yield Series("breaks", tuple((at, high) for at in broken), kind="dots", tones=tones, notes=notes)
    resumed = [segment for segment in segments if segment.start == "resume"]
    if resumed:
        yield Series(
            "resumes",
            tuple((segment.first_step, low) for segment in resumed),
            kind="dots",
            notes=tuple(f"segment {segment.index} resumes at step {step(segment.first_step)}" for segment in resumed),
        )
    found = [(spike, segment) for segment in segments for spike in segment.spikes] if spikes else []
    if found:
        yield Series(
            "spikes",
            tuple(_peak(spike, segment, high) for spike, segment in found),
            kind="dots",
            notes=tuple(_said(spike) for spike, _ in found),
        )


def _peak(spike: Spike, segment: SegmentDiagnosis, high: float) -> Point:
    """Where a spike is highest; at its first step where no finite loss is known."""
    rows = [(x, y) for x, y in points_of(segment, "loss") if spike.first_step <= x <= spike.last_step]
    finite = [point for point in rows if math.isfinite(point[1])]
    if finite:
        return max(finite, key=lambda point: point[1])
    return spike.first_step, high if spike.peak_loss is None else spike.peak_loss


def _said(spike: Spike) -> str:
    before = "" if spike.level_before is None else f" from {loss(spike.level_before)}"
    return f"spike{before} to {loss(spike.peak_loss)}{'' if spike.recovered else ', not back by the end'}"


def step_axis(series: Sequence[Series]) -> Axis:
    """Over all rows, those that are NaN too, so that the mark of a break lies where it is."""
    steps = [x for each in series for x, _ in each.points]
    return Axis("step", log=False, low=min(steps, default=None), high=max(steps, default=None))


def wants_log(values: Sequence[float]) -> bool:
    """A few that are not positive are left out of such a chart."""
    positive = [value for value in values if value > 0]
    return len(positive) > _POSITIVE * len(values) and max(positive) > _LOG_FROM * min(positive)


def series_name(role: str, segment: SegmentDiagnosis, count: int) -> str:
    """What a curve is, and of which segment where there are several."""
    return ROLES[role] if count == 1 else f"{ROLES[role]}, segment {segment.index}"


def points_of(segment: SegmentDiagnosis, role: str) -> tuple[Point, ...]:
    """(step, value) of a curve, those that are not finite too."""
    curve = next((curve for curve in segment.curves if curve.role == role), None)
    return tuple(zip(curve.steps, curve.values, strict=True)) if curve is not None else ()
