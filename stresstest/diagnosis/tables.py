"""Diagnoses of logs as tidy tables, for CSV and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stresstest.diagnosis.records import Diagnoses, Diagnosis, Finding, SegmentDiagnosis, Spike
from stresstest.results.columns import Column, column_of
from stresstest.results.tables import Table, table_of

_RUN = {name: column_of(Diagnosis.model_fields[name]) for name in ("path", "run")}
_SEGMENT = {**_RUN, "segment": column_of(SegmentDiagnosis.model_fields["index"])}
RUN_COLUMNS: Mapping[str, Column] = {
    name: column_of(Diagnosis.model_fields[name])
    for name in "path run format loss_key step_key loss_unit step_unit rows verdict outcome".split()
}
SEGMENT_COLUMNS: Mapping[str, Column] = {
    **_SEGMENT,
    **{
        name: column_of(SegmentDiagnosis.model_fields[name])
        for name in "start first_step last_step rows steps_per_row row_kind zeros_for_nan outcome why_undecided".split()
    },
    "last_good_step": Column("number", "Step of the last good row of one that broke."),
    "first_bad_step": Column("number", "Step of the first bad row of one that broke."),
    **{name: column_of(SegmentDiagnosis.model_fields[name]) for name in ("first_loss", "best_loss", "last_loss")},
}
SPIKE_COLUMNS: Mapping[str, Column] = {
    **_SEGMENT,
    **{name: column_of(field) for name, field in Spike.model_fields.items()},
}
FINDING_COLUMNS: Mapping[str, Column] = {
    **_SEGMENT,
    **{name: column_of(field) for name, field in Finding.model_fields.items()},
}
DIAGNOSIS_TABLES: Mapping[str, Mapping[str, Column]] = {
    "runs": RUN_COLUMNS,
    "segments": SEGMENT_COLUMNS,
    "spikes": SPIKE_COLUMNS,
    "findings": FINDING_COLUMNS,
}


def diagnosis_tables(found: Diagnoses) -> dict[str, Table]:
    """Runs, their segments, the loss spikes and the findings; lists of words are joined, evidence is JSON."""
    rows = {
        "runs": (run.model_dump() for run in found.runs),
        "segments": (_segment(run, each) for run in found.runs for each in run.segments),
        "spikes": (row for run in found.runs for row in _spikes(run)),
        "findings": (row for run in found.runs for row in _findings(run)),
    }
    return {name: table_of(each, tuple(DIAGNOSIS_TABLES[name])) for name, each in rows.items()}


def _of(run: Diagnosis, segment: int | None) -> dict[str, Any]:
    return {"path": run.path, "run": run.run, "segment": segment}


def _segment(run: Diagnosis, each: SegmentDiagnosis) -> dict[str, Any]:
    good, bad = each.broke_between or (None, None)
    return {**each.model_dump(), **_of(run, each.index), "last_good_step": good, "first_bad_step": bad}


def _spikes(run: Diagnosis) -> Iterator[dict[str, Any]]:
    for segment in run.segments:
        for spike in segment.spikes:
            yield {**spike.model_dump(), **_of(run, segment.index), "before": "; ".join(spike.before)}


def _findings(run: Diagnosis) -> Iterator[dict[str, Any]]:
    for index, findings in (*((each.index, each.findings) for each in run.segments), (None, run.findings)):
        for finding in findings:
            evidence = json.dumps(finding.evidence) if finding.evidence else ""
            yield {**finding.model_dump(), **_of(run, index), "evidence": evidence}
