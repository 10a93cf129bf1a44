import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.logs.columns import Collector, curves_of
from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.segments import Log, assemble

Row = Mapping[str, object]


def log_of(
    rows: Sequence[Row],
    step: str | None = "step",
    facts: FormatFacts = FormatFacts(),
    seams: tuple[int, ...] = (),
    **choices: object,
) -> Log:
    raw = RawLog("JSON lines", curves_of(rows, step), facts, seams=seams)
    return assemble(raw, "log.jsonl", **choices)  # type: ignore[arg-type]


def rows_of(steps: Sequence[float], losses: Sequence[float], key: str = "loss") -> list[Row]:
    return [{"step": step, key: loss} for step, loss in zip(steps, losses, strict=True)]


def falling(n: int, start: float = 3.0) -> list[float]:
    return [1 + (start - 1) * 0.9**i for i in range(n)]


def spans(log: Log) -> list[tuple[str, float, float]]:
    return [(s.start, float(s.loss.step[0]), float(s.loss.step[-1])) for s in log.segments]


def test_a_plain_log_is_one_segment_and_its_rows_are_counted() -> None:
    log = log_of([*rows_of(range(10, 110, 10), falling(10)), {"step": 100, "eval_loss": 1.0}])
    assert spans(log) == [("start", 10, 100)]
    assert log.segments[0].steps_per_row == 10
    assert "10 rows of 'loss' by 'step', one every 10 steps" in log.notes[0]
    assert "1 other row has no loss" in log.notes


def test_steps_from_the_beginning_with_the_loss_of_the_beginning_are_a_run_begun_anew() -> None:
    log = log_of(rows_of([19, 39, 59, 19, 39], [2, 1, 0.5, 2, 1]))
    assert spans(log) == [("start", 19, 59), ("restart", 19, 39)]


def test_after_a_resume_the_later_rows_win_and_the_earlier_are_counted() -> None:
    first, second = list(range(100, 170, 10)), list(range(140, 210, 10))
    log = log_of(rows_of([*range(0, 100, 10), *first, *second], [*falling(10), *[1.5] * 7, *[1.4] * 7]))
    assert spans(log) == [("start", 0, 130), ("resume", 140, 200)]
    assert log.segments[1].first_row_is_partial
    assert log.segments[1].dropped == 3
    assert any("steps 140 to 160 were done twice" in note for note in log.notes)


def test_what_broke_before_a_resume_is_still_said() -> None:
    log = log_of(rows_of([1, 2, 3, 4, 5, 6, 4, 5, 6], [3, 2, 2, 2, math.nan, math.nan, 2, 2, 1]))
    assert spans(log) == [("start", 1, 3), ("resume", 4, 6)]
    assert any("2 of them were not finite" in note for note in log.notes)


def test_a_resume_far_back_takes_the_rows_of_earlier_resumes_too() -> None:
    steps = [*range(20), *range(15, 25), *range(10, 30)]
    log = log_of(rows_of(steps, [*falling(20), *[1.2] * 10, *[1.3] * 20]))
    assert spans(log) == [("start", 0, 9), ("resume", 10, 29)]


def test_batches_that_begin_anew_with_each_epoch_are_made_continuous() -> None:
    rows = [
        {"epoch": epoch, "batch": batch, "batches": 400, "loss": 5.0 - epoch - batch / 400}
        for epoch in (1, 2, 3)
        for batch in (200, 400)
    ]
    log = log_of(rows, step=None)
    assert log.segments[0].loss.step.tolist() == [200, 400, 600, 800, 1000, 1200]
    assert len(log.segments) == 1


def test_a_step_that_counts_within_its_epoch_is_made_continuous_from_the_base_0() -> None:
    rows = [{"epoch": e, "step": s, "loss": 5.0 - e - s / 500} for e in range(3) for s in range(0, 500, 100)]
    log = log_of(rows)
    assert log.segments[0].loss.step.tolist() == list(range(0, 1500, 100))


def test_an_index_that_begins_anew_while_the_loss_goes_on_is_told_from_a_restart() -> None:
    losses = falling(30, 8.0)
    log = log_of(rows_of([10, 20, 30, 40, 50, 60, 70, 80, 90, 100] * 3, losses))
    assert spans(log) == [("start", 10, 300)]
    again = log_of(rows_of([10, 20, 30, 40, 50, 60, 70, 80, 90, 100] * 3, falling(10, 8.0) * 3))
    assert [start for start, *_ in spans(again)] == ["start", "restart", "restart"]


def test_two_writers_of_the_same_rows_give_one() -> None:
    log = log_of(rows_of([10, 10, 20, 20, 30, 30], [1.0, 1.0002, 0.9, 0.9001, 0.8, 0.8]))
    assert log.segments[0].loss.step.tolist() == [10, 20, 30]
    assert any("3 rows that repeat a step dropped (largest difference 0.0002)" in note for note in log.notes)


