"""A loss that became NaN: between which steps, what of the rows before, and zeros that stand for it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from stresstest.diagnosis.findings import Known
from stresstest.logs.curve import FormatFacts
from tests.diagnosis.findings.building import course, falling, said, segment

NAN = math.nan
ZERO_FOR_NAN = Known(FormatFacts(zero_for_nan=True))


def test_a_nan_gradient_norm_dates_the_break_back_to_the_row_that_was_still_finite() -> None:
    part = segment(
        [1.378, 0.821, 1.039, NAN, NAN, NAN],
        every=5,
        zeros=3,
        grad_norm=[2.5, 1.0, NAN, NAN, NAN, NAN],
        lr=[5e-5, 4.2e-5, 3.4e-5, 2.6e-5, 1.8e-5, 1e-5],
    )
    finding = said(part, course("nonfinite", 3), ZERO_FOR_NAN)["became-nonfinite"]
    assert finding.severity == "broken"
    assert "between steps 11 and 15" in finding.text
    assert "1.039" in finding.text
    assert "cannot be trusted" in finding.text
    assert "step 10, loss 0.821, LR 4.2e-05" in finding.text
    assert (finding.first_step, finding.last_step) == (10, 15)


def test_without_a_gradient_norm_the_break_lies_in_the_first_row_that_is_not_finite() -> None:
    part = segment([1.4, 0.8, 1.0, NAN, NAN], every=5)
    assert "between steps 16 and 20" in said(part, course("nonfinite", 3))["became-nonfinite"].text


def test_rows_that_go_on_without_a_loss_are_told_with_what_stands_in_them() -> None:
    part = replace(segment([3, 2, 1], lr=[0.1] * 9), missing_from=4.0, missing_rows=6)
    finding = said(part, course(None))["loss-missing"]
    assert finding.text.startswith("The loss is missing from step 4 on (6 rows), while the LR goes on")
    assert finding.first_step == 4
    assert "loss-missing" not in said(segment([3, 2, 1], lr=[0.1] * 9), course())


def test_an_isolated_infinite_norm_long_before_is_not_where_it_began() -> None:
    part = segment([3, 2.9, 2.8, 2.7, NAN], grad_norm=[math.inf, 1, 1, 1, NAN])
    finding = said(part, course("nonfinite", 4))["became-nonfinite"]
    assert "from the row of step 5 on. Last finite row: step 4" in finding.text
    assert finding.evidence["last_finite_step"] == 4


def test_a_log_without_a_good_row_says_so() -> None:
    text = said(segment([NAN] * 4), course("nonfinite", 0))["became-nonfinite"].text
    assert "no row is good" in text
    assert "Last finite row" not in text


def test_an_infinite_loss_is_called_infinite() -> None:
    assert "infinite" in said(segment([3, 2, math.inf, NAN]), course("nonfinite", 2))["became-nonfinite"].text


def test_a_finite_loss_is_never_called_nonfinite() -> None:
    kinds = said(segment(falling(50), grad_norm=np.ones(50)))
    assert not {"became-nonfinite", "nonfinite-rows", "zeros-for-nan"} & set(kinds)


def test_zeros_that_stand_for_nan_are_named_with_trainers_filter() -> None:
    part = segment([1.0, 0.9, NAN, NAN], zeros=2)
    text = said(part, course("nonfinite", 2), ZERO_FOR_NAN)["zeros-for-nan"].text
    assert "2 rows" in text
    assert "logging_nan_inf_filter" in text
    assert "train_loss" in text


def test_zeros_of_another_tool_are_not_blamed_on_trainer() -> None:
    part = segment([1.0, 0.9, NAN], zeros=1)
    assert "Trainer" not in said(part, course("nonfinite", 2))["zeros-for-nan"].text


def test_rows_that_are_nan_in_a_loss_that_goes_on_are_counted() -> None:
    losses = falling(50)
    losses[[10, 30]] = NAN
    finding = said(segment(losses), course("stable"))["nonfinite-rows"]
    assert "2 of 50 rows" in finding.text
    assert "step 11" in finding.text


def test_a_loss_that_exploded_before_it_was_lost_says_so() -> None:
    exploded = said(segment([23.8, 90.0, 2e5, 1.6e13, math.inf, NAN]), course("nonfinite", 4))["became-nonfinite"]
    assert "exploded before: 2e+05 at step 3" in exploded.text
    calm = said(segment([3, 2.9, 2.8, 3.4, NAN]), course("nonfinite", 4))["became-nonfinite"]
    assert "exploded" not in calm.text


def test_fractions_of_an_epoch_are_not_counted_up() -> None:
    part = segment([3, 2, NAN], every=0.125)
    assert "after step 0.25, by step 0.375" in said(part, course("nonfinite", 2))["became-nonfinite"].text
