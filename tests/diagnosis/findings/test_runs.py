"""What only the whole log shows."""

from __future__ import annotations

import pytest

from stresstest.diagnosis.findings import Known, findings_of_log
from stresstest.logs.curve import FormatFacts
from tests.diagnosis.findings.building import course, falling, log, said_of_log, segment


def test_eight_runs_in_a_log_are_counted_without_the_resumes() -> None:
    parts = [segment(falling(20), start="restart") for _ in range(7)]
    whole = log(segment(falling(20)), *parts, segment(falling(20), first=21, start="resume"))
    assert said_of_log(whole)["several-runs"].evidence["runs"] == 8


def test_one_run_is_not_counted() -> None:
    found = said_of_log(log(segment(falling(20))))
    assert not {"several-runs", "resumed"} & set(found)


@pytest.mark.parametrize(("planned", "is_said"), [(1000, True), (100, False), (103, False), (None, False)])
def test_an_end_before_the_planned_one_is_told(planned: int | None, is_said: bool) -> None:
    whole = log(segment(falling(100)), facts=FormatFacts(planned_steps=planned))
    assert ("ends-early" in said_of_log(whole)) is is_said


def test_epochs_are_not_called_steps() -> None:
    whole = log(segment(falling(20)), segment(falling(20), first=21, start="resume"))
    finding = findings_of_log(whole, (course(), course()), Known(unit="epochs"))[0]
    assert finding.text.startswith("Resumed at epoch 21;")
