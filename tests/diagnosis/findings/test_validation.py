"""Where validation turned."""

from __future__ import annotations

import numpy as np
import pytest

from stresstest.diagnosis.course import Course
from stresstest.logs.curve import Curve
from stresstest.logs.segments import Segment
from tests.diagnosis.findings.building import course, curve, falling, said


def with_validation(values: list[float]) -> Segment:
    rows = 10 * len(values)
    train = curve(np.linspace(3, 0.2, rows))
    steps = 10.0 * np.arange(1, len(values) + 1)
    return Segment(train, {"validation": Curve(steps, np.array(values), np.arange(len(values)))})


def test_the_best_evaluation_and_the_rise_since_are_told() -> None:
    finding = said(with_validation([2.0, 1.5, 1.2, 1.3, 1.45, 1.6]))["overfitting"]
    assert finding.severity == "info"
    assert "best at step 30 (1.2) and has risen to 1.6 since, over 3 evaluations" in finding.text


@pytest.mark.parametrize(
    "values",
    [
        [2.0, 1.5, 1.3, 1.2, 1.15, 1.12],
        [2.0, 1.2, 1.3],
        [1.20, 1.15, 1.22, 1.14, 1.21, 1.16, 1.19, 1.17],
        [2.0, 1.5, 1.2, 1.9, 1.4, 1.25],
        [2.0, 1.5, 1.2, 1.205, 1.206, 1.207],
    ],
    ids=["falls", "too few", "jitter", "came back", "by a hair"],
)
def test_validation_that_has_not_turned_is_not_named(values: list[float]) -> None:
    assert "overfitting" not in said(with_validation(values))


@pytest.mark.parametrize("outcome", [course("exploded", 30), course("nonfinite", 30)])
def test_a_broken_run_does_not_overfit(outcome: Course) -> None:
    assert "overfitting" not in said(with_validation([2.0, 1.5, 1.2, 5, 8, 9]), outcome)


def test_a_train_loss_that_rises_as_well_is_no_overfitting() -> None:
    part = with_validation([2.0, 1.5, 1.2, 1.3, 1.45, 1.6])
    rising = Segment(curve(np.concatenate([falling(30), np.linspace(1.2, 2.5, 30)])), part.others)
    assert "overfitting" not in said(rising)


def test_evaluations_before_the_first_train_loss_do_not_count() -> None:
    part = with_validation([0.4, 0.5, 0.5, 2.0, 1.5, 1.3, 1.2])
    curve = part.others["validation"]
    rows = np.array([0, 1, 2, 31, 41, 51, 61])
    train = Curve(part.loss.step, part.loss.value, part.loss.row + 5)
    assert "overfitting" in said(Segment(train, {"validation": Curve(curve.step, curve.value, rows + 6)}))
    assert "overfitting" not in said(Segment(train, {"validation": Curve(curve.step, curve.value, rows)}))
