"""A diagnosis as a report."""

from __future__ import annotations

from stresstest.diagnosis.records import Diagnosis
from stresstest.reports.document import Document, Item, Items


def document_of(diagnosis: Diagnosis) -> Document:
    """What was read, the verdict, each stretch, the findings, and what to try."""
    items = [
        Item(
            f"steps {segment.first_step:g} to {segment.last_step:g}: {segment.outcome or segment.why_undecided}",
            "bad" if diagnosis.verdict == "broken" else "good",
        )
        for segment in diagnosis.segments
    ]
    return Document(
        name="diagnosis",
        title=f"{diagnosis.path}: {diagnosis.outcome or 'cannot be judged'}",
        subtitle=f"{diagnosis.format}, {diagnosis.rows} rows, loss '{diagnosis.loss_key}'",
        blocks=(Items(tuple(items)),),
        findings=tuple(finding.text for finding in diagnosis.findings),
    )
