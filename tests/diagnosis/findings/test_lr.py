"""Learning-rate schedules: what is said of odd ones, and silence on usual ones."""

from __future__ import annotations

import numpy as np
import pytest

from stresstest.diagnosis.findings import Known
from stresstest.logs.curve import FormatFacts
from tests.diagnosis.findings.building import falling, said, segment

ROWS = 100
PEAK = 3e-4
T = np.arange(ROWS) / ROWS
UP = np.minimum(1, np.arange(1, ROWS + 1) / 10)
COSINE = UP * PEAK * (1 + np.cos(np.pi * T)) / 2
LINEAR = UP * PEAK * (1 - T)
WARMUP_ONLY = PEAK * np.arange(1, ROWS + 1) / 1000
WARNINGS = {"lr-zero", "lr-jump", "lr-restart", "warmup-never-ends", "lr-still-rising", "lr-decayed-early"}

USUAL = {
    "cosine": COSINE,
    "linear": LINEAR,
    "constant": np.full(ROWS, PEAK),
    "from zero, to zero": np.maximum(
        0, np.minimum(np.arange(ROWS) / 10, 1) * PEAK * (1 - np.arange(ROWS) / (ROWS - 1))
    ),
    "inverse square root": PEAK * np.minimum(np.arange(1, ROWS + 1) / 10, np.sqrt(10 / np.arange(1, ROWS + 1))),
    "steps": PEAK * 0.1 ** (np.arange(ROWS) // 30),
    "warm restarts": PEAK * (1 + np.cos(np.pi * (np.arange(ROWS) % 25) / 25)) / 2,
    "one cycle": PEAK * np.interp(np.arange(ROWS), [0, 30, 60, 99], [0.04, 1, 0.04, 1e-4]),
    "exponential warm-up": PEAK * np.minimum(1, 10.0 ** (np.arange(ROWS) / 5 - 3)),
    "float32": COSINE.astype(np.float32).astype(float),
    "cosine in three decimals": np.round(1e-3 * (1 + np.cos(np.pi * T)) / 2, 4),
    "warm-up, stable, decay": PEAK * np.interp(np.arange(ROWS), [0, 5, 80, 99], [0.01, 1, 1, 0]),
    "stairs of an epoch each": PEAK * np.minimum(1, np.concatenate([[1e-3] * 20, np.repeat([0.25, 0.5, 0.75, 1], 20)])),
    "one low epoch": np.concatenate([np.full(8, 1e-6), LINEAR[8:]]),
    "plateau that halves": PEAK * 0.5 ** (np.arange(ROWS) // 20),
}


@pytest.mark.parametrize("name", USUAL)
def test_a_usual_schedule_is_only_described(name: str) -> None:
    found = said(segment(falling(ROWS), lr=USUAL[name]))
    assert not WARNINGS & set(found)
    assert found["lr-schedule"].severity == "info"


def test_a_schedule_is_told_in_a_line() -> None:
    text = said(segment(falling(ROWS), every=10, lr=LINEAR))["lr-schedule"].text
    assert text == "LR peak 0.000273 at step 100 after a warm-up from 3e-05, last 3e-06."


def test_an_lr_of_zero_throughout_is_named_where_the_loss_does_not_move() -> None:
    flat = 2 + 0.01 * np.random.default_rng(0).normal(size=ROWS)
    assert "nothing was trained" in said(segment(flat, lr=np.zeros(ROWS)))["lr-zero"].text
    assert "lr-zero" not in said(segment(falling(ROWS), lr=np.zeros(ROWS))), "the log rounds"


def test_a_jump_of_ten_times_is_named_with_its_step() -> None:
    lr = np.where(np.arange(ROWS) < 50, 1e-4, 1e-3)
    finding = said(segment(falling(ROWS), lr=lr))["lr-jump"]
    assert "0.0001 to 0.001 (10 times) at step 51" in finding.text


def test_a_warmup_that_began_again_is_a_restart_before_it_is_done() -> None:
    again = np.concatenate([COSINE[:60], WARMUP_ONLY[:40]])
    assert "began again" in said(segment(falling(ROWS), lr=again))["lr-restart"].text


def test_a_jump_within_a_warmup_is_named_too() -> None:
    lr = np.concatenate([LINEAR[:5], 20 * LINEAR[5:]])
    assert "at step 6." in said(segment(falling(ROWS), lr=lr))["lr-jump"].text


def test_a_schedule_that_began_again_once_is_named() -> None:
    lr = np.concatenate([LINEAR[:70], LINEAR[:30]])
    found = said(segment(falling(ROWS), lr=lr))
    assert "its schedule began again" in found["lr-restart"].text
    assert found["lr-restart"].evidence["lr_before"] == pytest.approx(LINEAR[69], rel=0.9)


@pytest.mark.parametrize(
    ("planned", "kind"), [(ROWS, "warmup-never-ends"), (1000, "lr-still-rising"), (None, "lr-still-rising")]
)
def test_a_warmup_longer_than_the_log_is_a_warning_only_where_the_run_is_done(planned: int | None, kind: str) -> None:
    found = said(segment(falling(ROWS), lr=WARMUP_ONLY), known=Known(FormatFacts(planned_steps=planned)))
    assert WARNINGS & set(found) == {kind}


def test_a_schedule_that_ended_long_before_the_log_is_named() -> None:
    lr = np.maximum(0, PEAK * (1 - np.arange(ROWS) / 60))
    finding = said(segment(falling(ROWS), every=10, lr=lr))["lr-decayed-early"]
    assert "from step 610 to the end, 40% of the log" in finding.text
