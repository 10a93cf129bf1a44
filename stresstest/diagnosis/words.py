"""A diagnosis in words: what was read, what became of it, and the line of each spike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stresstest.diagnosis.records import BROKEN, Diagnosis, LogOutcome, SegmentDiagnosis, Spike
from stresstest.reports.document import Tone

OUTCOMES: Mapping[LogOutcome, str] = {
    "stable": "learns and keeps it",
    "spiked": "has loss spikes and recovers",
    "flat": "learns no further in this log",
    "rising": "the loss rises for good",
    "relapsed": "loses what it had learned",
    "failed-to-train": "never beats the best constant predictor",
    "exploded": "ends far above its start",
    "nonfinite": "the loss becomes NaN or infinite",
}
ROLES: Mapping[str, str] = {
    "loss": "loss",
    "validation": "validation loss",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "loss_scale": "loss scale",
    "skipped": "skipped steps",
}
_TONES: Mapping[LogOutcome | None, Tone] = {"stable": "good", "spiked": "mixed", "flat": "dull", None: "mixed"}


def tone_of(outcome: LogOutcome | None) -> Tone:
    """Broken is bad; what cannot be judged is neither."""
    return _TONES.get(outcome, "bad")


def run_name(run: Diagnosis) -> str:
    """The log, and which run of it."""
    return f"{run.path} [{run.run}]" if run.run else run.path


def run_line(run: Diagnosis) -> str:
    """A run in one line."""
    return f"{run_name(run)}: {headline(run)}"


def headline(run: Diagnosis) -> str:
    """What became of a run: of its worst segment."""
    worst = worst_segment(run)
    if worst is None:
        return "cannot be judged: no row with a loss"
    return ": ".join(filter(None, run_words(run)))


def run_words(run: Diagnosis) -> tuple[str, str]:
    """What became of a run, in capitals, and what that means."""
    worst = worst_segment(run)
    assert worst is not None, "a run that was read has a segment"
    said, meaning = outcome_words(worst)
    if len(run.segments) == 1:
        return said, meaning
    alike = sum(segment.outcome == worst.outcome for segment in run.segments)
    if alike == len(run.segments):
        many = f"{said}, each of {alike} segments" if worst.outcome not in BROKEN else f"all {alike} segments: {said}"
        return many, f"in segment {worst.index}: {meaning}"
    others = f" (so {'are' if alike > 2 else 'is'} {alike - 1} more)" if alike > 1 else ""
    return f"segment {worst.index} of {len(run.segments)}: {said}{others}", meaning


def worst_segment(run: Diagnosis) -> SegmentDiagnosis | None:
    """The one that the verdict rests on; of several that are well the longest."""
    deciding = run.outcome if run.verdict != "undecided" else None
    fitting = [segment for segment in run.segments if segment.outcome == deciding] or run.segments
    if deciding in BROKEN:
        return next(iter(fitting), None)
    return max(fitting, key=lambda segment: segment.rows, default=None)


def outcome_line(segment: SegmentDiagnosis) -> str:
    """The outcome, where, and the loss."""
    return ": ".join(filter(None, outcome_words(segment)))


def outcome_words(segment: SegmentDiagnosis) -> tuple[str, str]:
    """The outcome with where it broke, and what that means with the loss."""
    if segment.outcome is None:
        return "cannot be judged", segment.why_undecided
    where = f" {where_words(segment)}" if segment.broke_between else ""
    still = ", not back at the end" if is_still_up(segment) else ""
    return f"{segment.outcome.upper()}{where}{still}", f"{_meaning(segment)}; {loss_words(segment)}"


def is_still_up(segment: SegmentDiagnosis) -> bool:
    """Whether a run that spiked had not come back from the last spike."""
    return segment.outcome == "spiked" and not all(spike.recovered for spike in segment.spikes)


def _meaning(segment: SegmentDiagnosis) -> str:
    assert segment.outcome is not None
    if is_still_up(segment):
        return "has loss spikes; the last was not over when the log ended"
    if any(finding.kind == "no-step-taken" for finding in segment.findings):
        return "no step was taken: every one was skipped"
    return OUTCOMES[segment.outcome]


def broke_in(segment: SegmentDiagnosis) -> tuple[str, ...]:
    """The steps in which it broke: that of the first bad row alone, or from the one after the last good row to it."""
    if segment.broke_between is None:
        return ()
    good, bad = segment.broke_between
    if not (good.is_integer() and bad.is_integer()):  # parts of an epoch
        return f"{good:.4g}", f"{bad:.4g}"
    return (step(bad),) if bad - good <= 1 else (step(good + 1), step(bad))


def where_words(segment: SegmentDiagnosis) -> str:
    """In which steps it broke; nothing if it did not."""
    match broke_in(segment):
        case (at,):
            return f"at step {at}"
        case (first, last):
            return f"between steps {first} and {last}"
        case _:
            return ""


def loss_words(segment: SegmentDiagnosis) -> str:
    """First, lowest and last loss."""
    first, best, last = segment.first_loss, segment.best_loss, segment.last_loss
    lowest = "" if best is None or best in (first, last) else f", lowest {loss(best)}"
    return f"loss {loss(first)} -> {loss(last)}{lowest}"


def loss(value: float | None) -> str:
    """Four digits; what is null was not finite."""
    return "NaN" if value is None else f"{value:.4g}"


def step(value: float) -> str:
    """A step in whole numbers, where it is one."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def read_words(run: Diagnosis) -> str:
    """What was read: the form, from where to where, what is beside the loss, and what the reading says of itself."""
    parts = [run.format]
    if run.segments:
        first = min(segment.first_step for segment in run.segments)
        last = max(segment.last_step for segment in run.segments)
        parts.append(f"{run.step_unit} {step(first)} to {step(last)}")
    parts += run.notes or [f"{run.rows:,} rows of '{run.loss_key}'"]
    beside = [ROLES[role] for role in ROLES if role != "loss" and role in _roles(run.segments)]
    parts += [f"beside it {', '.join(beside)}"] if beside else []
    return "; ".join(part.rstrip(".") for part in parts)


def _roles(segments: Sequence[SegmentDiagnosis]) -> set[str]:
    return {curve.role for segment in segments for curve in segment.curves}


def spike_line(spike: Spike) -> str:
    """A spike with its height, length, and whether it came back."""
    steps = f"step {step(spike.first_step)}" if spike.rows == 1 else f"steps {_span(spike)}"
    length = "1 row" if spike.rows == 1 else f"{spike.rows} rows"
    back = "came back" if spike.recovered else "had not come back by the end"
    return f"spike at {steps} ({length}): {loss(spike.level_before)} -> {loss(spike.peak_loss)}, {back}"


def _span(spike: Spike) -> str:
    return f"{step(spike.first_step)} to {step(spike.last_step)}"