def test_writers_that_lag_behind_each_other_give_one_row_a_step_too() -> None:
    steps = [10, *(step for lead in range(10, 400, 10) for step in (lead + 10, lead))]
    log = log_of(rows_of(steps, [10 / (1 + step / 100) for step in steps]))
    assert log.segments[0].loss.step.tolist() == list(range(10, 410, 10))
    assert len(log.segments) == 1


def test_of_ranks_with_losses_of_their_own_the_one_asked_for_is_taken() -> None:
    rows = [{"step": s, "rank": r, "loss": 2.0 + r} for s in range(1, 6) for r in (0, 1)]
    assert log_of(rows).segments[0].loss.value.tolist() == [2.0] * 5
    assert log_of(rows, rank=1).segments[0].loss.value.tolist() == [3.0] * 5
    with pytest.raises(ConfigError, match=r"no rank 7 \(--rank\); it has 0, 1"):
        log_of(rows, rank=7)


def test_two_runs_that_wrote_in_turns_are_two_segments() -> None:
    steps = [step for i in range(20) for step in (i, 1000 + i)]
    losses = [loss for i in range(20) for loss in (3.0 - i / 10, 1.0)]
    log = log_of(rows_of(steps, losses))
    assert sorted(spans(log)) == [("start", 0, 19), ("start", 1000, 1019)]
    assert any("in turns" in note for note in log.notes)


def test_a_step_logged_again_in_the_next_row_is_kept_once() -> None:
    log = log_of(rows_of([*range(1, 21), 20, 21], [*falling(20), 1.5, 1.4]))
    assert log.segments[0].loss.step.tolist() == list(range(1, 22))
    assert log.segments[0].loss.value[19] == 1.5


def test_a_last_row_that_is_the_mean_of_all_is_a_summary() -> None:
    losses = falling(20)
    log = log_of(rows_of([*range(1, 21), 20], [*losses, float(np.mean(losses))]))
    assert log.segments[0].loss.value.tolist() == losses


def test_train_validation_and_epoch_rows_that_share_a_step_are_told_apart() -> None:
    rows: list[Row] = [
        {"epoch": 0, "step": 4, "train_loss_step": 0.28},
        {"epoch": 0, "step": 9, "val_loss": 0.44},
        {"epoch": 0, "step": 9, "train_loss_epoch": 0.55},
        {"epoch": 1, "step": 14, "train_loss_step": 0.2},
    ]
    segment = log_of(rows).segments[0]
    assert segment.loss.step.tolist() == [4, 14]
    assert segment.loss.value.tolist() == [0.28, 0.2]
    assert segment.others["validation"].step.tolist() == [9]
    assert segment.row_kind == "sample"


def test_what_stands_on_rows_of_its_own_comes_in_the_same_steps_and_is_cut_with_the_segment() -> None:
    rows: list[Row] = []
    for step in (*range(10), *range(10)):
        rows += [{"step": step, "lr": 0.1 * step}, {"step": step, "loss": 3.0 - step / 10}]
    log = log_of(rows)
    assert spans(log) == [("start", 0, 9), ("restart", 0, 9)]
    for segment in log.segments:
        lr = segment.others["lr"]
        np.testing.assert_allclose(lr.value, 0.1 * lr.step)
        assert lr.step.tolist()[-9:] == list(range(1, 10))


def test_without_a_step_epochs_are_taken_and_without_epochs_rows_are_counted() -> None:
    by_epoch = log_of([{"epoch": e, "loss": 3.0 - e, "lr": 0.1} for e in range(3)], step=None)
    assert (by_epoch.step_unit, by_epoch.segments[0].loss.step.tolist()) == ("epochs", [0, 1, 2])
    by_row = log_of([{"loss": 3.0 - i, "lr": 0.1 * i} for i in range(3)], step=None)
    assert (by_row.step_unit, by_row.segments[0].loss.step.tolist()) == ("rows", [1, 2, 3])
    assert by_row.segments[0].others["lr"].step.tolist() == [1, 2, 3]


