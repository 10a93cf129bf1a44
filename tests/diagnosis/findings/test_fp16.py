"""Steps that mixed precision skipped."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stresstest.diagnosis.diagnose import diagnose
from tests.diagnosis.findings.building import course, falling, log, said, segment

INF, NAN = math.inf, math.nan
FLAT = 2.44 + 0.01 * np.random.default_rng(0).normal(size=58)
OF_FP16 = {"fp16-skips", "no-step-taken", "no-step-since", "grad-norm-unusable", "loss-scale-floor", "many-skips"}


@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("value", [INF, NAN])
def test_a_single_skipped_step_is_harmless(row: int, value: float) -> None:
    norms = np.ones(17)
    norms[row] = value
    finding = said(segment(falling(17), grad_norm=norms))["fp16-skips"]
    assert finding.severity == "info"
    assert "1 of 17 rows" in finding.text
    assert "Harmless" in finding.text


def test_a_norm_that_is_never_finite_under_a_flat_loss_means_that_nothing_was_trained() -> None:
    found = said(segment(FLAT, every=10, grad_norm=np.full(58, INF)))
    assert found["no-step-taken"].severity == "broken"
    assert "flat at 2.44" in found["no-step-taken"].text
    assert set(found) & OF_FP16 == {"no-step-taken"}


def test_a_run_in_which_no_step_was_taken_is_broken() -> None:
    run = diagnose(log(segment(FLAT, every=10, grad_norm=np.full(58, INF))))
    assert (run.verdict, run.outcome) == ("broken", "failed-to-train")
    assert diagnose(log(segment(falling(58), grad_norm=np.full(58, INF)))).verdict != "broken"


def test_a_norm_that_is_never_finite_under_a_loss_that_falls_is_a_fault_of_the_log() -> None:
    found = said(segment(falling(58), grad_norm=np.full(58, INF)))
    assert set(found) & OF_FP16 == {"grad-norm-unusable"}


def test_a_flat_loss_with_a_finite_norm_was_trained() -> None:
    assert not OF_FP16 & set(said(segment(FLAT, grad_norm=np.ones(58))))


def test_a_norm_that_is_not_finite_to_the_end_dates_the_last_step() -> None:
    norms = np.ones(50)
    norms[30:] = INF
    found = said(segment(falling(50), grad_norm=norms))
    assert "From step 31" in found["no-step-since"].text
    assert "fp16-skips" not in found


def test_the_norm_of_a_nonfinite_run_is_not_called_skipped_steps() -> None:
    losses, norms = falling(50), np.ones(50)
    losses[45:] = norms[44:] = NAN
    assert not OF_FP16 & set(said(segment(losses, grad_norm=norms), course("nonfinite", 45)))


def test_a_loss_scale_at_its_floor_is_named() -> None:
    scale = np.concatenate([2.0 ** np.arange(16, 0, -1), np.ones(20)])
    finding = said(segment(falling(36), loss_scale=scale))["loss-scale-floor"]
    assert "65,536 to 1 by step 17" in finding.text


@pytest.mark.parametrize(
    "scale",
    [np.ones(36), np.full(36, 65536.0), 2.0 ** np.repeat([32, 20, 16, 17, 16, 17], 6)],
    ids=["unscaled", "static", "settled"],
)
def test_a_loss_scale_that_did_not_collapse_is_not_named(scale: np.ndarray) -> None:
    assert "loss-scale-floor" not in said(segment(falling(36), loss_scale=scale))


def test_many_skipped_steps_are_counted_without_the_first_search() -> None:
    skipped = np.zeros(40)
    skipped[:2], skipped[10:20] = 10, 4
    finding = said(segment(falling(40), every=10, skipped=skipped))["many-skips"]
    assert finding.evidence["skipped"] == 40


def test_the_first_search_of_a_loss_scale_is_not_many_skips() -> None:
    skipped = np.zeros(40)
    skipped[:3], skipped[20] = 10, 1
    assert "many-skips" not in said(segment(falling(40), every=10, skipped=skipped))
