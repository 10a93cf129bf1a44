"""Losses that sit where guessing does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stresstest.diagnosis.findings import Known
from tests.diagnosis.findings.building import course, falling, said, segment

NOISE = 0.005 * np.random.default_rng(4).normal(size=60)
OF_CHANCE = {"at-chance", "near-ln-classes", "start-off-chance"}


@pytest.mark.parametrize(
    ("level", "known", "words"),
    [
        (math.log(50257), Known(vocab=50257), "ln(50257) = 10.82"),
        (8.0, Known(vocab=256), "log2(256) = 8 bits"),
        (3.1, Known(baseline=3.1), "the baseline of 3.1"),
    ],
)
def test_a_loss_that_sits_at_a_constant_guess_is_named(level: float, known: Known, words: str) -> None:
    found = said(segment(level + NOISE), course("flat"), known)
    assert words in found["at-chance"].text
    assert set(found) & OF_CHANCE == {"at-chance"}


def test_a_loss_that_passed_chance_on_its_way_is_not_named() -> None:
    assert "at-chance" not in said(segment(falling(60, 11, 5)), course(), Known(vocab=50257))


def test_a_flat_loss_at_ln_2_is_named_without_being_told_the_classes() -> None:
    finding = said(segment(math.log(2) + NOISE / 10), course("flat"))["near-ln-classes"]
    assert "ln(2) = 0.6931" in finding.text


def test_a_loss_that_learned_down_to_ln_2_is_not_at_chance() -> None:
    assert not OF_CHANCE & set(said(segment(falling(60, 3, math.log(2))), course("stable")))


def test_a_flat_loss_elsewhere_is_not_named() -> None:
    assert not OF_CHANCE & set(said(segment(1.234 + NOISE), course("flat")))


@pytest.mark.parametrize(("first", "word"), [(14.0, "above"), (6.0, "below")])
def test_a_start_far_from_chance_is_named(first: float, word: str) -> None:
    found = said(segment(falling(60, first, 3)), course(), Known(vocab=50257))
    assert f", {word} a constant guess" in found["start-off-chance"].text


def test_a_start_at_chance_in_nats_or_bits_or_after_a_resume_is_not_named() -> None:
    known = Known(vocab=256)
    assert "start-off-chance" not in said(segment(falling(60, math.log(256), 3)), course(), known)
    assert "start-off-chance" not in said(segment(falling(60, 8.0, 3)), course(), known)
    assert "start-off-chance" not in said(segment(falling(60, 3, 1), first=900, start="resume"), course(), known)
