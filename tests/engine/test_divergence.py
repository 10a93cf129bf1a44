"""Tests of the outcome rules: a sentence for each, properties on random curves, a small calibration."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.engine.divergence import Detector, judge
from stresstest.engine.outcomes import Judgement, Reason, Reference, Rules

LANGUAGE = Reference(initial_loss=6.2, initial_std=0.02, baseline_loss=3.28, chance_loss=5.55)
FAR_START = replace(LANGUAGE, initial_loss=50.0)
NEGATIVE = Reference(initial_loss=-1.0, initial_std=0.02, baseline_loss=-1.2, chance_loss=0.0)
NEAR_ZERO = Reference(initial_loss=0.05, initial_std=0.001, baseline_loss=0.04, chance_loss=0.05)
RULES = Rules(  # written out: these tests are of the rules, not of the choice of constants
    level_window=5,
    persistence=3,
    patience=50,
    explosion_share=0.1,
    explosion_sigmas=3.0,
    far_above_chance=0.5,
    relapse_share=0.5,
    recovery_share=0.25,
    progress_share=0.05,
    noise_sigmas=3.0,
)
LEARNED = [6.2] * 5 + [4.0] * 5 + [2.7] * 20  # the next step is 30
CALIBRATION = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "outcome_calibration.py"))


def judged(losses: list[float], reference: Reference = LANGUAGE, patience: float | None = None) -> Judgement:
    return judge(losses, reference, RULES, patience)


def fed(losses: list[float], reference: Reference = LANGUAGE, patience: float | None = None) -> Detector:
    detector = Detector(reference, RULES, patience)
    for loss in losses:
        detector.update(loss, "" if math.isfinite(loss) else "loss")
    return detector


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 1, 7, 30])
def test_a_non_finite_loss_is_nonfinite_at_its_step_whatever_follows(value: float, step: int) -> None:
    result = judged([*LEARNED[:step], value, *LEARNED])
    assert (result.outcome, result.reason, result.explosion_step) == ("nonfinite", "loss", step)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_enters_neither_level_nor_best(value: float) -> None:
    result = judged([*LEARNED, value, 2.0, 2.0, 2.0])
    assert (result.best_loss, result.last_loss) == (2.7, 2.7)


@pytest.mark.parametrize(("reason", "step"), [("loss", 30), ("gradient", 30), ("parameter", 31)])
def test_a_broken_parameter_counts_from_the_next_loss(reason: Reason, step: int) -> None:
    detector = fed(LEARNED)
    detector.update(2.7, reason)
    result = detector.judgement()
    assert (result.outcome, result.reason, result.explosion_step) == ("nonfinite", reason, step)


def test_breaking_began_with_the_collapse_that_went_before_or_else_with_the_non_finite_loss() -> None:
    assert judged([*LEARNED, math.nan]).onset_step == 30
    result = judged([*LEARNED, *[3.28] * 20, math.nan])
    assert (result.outcome, result.onset_step, result.explosion_step) == ("nonfinite", 30, 50)


@pytest.mark.parametrize(("steps", "found"), [(1, None), (2, None), (3, 30), (9, 30)])
def test_an_explosion_must_last(steps: int, found: int | None) -> None:
    result = judged([*LEARNED, *[30.0] * steps, *[2.7] * 30])
    assert result.outcome == ("exploded" if found else "stable")
    assert (result.onset_step, result.explosion_step) == (found, found)


def test_however_long_an_explosion_must_last_it_is_dated_to_its_first_loss() -> None:
    result = judge([*LEARNED, *[30.0] * 8], LANGUAGE, replace(RULES, persistence=6))
    assert (result.onset_step, result.explosion_step) == (30, 30)


@pytest.mark.parametrize("loss", [3.28, 30.0])
def test_excursions_of_the_level_for_two_steps_do_not_add_up(loss: float) -> None:
    twice = [loss, 2.7, loss, loss, *[2.7] * 20] * 2
    assert judged([*LEARNED, *twice]).outcome == "stable"


@pytest.mark.parametrize(("std", "below", "above"), [(0.02, 6.81, 6.83), (0.5, 7.69, 7.71)], ids=["share", "spread"])
def test_an_explosion_is_above_the_start_by_a_share_and_by_its_spread(std: float, below: float, above: float) -> None:
    reference = replace(LANGUAGE, initial_std=std)
    assert judged([*LEARNED, *[below] * 20], reference).outcome == "relapsed"
    assert judged([*LEARNED, *[above] * 20], reference).outcome == "exploded"


def test_what_follows_an_explosion_is_not_looked_at() -> None:
    exploded = [*LEARNED, *[30.0] * 5]
    assert judged([*exploded, *[1.0] * 50, math.nan]) == judged(exploded)


def test_a_start_far_above_chance_is_the_ceiling_until_the_loss_has_come_below_chance() -> None:
    early = [*[50.0] * 5, *[6.0] * 20, *[20.0] * 20]
    assert judged(early, FAR_START).explosion_step is None
    assert judged([*early, *[56.0] * 5], FAR_START).explosion_step == 45


@pytest.mark.parametrize(("loss", "outcome"), [(6.0, "relapsed"), (6.2, "exploded"), (20.0, "exploded")])
def test_a_start_far_above_chance_then_gives_way_to_chance(loss: float, outcome: str) -> None:
    result = judged([*[50.0] * 5, *[2.3] * 25, *[loss] * 20], FAR_START)
    assert (result.outcome, result.onset_step) == (outcome, 30)


@pytest.mark.parametrize("initial", [4.5, 6.2, 60.0])
def test_the_collapse_to_the_constant_predictor_is_seen_from_any_start(initial: float) -> None:
    result = judged([initial] * 5 + LEARNED[5:] + [3.28] * 20, replace(LANGUAGE, initial_loss=initial))
    assert (result.outcome, result.onset_step, result.explosion_step) == ("relapsed", 30, None)


@pytest.mark.parametrize(("loss", "outcome"), [(2.98, "stable"), (3.0, "relapsed"), (3.28, "relapsed")])
def test_a_relapse_gives_back_half_of_what_was_learned(loss: float, outcome: str) -> None:
    assert judged([*LEARNED, *[loss] * 20]).outcome == outcome


def test_what_started_below_the_constant_predictor_learns_from_its_start() -> None:
    pretrained = replace(LANGUAGE, initial_loss=2.6)
    assert judged([*[2.6] * 5, *[2.5] * 50], pretrained).outcome == "failed-to-train"
    assert judged([*[2.6] * 5, *[2.0] * 25, *[2.4] * 20], pretrained).onset_step == 30


@pytest.mark.parametrize("step", [11, 12, 30, 57])
@pytest.mark.parametrize("loss", [3.28, 9.0])
def test_the_onset_is_the_first_bad_loss_and_does_not_lag(loss: float, step: int) -> None:
    assert judged([*[6.2] * 4, *[2.7] * (step - 4), *[loss] * 20]).onset_step == step


@pytest.mark.parametrize(("length", "outcome"), [(1, "stable"), (2, "stable"), (3, "spiked"), (40, "spiked")])
def test_what_left_and_came_back_has_spiked(length: int, outcome: str) -> None:
    result = judged([*LEARNED, *[3.28] * length, *[2.7] * 20])
    assert (result.outcome, result.onset_step) == (outcome, None)


@pytest.mark.parametrize(("back_to", "outcome"), [(2.86, "spiked"), (2.88, "relapsed")])
def test_coming_back_part_of_the_way_is_no_recovery(back_to: float, outcome: str) -> None:
    assert judged([*LEARNED, *[3.28] * 10, *[back_to] * 30]).outcome == outcome


@pytest.mark.parametrize(("loss", "outcome"), [(3.19, "stable"), (3.21, "relapsed")])
def test_what_learned_little_and_kept_almost_nothing_has_relapsed(loss: float, outcome: str) -> None:
    little = [*[6.2] * 5, *[3.08] * 25]
    result = judged([*little, *[loss] * 20])
    assert (result.outcome, result.onset_step) == (outcome, 30 if outcome == "relapsed" else None)
    assert judged([*little, *[3.28] * 10, *[3.19] * 10]).outcome == "spiked"


def test_the_onset_is_that_of_the_last_relapse() -> None:
    result = judged([*LEARNED, *[3.28] * 10, *[2.7] * 10, *[3.28] * 10])
    assert (result.outcome, result.onset_step) == ("relapsed", 50)


@pytest.mark.parametrize(("length", "found"), [(1, None), (4, None), (5, 30)])
@pytest.mark.parametrize(("loss", "outcome"), [(3.28, "relapsed"), (30.0, "exploded")])
def test_what_breaks_in_the_very_last_steps_is_not_called(
    loss: float, outcome: str, length: int, found: int | None
) -> None:
    result = judged([*LEARNED, *[loss] * length])
    assert (result.outcome, result.onset_step) == (outcome if found else "stable", found)


@pytest.mark.parametrize(
    ("at", "level"),
    [(LANGUAGE, 6.2), (LANGUAGE, 3.28), (LANGUAGE, 3.2), (NEGATIVE, -1.25), (NEAR_ZERO, 0.039)],
)
def test_never_clearly_below_the_constant_predictor_is_failed_to_train(at: Reference, level: float) -> None:
    result = judged([at.initial_loss] * 5 + [level] * 50, at)
    assert (result.outcome, result.learned, result.onset_step) == ("failed-to-train", False, None)


@pytest.mark.parametrize("end", [30.0, math.inf, math.nan])
def test_what_never_trained_has_no_onset_even_where_it_explodes(end: float) -> None:
    result = judged([*[6.2] * 5, *[3.28] * 25, *[end] * 10])
    assert result.outcome == ("exploded" if end == 30.0 else "nonfinite")
    assert (result.onset_step, result.explosion_step) == (None, 30)


def test_differences_within_the_noise_of_the_level_mean_nothing() -> None:
    noisy = replace(LANGUAGE, noise=0.15)
    assert judged([*LEARNED, *[3.0] * 20], noisy).outcome == "stable"
    assert judged([*LEARNED, *[3.2] * 20], noisy).outcome == "relapsed"
    assert judged([6.2] * 5 + [2.9] * 50, noisy).outcome == "failed-to-train"


@pytest.mark.parametrize(
    ("reference", "best", "relapse", "explosion"),
    [(NEGATIVE, -6.0, -0.91, -0.89), (NEAR_ZERO, 0.001, 0.054, 0.056)],
    ids=["negative", "near zero"],
)
def test_losses_may_be_negative_or_next_to_nothing(
    reference: Reference, best: float, relapse: float, explosion: float
) -> None:
    start = [reference.initial_loss] * 5 + [best] * 25
    assert judged(start, reference).outcome == "stable"
    for loss, outcome in ((relapse, "relapsed"), (explosion, "exploded")):
        result = judged([*start, *[loss] * 20], reference)
        assert (result.outcome, result.onset_step) == (outcome, 30)


@pytest.mark.parametrize("loss", [3.28, 30.0])
def test_under_a_constant_lr_a_break_is_settled_after_the_patience_and_a_nan_at_once(loss: float) -> None:
    broken = [*LEARNED, *[loss] * (RULES.patience + 1)]  # the level follows two steps later
    assert not fed(broken, patience=RULES.patience).settled
    assert fed([*broken, loss], patience=RULES.patience).settled
    assert not fed([*LEARNED, *[loss] * 30, *[2.7] * 5, *[loss] * 30], patience=RULES.patience).settled
    assert fed([*LEARNED, math.nan], patience=RULES.patience).settled
    assert fed(broken * 3).settled == (loss == 30.0), "on a ramp a relapse goes on to explode"
    assert fed([*LEARNED, *[30.0] * 5]).settled


@pytest.mark.parametrize("patience", [50, math.inf])
def test_under_a_constant_lr_a_loss_may_be_thrown_up_and_come_back(patience: float) -> None:
    thrown = [6.2, *[30.0] * 20]
    assert judged([*thrown, *LEARNED]).outcome == "exploded", "on a ramp it never comes back"
    assert judged([*thrown, *LEARNED], patience=patience).outcome == "spiked"
    assert judged([*thrown, *LEARNED], patience=patience).explosion_step is None
    assert judged([*thrown, *[3.28] * 30], patience=patience).outcome == "failed-to-train"
    result = judged(thrown, patience=patience)
    assert (result.outcome, result.explosion_step) == ("exploded", 1), "where it ends is what counts"


def test_a_loss_that_stays_up_beyond_the_patience_has_exploded_whatever_follows() -> None:
    curve = [6.2, *[30.0] * 70, *LEARNED]
    assert judged(curve, patience=50).outcome == "exploded"
    assert judged(curve, patience=math.inf).outcome == "spiked"


ONE = st.sampled_from([2.7, 3.28, 6.2, 9.0, math.nan, math.inf]) | st.floats(-20, 60, width=32)
STRETCHES = st.lists(st.tuples(ONE, st.integers(1, 9)), max_size=8)
CURVES = STRETCHES.map(lambda parts: [loss for loss, length in parts for _ in range(length)])
PATIENCE = st.sampled_from([None, 4, math.inf])
REFERENCES = st.sampled_from([LANGUAGE, FAR_START, NEGATIVE, NEAR_ZERO, replace(LANGUAGE, noise=0.2)])
any_curve = settings(derandomize=True, deadline=None, max_examples=150)


@any_curve
@given(CURVES, REFERENCES, PATIENCE)
def test_every_prefix_fed_step_by_step_is_judged_as_a_whole_curve(
    losses: list[float], at: Reference, patience: float | None
) -> None:
    detector = Detector(at, RULES, patience)
    for end, loss in enumerate(losses, 1):
        detector.update(loss, "" if math.isfinite(loss) else "loss")
        assert repr(detector.judgement()) == repr(judged(losses[:end], at, patience))


@any_curve
@given(CURVES, CURVES, REFERENCES, PATIENCE)
def test_nothing_appended_changes_what_is_over(
    losses: list[float], more: list[float], at: Reference, patience: float | None
) -> None:
    assert repr(judged(losses, at)) == repr(judged(losses, at)), "and judging again gives the same"
    if fed(losses, at, patience).over:
        assert repr(judged(losses + more, at, patience)) == repr(judged(losses, at, patience))


@any_curve
@given(CURVES, REFERENCES, PATIENCE)
def test_the_onset_is_never_after_the_explosion_and_only_of_what_learned(
    losses: list[float], at: Reference, patience: float | None
) -> None:
    result = judged(losses, at, patience)
    assert (result.explosion_step is not None) == (result.outcome in ("exploded", "nonfinite"))
    if result.onset_step is not None:
        assert result.learned
        assert result.outcome in ("relapsed", "exploded", "nonfinite")
        last = len(losses) - 1 if result.explosion_step is None else result.explosion_step
        assert 0 <= result.onset_step <= last < len(losses)


@any_curve
@given(CURVES, REFERENCES, st.integers(-8, 8))
def test_the_unit_of_the_loss_does_not_matter(losses: list[float], at: Reference, octaves: int) -> None:
    unit = 2.0**octaves
    scaled = Reference(**{name: unit * value for name, value in vars(at).items()})
    before, after = judged(losses, at), judged([unit * loss for loss in losses], scaled)
    steps = (before.onset_step, before.explosion_step)
    assert (after.outcome, after.onset_step, after.explosion_step) == (before.outcome, *steps)


# Wrong at most so often in 40 curves: the 99.9 % quantile at the rate in 500 curves, given in brackets; of
# every other family none was wrong in 500. With a persistence of 3, 3 losses above l0 are an explosion.
WRONG = {
    "noisy plateau, x1.5": {"word": 2},  # (0.4 %)
    "noisy plateau, x2": {"false": 2, "word": 11},  # (0.4 %; 10.8 %, nearly all `spiked`)
    "constant noise 10-30 %": {"false": 2, "word": 13},  # (0.2 %; 14 %, nearly all `spiked`)
    "spike, 3-4, above l0": {"false": 40, "word": 40},  # (99.8 %)
    "collapse, partly back": {"missed": 3, "word": 3},  # (1 %)
    "never, constant noise": {"false": 6, "word": 6},  # (3 %, 3.2 %)
    "negative, stable": {"word": 3},  # (0.8 %)
}


@pytest.mark.parametrize("family", CALIBRATION["FAMILIES"])
def test_planted_curves_are_called_by_their_truth(family: str) -> None:
    row = CALIBRATION["score"](CALIBRATION["curves"](family, 40), RULES)
    for error in ("false", "missed", "word"):
        assert row[error] <= WRONG.get(family, {}).get(error, 0), error


@pytest.mark.parametrize("family", ["collapse", "collapse, then NaN", "explosion", "huge losses, then NaN"])
def test_planted_breaks_are_dated_to_the_step(family: str) -> None:
    row = CALIBRATION["score"](CALIBRATION["curves"](family, 40), RULES)
    assert abs(row["onset"]) <= 1
    assert abs(row.get("blow-up worst", 0)) <= 4  # in 500 curves; 2 unless huge losses ended in a NaN
