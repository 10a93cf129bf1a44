"""What is said of a model that trained at no held learning rate, or had too little to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from stresstest.experiments.lr_range.findings import lr_range_findings
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.reports.numbers import HOW_IT_BROKE
from stresstest.results.records import TRAINED, Bracket, Cell, Finding
from stresstest.results.summary import ranked_rows
from stresstest.specs.profiles import make_spec

SPEC = make_spec(LrRangeSpec, "quick", {"seeds": "1", "num_steps": 60, "hold_steps": 60}).model_dump(mode="json")
OWN = SPEC | {"model": "f.py:build", "variant": ["as-built"]}
NATS = {"name": "own batches", "loss_unit": "nats", "baseline_loss": 3.0, "constant_predictor_known": True}
MSE = NATS | {"loss_unit": "", "baseline_loss": 0.5}

Held = tuple[str, float, float]  # an outcome, the loss at the start, that at the end


def cell(held: Mapping[float, Held], boundary: Bracket, seed: int = 0) -> Cell:
    trials = [
        {
            "lr": at,
            "outcome": outcome,
            "validation_loss": None,
            "initial_loss": start,
            "last_loss": end,
            "best_loss": end,
        }
        for at, (outcome, start, end) in held.items()
    ]
    ramp = {"outcome": "exploded", "learned": False, "hold_monotone": True, "clip_fraction": 0.0, "skipped_steps": 0}
    metrics = {"max_stable_lr": boundary}
    where = {"key": str(seed), "variant": "as-built", "depth": 1, "seed": seed}
    return Cell(**where, status="done", metrics=metrics, ramp=ramp | {"curve": []}, hold=trials)


def findings(
    cells: Sequence[Cell], spec: Mapping[str, Any] = OWN, data: Mapping[str, Any] = NATS
) -> dict[str, Finding]:
    return {found.kind: found for found in lr_range_findings(ranked_rows(cells, "adam"), cells, spec, data)}


def untrained(held: Mapping[float, Held], spec: Mapping[str, Any] = OWN, data: Mapping[str, Any] = NATS) -> str:
    return findings([cell(held, Bracket(low=None, high=None))], spec, data)["never-trained"].text


@pytest.mark.parametrize("outcome", sorted(HOW_IT_BROKE.keys() - {"flat"}))
def test_none_says_how_it_failed_at_the_smallest_lr_with_the_losses_in_their_unit(outcome: str) -> None:
    text = untrained({2**-12: (outcome, 3.75, 3.5), 2**-11: ("exploded", 3.75, 99.0)})
    assert "from 0.00024 to 0.00049 in 60 steps (1 of 1 seeds)" in text
    assert f"At the smallest LR it {HOW_IT_BROKE[outcome]}" in text
    assert "(loss 3.75 nats at the start, 3.5 nats" in text
    assert "3 nats for the best constant predictor)" in text
    assert "99" not in text


def test_a_loss_of_its_own_unit_is_a_bare_number() -> None:
    text = untrained({0.01: ("failed-to-train", 0.75, 0.0123)}, data=MSE)
    assert "(loss 0.75 at the start, 0.0123 at the end, 0.5 for the best constant predictor)" in text
    assert "nats" not in text


def test_the_loss_at_the_start_is_not_passed_off_as_a_constant_predictors() -> None:
    text = untrained({0.01: ("failed-to-train", 3.0, 2.95)}, data=NATS | {"constant_predictor_known": False})
    assert "never gets clearly below its initial loss (loss 3 nats at the start, 2.95 nats at the end)" in text
    assert "constant" not in text


FELL = ("failed-to-train", 8.0, 5.0)
ADVICE: dict[str, tuple[dict[float, Held], str]] = {
    "explodes": ({2**-10: ("exploded", 4.0, 9.0)}, "Start lower (--start-lr 6.1e-05); if it breaks there too, check"),
    "not finite": ({2**-10: ("nonfinite", 4.0, 9.0)}, "Start lower (--start-lr 6.1e-05); if it breaks there too"),
    "relapses": ({2**-10: ("relapsed", 4.0, 2.9)}, "Start lower (--start-lr 6.1e-05)."),
    "falls": (
        {2**-10: FELL, 2**-9: ("exploded", 8.0, 99.0)},
        "Raise --hold-steps: the loss still falls at the smallest LR.",
    ),
    "slow": ({4.0: ("failed-to-train", 8.0, 6.0), 8.0: FELL}, "Try higher LRs (--end-lr 160) or more --hold-steps"),
    "constant": ({2**-10: ("failed-to-train", 3.5, 3.01), 1.0: ("exploded", 3.5, 99.0)}, "shuffled labels"),
    "still": ({2**-10: ("failed-to-train", 4.0, 3.99), 1.0: ("exploded", 4.0, 99.0)}, "stays at its initial value"),
    "other": (
        {2**-10: FELL, 2**-11: ("failed-to-train", 8.0, 7.7), 0.1: ("exploded", 8.0, 99.0)},
        "allows a lower loss",
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_on_the_users_model_is_what_its_losses_bear_out_and_no_other(case: str) -> None:
    held, words = ADVICE[case]
    text = untrained(held)
    assert words in text
    others = [other for _, other in ADVICE.values() if other not in words and words not in other]
    assert not [other for other in others if other in text]
    assert "too deep" not in text
    assert "norm variant" not in text


def test_a_built_in_wiring_may_be_too_deep() -> None:
    text = untrained({2**-10: FELL}, spec=SPEC, data={"name": "synthetic", "baseline_loss": 3.18})
    assert "5 nats at the end, 3.18 nats for the best constant predictor)" in text
    assert "too deep for this variant" in text


FLAT = {2**-8: ("flat", 0.02, 0.0201), 2**-7: ("flat", 0.02, 0.0199), 2**-6: ("relapsed", 0.02, 0.3)}
EDGE = Bracket(low=2**-7, high=2**-6)


def test_where_all_harmless_lrs_are_flat_one_finding_says_so_with_the_numbers() -> None:
    found = findings([cell(FLAT, EDGE, seed) for seed in (0, 1)], data=MSE)
    text = found["too-little-to-learn"].text
    assert "too little to learn in 60 steps to tell progress from noise (2 of 2 seeds; held at 0.0039 to 0.0078" in text
    assert "a loss of 0.02 at the start, 0.0199 at the end of the best, 0.5 for the best constant predictor)" in text
    assert "max_stable_lr is the largest LR that did no harm; raise --hold-steps to see progress." in text
    assert found["highest"].text == (
        "as-built holds the highest learning rate: 0.0078 does no harm, 0.016 breaks it (median of 2 seeds)."
    )
    assert "never-trained" not in found
    assert "no-onset" not in found, "it is said already that there was too little to learn"


@pytest.mark.parametrize("trained", sorted(TRAINED))
def test_one_lr_that_trained_is_enough_to_say_that_it_trains(trained: str) -> None:
    found = findings([cell(FLAT | {2**-7: (trained, 0.02, 0.01)}, EDGE)], data=MSE)
    assert "too-little-to-learn" not in found
    assert "0.0078 trains, 0.016 does not" in found["highest"].text


def test_a_number_that_json_has_none_for_is_left_out() -> None:
    one = cell({0.01: ("nonfinite", 4.0, float("nan"))}, Bracket(low=None, high=None))
    stored = Cell.model_validate_json(one.model_dump_json())
    for each in (one, stored):
        assert "(loss 4 nats at the start, 3 nats for the best" in findings([each])["never-trained"].text
