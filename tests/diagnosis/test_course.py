"""What becomes of curves whose course is known, since it was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stresstest.diagnosis.course import Course, course_of, courses_of
from stresstest.engine.divergence import judge
from stresstest.engine.outcomes import Reference
from stresstest.logs.curve import Curve, Floats, RowKind
from stresstest.logs.segments import Segment

NAN, INF = float("nan"), float("inf")


def segment(losses: Floats | list[float], steps_per_row: float = 1.0, kind: RowKind = "unknown") -> Segment:
    values = np.asarray(losses, dtype=float)
    steps = np.arange(len(values)) * steps_per_row
    return Segment(Curve(steps, values, np.arange(len(values))), steps_per_row=steps_per_row, row_kind=kind)


def judged(losses: Floats | list[float], steps_per_row: float = 1.0, kind: RowKind = "unknown") -> Course:
    return course_of(segment(losses, steps_per_row, kind))


def fall(rows: int, noise: float = 0.05, seed: int = 0) -> Floats:
    """A power law from 6 towards 2, with normal noise."""
    rng = np.random.default_rng(seed)
    return np.asarray(2 + 4 * np.arange(1, rows + 1) ** -0.5 + noise * rng.standard_normal(rows))


NOISES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "normal, of batches that grow": lambda rng, n: rng.standard_normal(n) * np.linspace(3, 0.3, n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
    "log-normal": lambda rng, n: rng.lognormal(sigma=0.8, size=n) - np.exp(0.32),
    "Student's t with 4 degrees": lambda rng, n: rng.standard_t(4, n),
    "smoothed over 20 rows": lambda rng, n: np.convolve(rng.standard_normal(n + 19), np.ones(20) / 20, "valid") * 4.5,
}


@pytest.mark.parametrize("noise", NOISES)
def test_a_fall_with_noise_is_stable_in_all_but_two_of_a_hundred_logs(noise: str) -> None:
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(150):
        rows, power = int(rng.integers(20, 3000)), rng.uniform(0.1, 0.8)
        kinds: list[RowKind] = ["window"] if noise.startswith("smoothed") else ["mean", "sample", "unknown"]
        kind, steps_per_row = kinds[rng.integers(len(kinds))], int(rng.choice([1, 10, 100]))
        scatter = NOISES[noise](rng, rows * (steps_per_row if kind == "mean" else 1)).reshape(rows, -1).mean(axis=1)
        curve = 1 + 3 * np.arange(1, rows + 1) ** -power + 10 ** rng.uniform(-2.5, -0.8) * scatter
        wrong += judged(curve, steps_per_row, kind).outcome not in ("stable", None)
    assert wrong <= 3


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_beginning_of_a_fall_is_neither_broken_nor_flat(share: float) -> None:
    outcomes = [judged(fall(400, seed=seed)[: int(400 * share)]).outcome for seed in range(100)]
    assert outcomes.count("stable") >= 98


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_first_row_that_is_not_finite_is_the_onset(bad: float) -> None:
    curve = fall(100)
    curve[60:] = bad
    assert (judged(curve).outcome, judged(curve).onset_row) == ("nonfinite", 60)
    assert (judged([bad, 1.0]).outcome, judged([bad, 1.0]).onset_row) == ("nonfinite", 0)


def test_a_loss_that_ends_above_its_start_has_exploded() -> None:
    curve = fall(200)
    curve[150:] = np.geomspace(3, 1e6, 50)
    course = judged(curve)
    assert course.outcome == "exploded"
    assert course.onset_row is not None
    assert 150 < course.onset_row < 156


@pytest.mark.parametrize(("between", "onset"), [(11.7, 3), (6.0, 70)])
def test_an_explosion_begins_where_it_first_left_unless_the_run_learned_in_between(between: float, onset: int) -> None:
    """As a Megatron run of 62 steps whose loss came back to its start for a while and learned nothing there."""
    course = judged(np.concatenate([[12.4] * 3, np.linspace(44, 15, 27), [between] * 40, [20.0] * 30]))
    assert (course.outcome, course.onset_row) == ("exploded", onset)


def test_a_loss_that_stays_bit_equal_far_above_its_start_has_exploded() -> None:
    course = judged(np.concatenate([fall(20), np.full(500, 3.4e5)]))
    assert (course.outcome, course.onset_row) == ("exploded", 20)


def test_few_rows_are_enough_for_an_explosion_by_a_factor_of_ten() -> None:
    assert judged([2.3, 1390.0, 5.6e7]).outcome == "exploded"
    assert judged([2.3, 2.2, 2.4]).outcome is None


def test_a_loss_that_comes_down_but_not_to_its_start_has_exploded() -> None:
    rows = [3.9, 8.7, 10.5, 10.7, 8.7, 7.7, 6.4, 6.0, 5.8, 5.1, 5.0, 5.4, 5.7]
    assert (judged(rows, 5, "mean").outcome, judged(rows, 5, "mean").onset_row) == ("exploded", 1)


def test_a_row_for_each_epoch_counts_as_many_steps() -> None:
    curve = fall(100, noise=0.02)
    curve[60:62] += 2.0
    epochs = Segment(Curve(np.arange(100.0), curve, np.arange(100)), row_kind="mean", epoch_rows=True)
    assert (course_of(epochs).outcome, judged(curve, 1, "mean").outcome) == ("spiked", "stable")


def test_a_resumed_run_learned_before_it_was_stopped() -> None:
    first, rng = fall(400), np.random.default_rng(0)
    second = first[-1] + 0.05 * rng.standard_normal(200)
    rest = Segment(Curve(np.arange(400.0, 600), second, np.arange(400, 600)), start="resume")
    assert [course.outcome for course in courses_of([segment(first), rest])] == ["stable", "stable"]
    jumped = replace(rest, loss=replace(rest.loss, value=second + np.where(np.arange(200) < 20, 0, 2.5)))
    assert [course.outcome for course in courses_of([segment(first), jumped])] == ["stable", "relapsed"]
    assert course_of(jumped).outcome == "relapsed"


def test_a_resumed_stretch_is_compared_with_the_start_of_the_run() -> None:
    curve = np.full(100, 2.0) + 0.01 * np.random.default_rng(0).standard_normal(100)
    curve[50:] += 1.0
    assert course_of(segment(curve), start_loss=6.0).outcome != "exploded"
    assert course_of(segment(curve)).outcome == "exploded"


def test_what_was_learned_and_not_got_back_is_a_relapse() -> None:
    curve = fall(400)
    curve[300:] += 2.5
    course = judged(curve)
    assert course.outcome == "relapsed"
    assert course.onset_row is not None
    assert abs(course.onset_row - 300) <= 2


def test_a_tail_that_rises_for_good_is_named() -> None:
    steps = np.arange(1000)
    curve = np.where(steps < 600, 0.5 + 2.5 * np.exp(-steps / 100), 0.5 + 0.8 * (steps - 600) / 400)
    course = judged(curve + 0.05 * np.random.default_rng(0).standard_normal(1000))
    assert course.outcome == "rising"
    assert course.onset_row is not None
    assert 600 < course.onset_row < 800


def test_a_spike_that_lasts_is_found_and_one_step_is_only_listed() -> None:
    lasting, short = fall(400), fall(400)
    lasting[200:212] += 2.5
    short[200] += 2.5
    found = judged(lasting)
    assert found.outcome == "spiked"
    (spike,) = found.spikes
    assert (abs(spike.first - 200) <= 1, abs(spike.last - 211) <= 1, spike.recovered) == (True, True, True)
    assert 4.0 < spike.peak < 5.5
    assert 2.0 < spike.level_before < 2.5
    (listed,) = judged(short).spikes
    assert (judged(short).outcome, listed.first, listed.last, listed.recovered) == ("stable", 200, 200, True)


def test_a_mean_of_many_steps_counts_as_many() -> None:
    curve = fall(100)
    curve[60] += 1.5
    assert judged(curve, 50, "mean").outcome == "spiked"
    assert judged(curve, 50, "sample").outcome == "stable"
    assert judged(curve, 1, "mean").outcome == "stable"


def test_one_sampled_step_that_gives_back_half_of_what_was_learned_is_a_spike() -> None:
    """Where each 50th step is logged, nobody knows how long it lasted; some such steps hide each other in no noise."""
    curve = fall(126)
    curve[[40, 41 + 16, 69, 93]] += 2.5
    course = judged(curve, 50, "sample")
    assert course.outcome == "spiked"
    assert [spike.first for spike in course.spikes] == [40, 57, 69, 93]


def test_noise_about_one_level_has_learned_nothing_that_it_could_lose() -> None:
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(300):
        noise = rng.standard_t(4, int(rng.integers(60, 600)))
        outcomes.append(judged(np.log(50) + 0.03 * noise, float(rng.choice([1, 10])), "mean").outcome)
    assert set(outcomes) <= {"flat", "stable", "spiked"}
    assert outcomes.count("spiked") <= 9


def test_the_first_rise_of_a_warm_up_is_no_explosion() -> None:
    curve = np.concatenate([[6.0, 7.2, 7.0, 6.5], fall(100)])
    assert judged(curve).outcome == "stable"


def test_steps_down_at_the_edges_of_epochs_are_stable() -> None:
    rng = np.random.default_rng(0)
    curve = np.repeat([0.9, 0.6, 0.4, 0.3], 200) + rng.gamma(2, 0.05, 800) + np.tile(np.linspace(0, 0.03, 200), 4)
    assert judged(curve).outcome == "stable"


def test_no_further_learning_needs_rows_enough() -> None:
    rng = np.random.default_rng(0)
    assert judged(2.3 + 0.05 * rng.standard_normal(1000)).outcome == "flat"
    assert judged(2.3 + 0.05 * rng.standard_normal(20)).outcome == "stable"
    assert judged(1e23 - 1e19 * np.arange(60)).outcome == "flat"


def test_slow_learning_is_learning() -> None:
    curve = 1.421 - 0.05 * np.linspace(0, 1, 1000) + 0.05 * np.random.default_rng(0).standard_normal(1000)
    assert judged(curve).outcome == "stable"


def test_without_a_baseline_no_run_failed_to_train() -> None:
    curve = 2.3 + 0.5 * np.exp(-np.arange(200) / 5) + 0.01 * np.random.default_rng(0).standard_normal(200)
    assert judged(curve).outcome == "stable"
    assert course_of(segment(curve), baseline=2.303).outcome == "failed-to-train"
    assert course_of(segment(fall(400)), baseline=4.0).outcome == "stable"


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ([], "too few rows"),
        ([1.0, 0.9, 0.8], "too few rows"),
        ([2.5] * 40, "all 40 rows are equal"),
        ([0.1, -0.2, 0.05, -0.1] * 20, "changes its sign"),
        ([1.5 - 0.01 * 1.1**step for step in range(300)], "falls without bound"),
    ],
)
def test_what_cannot_be_judged_says_why(losses: list[float], why: str) -> None:
    course = judged(losses)
    assert course.outcome is None
    assert why in course.why_undecided


def test_a_log_likelihood_that_falls_below_zero_once_is_judged() -> None:
    assert judged(fall(200) - 4).outcome == "stable"


BREAKS = {
    "none": lambda curve: curve,
    "spike": lambda curve: np.concatenate([curve[:150], curve[150:170] + 3, curve[170:]]),
    "collapse": lambda curve: np.concatenate([curve[:250], curve[250:] + 3]),
    "explosion": lambda curve: np.concatenate([curve[:250], curve[250:] + 50]),
    "nan": lambda curve: np.concatenate([curve[:250], np.full(50, NAN)]),
}


@pytest.mark.parametrize("planted", BREAKS)
def test_the_unit_of_the_loss_does_not_matter(planted: str) -> None:
    for seed in range(10):
        curve = BREAKS[planted](fall(300, seed=seed))
        expected = judged(curve)
        for unit in (1000.0, 1 / np.log(2), 1e-6):
            again = judged(curve * unit)
            assert (again.outcome, again.onset_row) == (expected.outcome, expected.onset_row)
            assert [(s.first, s.last) for s in again.spikes] == [(s.first, s.last) for s in expected.spikes]


@pytest.mark.parametrize("shift", [3.0, 100.0])
def test_a_shifted_loss_keeps_its_spikes_and_collapses(shift: float) -> None:
    for planted in ("none", "spike", "collapse"):
        curve = BREAKS[planted](fall(300))
        assert judged(curve + shift).outcome in (judged(curve).outcome, "flat")


@pytest.mark.parametrize("planted", BREAKS)
def test_clear_breaks_are_those_of_the_rules_on_every_step(planted: str) -> None:
    for seed in range(10):
        curve = BREAKS[planted](fall(300, seed=seed))
        reference = Reference(float(curve[0]), 0.05, float(curve[0]), float(curve[0]), noise=0.05 * 0.54)
        theirs, ours = judge(curve.tolist(), reference), judged(curve)
        assert ours.outcome == theirs.outcome
        onset = theirs.onset_step if ours.outcome == "relapsed" else theirs.explosion_step
        assert (ours.onset_row is None) == (onset is None)
        assert ours.onset_row is None or onset is None or abs(ours.onset_row - onset) <= 1


def test_a_million_rows_are_judged_as_a_thousand_are() -> None:
    assert judged(fall(1_000_000)).outcome == judged(fall(1_000)).outcome == "stable"


def test_few_rows_that_may_hide_a_break_are_not_called_stable() -> None:
    collapsed = [6.0, 4.8, 4.3, 6.1, 6.0, 6.1]
    assert judged(collapsed, 10, "mean").outcome is None
    assert "6 do not tell a rise from noise" in judged(collapsed, 10, "mean").why_undecided
    assert judged(fall(6), 10, "mean").outcome == "stable"


def test_a_small_rise_early_in_a_fall_by_seven_orders_is_no_spike() -> None:
    losses = 3e5 * 10 ** np.maximum(-np.arange(400) / 8, -7.5)
    losses[40:46] = 10 * losses[39]
    assert judged(list(losses)).outcome == "stable"
    losses[40:46] = 3e5
    assert judged(list(losses)).outcome == "spiked"


def test_a_rise_begins_where_noise_no_longer_hides_it() -> None:
    curve = fall(1000, noise=0.02)
    curve[600:] += np.linspace(0, 1.5, 400)
    course = judged(curve)
    assert course.outcome == "rising"
    assert course.onset_row is not None
    assert 600 <= course.onset_row <= 650


def test_a_resumed_stretch_that_begins_far_above_the_start_has_exploded_from_its_first_row() -> None:
    course = course_of(segment(9.0 + fall(100, noise=0.01)), start_loss=6.0)
    assert (course.outcome, course.onset_row) == ("exploded", 0)
