"""Diagnoses as JUnit XML: a test case for each run."""

from __future__ import annotations

from collections.abc import Iterator

from stresstest.diagnosis.records import Diagnoses, Diagnosis
from stresstest.diagnosis.words import headline, read_words, run_name
from stresstest.reports.junit import Case, Told, render_suite


def render_junit(diagnoses: Diagnoses) -> str:
    """A broken run is a failure, one that cannot be judged is skipped, what was not read is an error."""
    return render_suite("stresstest.diagnose", list(_cases(diagnoses)))


def _cases(diagnoses: Diagnoses) -> Iterator[Case]:
    for run in diagnoses.runs:
        yield _case(run)
    for unread in diagnoses.unread:
        yield Case(unread.path, "error", unread.why)


def _case(run: Diagnosis) -> Case:
    if run.verdict == "stable":
        return Case(run_name(run), properties={"outcome": str(run.outcome)})
    findings = [*(finding for segment in run.segments for finding in segment.findings), *run.findings]
    lines = [read_words(run), *(finding.text for finding in findings), *(f"try: {text}" for text in run.try_next)]
    told: Told = "failure" if run.verdict == "broken" else "skipped"
    return Case(run_name(run), told, headline(run), "\n".join(lines), {"outcome": run.outcome or "undecided"})
