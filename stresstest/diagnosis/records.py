"""The diagnosis of a log as it is printed, written and returned; `stresstest schema diagnosis` is its JSON Schema."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

LogOutcome = Literal["stable", "spiked", "flat", "rising", "relapsed", "failed-to-train", "exploded", "nonfinite"]
Verdict = Literal["stable", "broken", "undecided"]
Severity = Literal["info", "warning", "broken"]

BROKEN = frozenset({"rising", "relapsed", "failed-to-train", "exploded", "nonfinite"})


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Spike(_Record):
    """A rise that came back, or had not yet by the end. Losses in the log's unit, both ends of the steps included."""

    first_step: float
    last_step: float
    rows: int
    steps: float
    level_before: float
    peak_loss: float
    recovered: bool
    before: tuple[str, ...] = ()


class Finding(_Record):
    """A sentence about a log with the numbers that it rests on; `kind` is stable, for programs."""

    kind: str
    severity: Severity
    text: str
    first_step: float | None = None
    last_step: float | None = None
    evidence: dict[str, float | str | None] = {}


class SegmentDiagnosis(_Record):
    """One stretch. `broke_between` are the steps of the last good row and of the first bad one."""

    index: int
    start: str
    first_step: float
    last_step: float
    rows: int
    steps_per_row: float
    outcome: LogOutcome | None
    why_undecided: str = ""
    broke_between: tuple[float, float] | None = None
    first_loss: float | None = None
    best_loss: float | None = None
    last_loss: float | None = None
    spikes: tuple[Spike, ...] = ()
    findings: tuple[Finding, ...] = ()


class Diagnosis(_Record):
    """One run of one log."""

    schema_: Literal["stresstest.diagnosis/1"] = "stresstest.diagnosis/1"
    path: str
    run: str = ""
    format: str
    loss_key: str
    step_key: str
    rows: int
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    verdict: Verdict
    outcome: LogOutcome | None
    segments: tuple[SegmentDiagnosis, ...] = ()
    findings: tuple[Finding, ...] = ()
    try_next: tuple[str, ...] = ()