def test_rows_that_share_an_epoch_are_counted() -> None:
    log = log_of([{"epoch": i // 50, "loss": 3.0} for i in range(200)], step="epoch")
    assert log.step_unit == "rows"
    assert len(log.segments[0].loss) == 200


def test_a_step_that_is_always_the_same_is_none() -> None:
    log = log_of(rows_of([0] * 5, falling(5)))
    assert log.segments[0].loss.step.tolist() == [1, 2, 3, 4, 5]


def test_the_user_names_another_step_or_loss() -> None:
    rows: list[Row] = [{"step": i, "tokens": 1000 * i, "loss": 3.0 - i, "aux_loss": 1.0} for i in range(3)]
    log = log_of(rows, step="step", metric="aux_loss")
    assert log.segments[0].loss.value.tolist() == [1, 1, 1]
    raw = RawLog("CSV", curves_of(rows, "step"))
    by_tokens = assemble(raw, "x.csv", step="tokens")
    assert by_tokens.segments[0].loss.step.tolist() == [0, 1000, 2000]
    assert by_tokens.segments[0].steps_per_row == 1
    with pytest.raises(ConfigError, match=r"x\.csv: no numbers named 'token' \(--step\); did you mean 'tokens'"):
        assemble(raw, "x.csv", step="token")
    assert assemble(raw, "x.csv", metric="nothing").segments == ()


def test_zeros_with_a_gradient_norm_of_nan_stand_for_nan_and_so_does_the_row_before() -> None:
    nan = math.nan
    rows: list[Row] = [
        {"step": 5, "loss": 1.4, "grad_norm": 2.5},
        {"step": 10, "loss": 0.8, "grad_norm": 1.0},
        {"step": 15, "loss": 1.0, "grad_norm": nan},
        {"step": 20, "loss": 0.0, "grad_norm": nan},
    ]
    segment = log_of(rows, facts=FormatFacts(row_kind="mean", zero_for_nan=True)).segments[0]
    assert np.isnan(segment.loss.value).tolist() == [False, False, True, True]
    assert segment.zeros_for_nan == 1


def test_zeros_after_small_losses_are_rounding() -> None:
    rows: list[Row] = [
        {"step": i, "loss": loss, "grad_norm": 8e-4} for i, loss in enumerate([0.1, 0.01, 0.0002, 0.0001, 0.0, 0.0])
    ]
    for facts in (FormatFacts(), FormatFacts(zero_for_nan=True)):
        log = log_of(rows, facts=facts)
        assert log.segments[0].loss.value.tolist()[-2:] == [0.0, 0.0]
        assert any("2 losses are 0.0: taken as logged" in note for note in log.notes)


@pytest.mark.parametrize("losses", [[1.3, 1.31, 1.32, 34023.8, 0.0], [2.0, 1.9, 1.8, 1.7, 0.0, 0.0, 0.0]])
def test_zeros_to_the_end_after_a_rise_or_a_high_level_stand_for_nan(losses: list[float]) -> None:
    segment = log_of(rows_of(range(len(losses)), losses)).segments[0]
    assert np.isnan(segment.loss.value).sum() == losses.count(0.0) == segment.zeros_for_nan


def test_a_zero_amid_others_is_taken_as_logged() -> None:
    segment = log_of(rows_of(range(5), [2.0, 0.0, 1.9, 1.8, 1.7])).segments[0]
    assert segment.loss.value[1] == 0.0
    assert segment.zeros_for_nan == 0


def test_a_missing_gradient_norm_is_not_one_of_nan() -> None:
    rows: list[Row] = [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 2.0, "grad_norm": 1.0}, {"step": 3, "loss": 1.0}]
    assert log_of(rows).segments[0].zeros_for_nan == 0


def test_a_second_file_that_counts_from_0_goes_on_where_the_first_ended() -> None:
    first, second = falling(20, 8.0), [1.5 - i / 100 for i in range(10)]
    rows = rows_of([*range(20), *range(10)], [*first, *second])
    log = log_of(rows, seams=(20,))
    assert spans(log) == [("start", 0, 19), ("resume", 20, 29)]
    assert any("count from 0 again" in note for note in log.notes)


def test_a_second_file_whose_steps_go_on_is_a_resume() -> None:
    log = log_of(rows_of([*range(20), *range(20, 30)], [*falling(20), *[1.3] * 10]), seams=(20,))
    assert spans(log) == [("start", 0, 19), ("resume", 20, 29)]


def test_a_stretch_without_rows_is_said() -> None:
    log = log_of(rows_of([*range(20), *range(300, 320)], falling(40)))
    assert "nothing is logged between step 19 and 300" in log.notes


def test_of_several_learning_rates_one_is_read_and_it_is_said() -> None:
    log = log_of([{"step": i, "loss": 3.0, "lr/pg0": 0.1, "lr/pg1": 0.1 * i} for i in range(3)])
    assert log.segments[0].others["lr"].value.tolist() == [0.0, 0.1, 0.2]
    assert any("'lr/pg1' is read" in note for note in log.notes)


def test_parts_without_a_total_are_added_up() -> None:
    log = log_of([{"step": i, "train/box_loss": 1.0, "train/cls_loss": 2.0, "val/box_loss": 9.0} for i in range(3)])
    assert log.loss_key == "train/box_loss+train/cls_loss"
    assert log.segments[0].loss.value.tolist() == [3.0] * 3


def test_a_perplexity_is_judged_by_its_log() -> None:
    log = log_of([{"step": i, "train_ppl": math.exp(3 - i)} for i in range(3)])
    np.testing.assert_allclose(log.segments[0].loss.value, [3, 2, 1])
    assert log.unit == "log of perplexity"


@pytest.mark.parametrize(
    "keys",
    [
        ("Gen Loss", "Disc Loss"),
        ("D_loss", "G_loss"),
        ("loss", "rewards/chosen", "rewards/margins"),
        ("loss", "reward", "completion_length"),
        ("policy_loss", "value_loss", "entropy"),
        ("actor_loss", "critic_loss"),
        ("loss", "rollout/ep_rew_mean"),
        ("loss", "current_steps", "percentage", "accuracy"),
    ],
)
def test_adversarial_reinforcement_and_preference_losses_are_declined(keys: tuple[str, ...]) -> None:
    log = log_of([{"step": i, **dict.fromkeys(keys, 1.0)} for i in range(5)])
    assert "not judged" in log.declined
    assert log_of([{"step": i, **dict.fromkeys(keys, 1.0)} for i in range(5)], metric=keys[0]).declined == ""


@pytest.mark.parametrize(
    "keys",
    [
        ("train_loss", "train_nll", "train_kl"),
        ("loss", "accuracy"),
        ("total_loss", "loss_cls", "loss_box_reg"),
        ("loss", "gen_loss", "disc_loss"),
        ("train/loss", "general/epoch"),
    ],
)
def test_other_losses_are_judged(keys: tuple[str, ...]) -> None:
    assert log_of([{"step": i, **dict.fromkeys(keys, 1.0)} for i in range(5)]).declined == ""


def test_a_loss_about_0_is_declined_and_one_that_falls_below_it_is_not() -> None:
    wave = [(-1) ** i * 0.1 for i in range(20)]
    assert "about 0" in log_of(rows_of(range(20), wave)).declined
    assert log_of(rows_of(range(20), [3 - i for i in range(20)])).declined == ""


def test_of_a_million_rows_four_each_are_merged_and_the_rest_is_as_ever() -> None:
    n = 1_000_000
    steps = np.arange(n, dtype=float)
    loss = 1 + 2 / (1 + steps / 1000)
    collector = Collector("step")
    for start in range(0, n, 1 << 16):
        part = slice(start, start + (1 << 16))
        collector.add_columns({"step": steps[part], "loss": loss[part]})
    log = assemble(RawLog("CSV", collector.curves()), "x.csv")
    (segment,) = log.segments
    assert (len(segment.loss), segment.loss.step[-1]) == (n // 4, n - 1)
    np.testing.assert_allclose(segment.loss.value[1:], loss.reshape(-1, 4).mean(axis=1)[1:], rtol=1e-3)


def test_numbers_with_a_row_each_are_cut_at_a_resume_as_the_loss_is() -> None:
    rows: list[Row] = []
    for step in (*range(10), *range(7, 15)):
        rows += [{"step": step, "loss": 3.0 - step / 10}, {"step": step, "lr": 0.1 * step}]
    log = log_of(rows)
    assert spans(log) == [("start", 0, 6), ("resume", 7, 14)]
    for segment in log.segments:
        assert segment.others["lr"].step.tolist() == segment.loss.step.tolist()
    assert not any("other rows" in note for note in log.notes)


def test_fractional_epochs_that_rows_share_are_no_steps() -> None:
    rows: list[Row] = [{"epoch": round(i / 150, 2), "loss": 3.0 - i / 100} for i in range(100)]
    log = log_of(rows, step=None)
    assert log.step_unit == "rows"
    assert len(log.segments[0].loss) == 100


def test_a_tag_that_counts_samples_within_a_step_is_not_the_step() -> None:
    curves = curves_of(rows_of(range(0, 100, 20), falling(5)), "step")
    tag = curves_of([{"s": i, "roi_head/num_fg_samples": 7.0} for i in range(5)], "s")
    raw = RawLog("TensorBoard events", {"loss": curves["loss"], "roi_head/num_fg_samples": tag["s"]})
    log = assemble(raw, "events")
    assert (log.step_key, log.step_unit) == ("step", "steps")
    assert log.segments[0].steps_per_row == 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e300])
def test_losses_that_are_not_finite_are_read_without_a_warning(bad: float) -> None:
    log = log_of(rows_of([1, 1, 2, 3, 3, 4, 5, 2, 3], [bad, bad, 2.0, bad, -bad, 1.0, bad, bad, bad]))
    assert sum(len(segment.loss) for segment in log.segments) > 0
    assert any(not math.isfinite(value) or value == 1e300 for s in log.segments for value in s.loss.value)
