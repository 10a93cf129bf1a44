"""The diagnosis of a log as it is printed, written and returned; `stresstest schema diagnosis` is its JSON Schema."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from stresstest.reports.document import Document
from stresstest.reports.in_python import InPython

LogOutcome = Literal["stable", "spiked", "flat", "rising", "relapsed", "failed-to-train", "exploded", "nonfinite"]
Verdict = Literal["stable", "broken", "undecided"]
Severity = Literal["info", "warning", "broken"]

BROKEN = frozenset({"rising", "relapsed", "failed-to-train", "exploded", "nonfinite"})
DIAGNOSIS_SCHEMA: Literal["stresstest.diagnosis/1"] = "stresstest.diagnosis/1"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Finite = Annotated[float | None, BeforeValidator(_finite)]  # NaN and infinity are null: strict JSON has neither


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spike(_Record):
    """A rise that came back, or had not yet by the end. Losses in the log's unit."""

    first_step: float = Field(description="Step of its first row.")
    last_step: float = Field(description="Step of its last row.")
    rows: int = Field(description="How many rows are high.")
    steps: float = Field(description="How many steps these rows stand for.")
    level_before: Finite = Field(description="Loss before it.")
    peak_loss: Finite = Field(description="Its highest loss; null of one that is infinite.")
    recovered: bool = Field(description="Whether the loss came back to its level before the end.")
    before: tuple[str, ...] = Field((), description="What moved before it.")


class Finding(_Record):
    """A sentence about a log with the numbers that it rests on."""

    kind: str = Field(description="What it is about, in a word that stays.")
    severity: Severity = Field(description="Whether it breaks the run, deserves a look, or is told only.")
    text: str = Field(description="The sentence.")
    first_step: Finite = Field(None, description="Where it begins.")
    last_step: Finite = Field(None, description="Where it ends.")
    evidence: dict[str, Annotated[float | str | None, BeforeValidator(_finite)]] = Field(
        {}, description="The numbers that it rests on, by name."
    )


class DrawnCurve(_Record):
    """A curve as it is drawn: of many rows the lowest and the highest of each of a few hundred stretches."""

    role: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


class SegmentDiagnosis(_Record):
    """One stretch of training without a seam."""

    index: int = Field(description="Its number, from 0: what --segment takes.")
    start: str = Field(description="What began it: start, resume, restart or unknown.")
    first_step: float = Field(description="Step of its first row.")
    last_step: float = Field(description="Step of its last row.")
    rows: int = Field(description="Rows with a train loss.")
    steps_per_row: float = Field(description="How many steps a row stands for.")
    row_kind: str = Field(
        "unknown", description="What a row is: the mean of its steps, of a window, a sample of one step, or unknown."
    )
    zeros_for_nan: int = Field(0, description="Rows whose loss is 0.0 where it was NaN.")
    outcome: LogOutcome | None = Field(description="What became of it; null: it cannot be judged.")
    why_undecided: str = Field("", description="Why it cannot be judged.")
    broke_between: tuple[float, float] | None = Field(
        None, description="Steps of the last good row and of the first bad one."
    )
    first_loss: Finite = Field(None, description="Loss of the first row.")
    best_loss: Finite = Field(None, description="Loss of the lowest row.")
    last_loss: Finite = Field(None, description="Loss of the last row.")
    spikes: tuple[Spike, ...] = Field((), description="Loss spikes, one by one.")
    findings: tuple[Finding, ...] = Field((), description="What moved before, and what else is to be known of it.")
    curves: SkipJsonSchema[tuple[DrawnCurve, ...]] = Field((), exclude=True, repr=False)


class Diagnosis(InPython, _Record):
    """One run of one log."""

    path: str = Field(description="The log as it was named.")
    run: str = Field("", description="Which run of it, where it holds several.")
    format: str = Field(description="The format that it was read as.")
    loss_key: str = Field(description="The column or key that was read as the train loss.")
    step_key: str = Field(description="The one that was read as the step.")
    loss_unit: str = Field("", description="The unit of its losses: nats, bits, or none that is known.")
    step_unit: str = Field("steps", description="What a step counts.")
    rows: int = Field(description="Rows with a train loss.")
    columns: tuple[str, ...] = Field(description="All columns or keys that hold numbers.")
    notes: tuple[str, ...] = Field((), description="What was dropped or mended in reading.")
    verdict: Verdict = Field(description="stable, broken, or undecided: it cannot be judged.")
    outcome: LogOutcome | None = Field(description="Of the worst segment; null if none can be judged.")
    segments: tuple[SegmentDiagnosis, ...] = Field((), description="Its stretches, in the order of the log.")
    findings: tuple[Finding, ...] = Field((), description="What only the whole run shows.")
    try_next: tuple[str, ...] = Field((), description="What to try next, with the command where there is one.")

    def __repr__(self) -> str:
        """A line."""
        from stresstest.diagnosis.words import run_line

        return run_line(self)

    def _document(self) -> Document:
        from stresstest.diagnosis.document import page_of

        return page_of(self)


class UnreadLog(_Record):
    """What could not be read."""

    path: str = Field(description="What was named.")
    why: str = Field(description="Why not.")


class Diagnoses(_Record):
    """Every run of the logs of one call, as `--json` prints it."""

    schema_: Literal["stresstest.diagnosis/1"] = Field(DIAGNOSIS_SCHEMA, description="Name and version of this format.")
    exit_code: int = Field(
        description="0: none broke, 99: one is broken, 3: one cannot be judged, 2: one was not read."
    )
    runs: tuple[Diagnosis, ...] = Field(description="The runs, in the order of the logs.")
    unread: tuple[UnreadLog, ...] = Field((), description="What could not be read.")
    passed_over: tuple[UnreadLog, ...] = Field((), description="Files of folders that hold no loss.")

    def to_json(self) -> str:
        """Strict JSON."""
        return self.model_dump_json(indent=1).replace('"schema_"', '"schema"', 1) + "\n"


def diagnosis_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of what `--json` prints."""
    schema = Diagnoses.model_json_schema(mode="serialization")
    properties = {"schema" if name == "schema_" else name: value for name, value in schema["properties"].items()}
    properties["schema"] = {"const": DIAGNOSIS_SCHEMA, "description": properties["schema"]["description"]}
    required = ["schema" if name == "schema_" else name for name in schema["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "stresstest diagnosis",
        "properties": properties,
        "required": required,
    }
