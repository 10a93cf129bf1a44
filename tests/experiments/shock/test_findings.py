"""What the findings and the answer of shocks say, advice first."""

from __future__ import annotations

from typing import Any

from stresstest.experiments.shock.verdicts import answer
from stresstest.results.records import Bracket, Cell, Result
from tests.experiments.shock.hand_made import NEVER, USUAL, WELL, Runs, along_widths, of_cells, result_of, spec_of

BREAKS: Runs = {("pre-ln", "lr-pulse"): [(4, 8)] * 3}


def findings(result: Result) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in result.findings:
        found.setdefault(each.kind, []).append(each.text)
    return found


def with_records(result: Result, **changes: Any) -> Result:
    cells = [cell.model_copy(update={"shock": {**cell.shock, **changes}}) for cell in result.cells]
    return of_cells(spec_of(), cells)


def verdicts(result: Result) -> dict[str, str]:
    return {each.subject: each.answer for each in answer(result).verdicts}


def commands(result: Result) -> list[str]:
    return [each.text for each in answer(result).next]


def test_a_verdict_says_what_is_survived_up_to_which_dose_and_what_breaks() -> None:
    said = verdicts(result_of(USUAL))
    assert said["pre-ln"] == "survives lr-pulse up to 16x = LR 1, lost-moments; breaks under lr-pulse from 64x = LR 4"
    assert said["post-ln"] == (
        "survives lr-pulse up to 8x = LR 0.5 (4x..8x over seeds), lost-moments (2 of 3 seeds); "
        "breaks under lr-pulse from 16x = LR 1"
    )
    assert [each.tone for each in answer(result_of(USUAL)).verdicts] == ["good", "mixed"]


def test_a_verdict_counts_the_seeds_that_break_where_it_is_not_all() -> None:
    said = verdicts(result_of({("pre-ln", "lr-pulse"): [(16, 16), (16, 16), WELL]}))["pre-ln"]
    assert said.endswith("breaks under lr-pulse from 16x = LR 1 (2 of 3 seeds)")


def test_what_breaks_at_the_standard_dose_is_bad_and_the_next_step_is_a_guard() -> None:
    result = result_of(BREAKS, variant="pre-ln", shock="lr-pulse")
    assert [each.tone for each in answer(result).verdicts] == ["bad"]
    assert commands(result)[0].endswith("--guard clip-norm,skip-outliers")
    early = result_of(BREAKS, variant="pre-ln", shock="lr-pulse", after=30)
    assert commands(early)[0].endswith("--guard clip-norm,skip-outliers:window=60")  # it has seen half of that


def test_a_guard_is_asked_for_those_shocks_alone_that_harm_and_fits_them() -> None:
    runs: Runs = {("pre-ln", "lr-pulse"): [WELL] * 3, ("pre-ln", "lost-moments"): [(1, 1)] * 3}
    result = result_of(runs, variant="pre-ln")
    assert commands(result)[0].endswith("--guard rewarm --shock lost-moments")
    assert "breaks under lost-moments" in verdicts(result)["pre-ln"]


def test_no_guard_is_asked_for_where_nothing_harms_or_guards_were_compared() -> None:
    calm = result_of({("pre-ln", "lost-moments"): [WELL] * 3}, variant="pre-ln", shock="lost-moments")
    assert not any("--guard" in each for each in commands(calm))
    runs = {**BREAKS, ("pre-ln", "lr-pulse", "clip-norm"): [(4, 8)] * 3}
    compared = result_of(runs, variant="pre-ln", shock="lr-pulse", guard="clip-norm")
    assert not any("--guard" in each for each in commands(compared))


def test_variants_that_every_seed_orders_are_apart_and_others_are_not() -> None:
    result = result_of(USUAL)
    apart = findings(result)["apart"]
    assert apart == [
        "By lr-pulse, paired by seed: pre-ln takes 2x as much as post-ln without a scar (2x to 4x over "
        "seeds); pre-ln takes 4x as much as post-ln without a break. Use 5 seeds or more to rely on it: 3 order two "
        "that are alike up to 25% of the time; 2 comparisons were made."
    ]
    more = result_of({key: [*seeds, *seeds] for key, seeds in USUAL.items()}, seeds="6")
    assert findings(more)["apart"][0].endswith("without a break.")
    assert findings(result)["alike"] == [
        "Choose no variant by lost-moments: these seeds cannot tell them apart, their intervals overlap."
    ]
    assert answer(result).sure.endswith("lr-pulse tells variants apart, lost-moments not")


def test_it_is_said_where_no_shock_tells_variants_apart() -> None:
    same: Runs = {(variant, "lr-pulse"): [(16, 32)] * 3 for variant in ("pre-ln", "post-ln")}
    assert answer(result_of(same, shock="lr-pulse")).sure.endswith("no shock tells the variants apart")


def test_a_guard_is_advised_where_it_raises_the_tolerance_of_every_seed() -> None:
    runs: Runs = {**BREAKS, ("pre-ln", "lr-pulse", "clip-norm"): [(16, 32), (16, 32), (32, 64)]}
    said = findings(result_of(runs, variant="pre-ln", shock="lr-pulse", guard="clip-norm"))["guard"]
    assert said == [
        "Use clip-norm: with it pre-ln takes 4x as much lr-pulse without a scar (4x to 8x over seeds); pre-ln takes 4x "
        "as much lr-pulse without a break (4x to 8x over seeds)."
    ]


def test_a_guard_that_changes_nothing_or_harms_is_said() -> None:
    same: Runs = {**BREAKS, ("pre-ln", "lr-pulse", "clip-norm"): [(4, 8)] * 3}
    worse: Runs = {**BREAKS, ("pre-ln", "lr-pulse", "clip-norm"): [(2, 2)] * 3}
    asked = {"variant": "pre-ln", "shock": "lr-pulse", "guard": "clip-norm"}
    assert findings(result_of(same, **asked))["guard"] == [
        "Use more seeds, or do without clip-norm: it makes no difference that these seeds can show."
    ]
    assert findings(result_of(worse, **asked))["guard"] == [
        "Beware of clip-norm: with it pre-ln takes less lr-pulse without a scar; pre-ln takes less lr-pulse without a "
        "break."
    ]


def test_harm_at_the_standard_dose_asks_for_a_guard_and_none_says_from_where_on_it_breaks() -> None:
    said = findings(result_of({**USUAL, ("post-ln", "lr-pulse"): [(4, 8)] * 3}))["shock"]
    assert said[0] == "Guard against lr-pulse of 8x = LR 0.5: post-ln: 3 broke; pre-ln recovers."
    assert findings(result_of(USUAL))["shock"][0].endswith("post-ln: 1 scarred, 2 recovered; pre-ln recovers.")
    said = findings(result_of({("pre-ln", "lr-pulse"): [(32, 64)] * 3}))["shock"]
    assert said[0] == (
        "Do not fear lr-pulse of 8x = LR 0.5: pre-ln recovers; from 64x on it breaks most seeds of pre-ln."
    )


def test_runs_that_did_not_train_ask_for_a_lower_learning_rate() -> None:
    result = result_of({("pre-ln", "lr-pulse"): [None] * 3}, variant="pre-ln", shock="lr-pulse")
    assert findings(result)["untrained"][0].startswith("Use a lower --peak-lr or a larger --after for pre-ln:")
    assert verdicts(result)["pre-ln"].startswith("use a lower --peak-lr: at LR 0.062 it does not train")
    first = answer(result).next[0]
    assert first.text.endswith("--peak-lr 0.03125")
    assert first.why == "a lower learning rate: some seeds do not train even without a shock"
    assert "noisy" not in findings(with_records(result, floor=0.9))


def test_runs_that_learn_nothing_ask_for_more_steps_and_no_lower_learning_rate() -> None:
    runs: Runs = {("pre-ln", "lr-pulse"): [None] * 3}
    result = with_records(result_of(runs, variant="pre-ln", shock="lr-pulse"), twin_outcome="failed-to-train")
    assert findings(result)["untrained"][0].startswith("Leave --peak-lr out, or use more --train-steps for pre-ln:")
    assert verdicts(result)["pre-ln"] == (
        "leave --peak-lr out, or use more --train-steps: at LR 0.062 it learns nothing in 250 steps, even without a "
        "shock"
    )
    assert "--peak-lr" not in answer(result).next[0].text
    result.spec["peak_lr"] = None
    assert "use more --train-steps: at LR" in verdicts(result)["pre-ln"]
    assert "--lr-share" not in verdicts(result)["pre-ln"]


def test_a_guard_that_keeps_runs_from_training_is_blamed_for_it() -> None:
    runs: Runs = {("pre-ln", "lr-pulse"): [WELL] * 3, ("pre-ln", "lr-pulse", "eps"): [None] * 3}
    result = result_of(runs, variant="pre-ln", shock="lr-pulse", guard="eps")
    assert verdicts(result)["eps"] == "with it pre-ln does not train"
    assert "untrained" not in findings(result)


def test_a_pulse_has_the_learning_rate_of_the_schedule_at_its_steps_and_little_of_it_is_said() -> None:
    runs: Runs = {("pre-ln", "lr-pulse"): [(16, 32)] * 3}
    late = result_of(runs, variant="pre-ln", shock="lr-pulse", after=200, train_steps=250, decay="linear")
    # 50 of 250 steps are left: a fifth of LR 0.0625, times 8
    assert verdicts(late)["pre-ln"].startswith("survives lr-pulse up to 8x = LR 0.1;")
    assert answer(late).sure.endswith("the LR is 20% of its peak when the shock comes")
    assert findings(late)["off-the-peak"][0].startswith("Use --after 25 to see")
    rising = result_of(runs, variant="pre-ln", shock="lr-pulse", warmup_steps=125)
    assert verdicts(rising)["pre-ln"].startswith(
        "survives lr-pulse up to 8x = LR 0.42;"
    )  # at its last step, 105 of 125
    assert "off-the-peak" not in findings(rising)


def test_noisy_null_twins_ask_for_a_lower_share_and_name_the_smallest_scar() -> None:
    result = result_of({("pre-ln", "lost-moments"): [WELL] * 3}, variant="pre-ln", shock="lost-moments", peak_lr=None)
    noisy = with_records(result, floor=0.3)
    assert "noisy" not in findings(result)
    assert findings(noisy)["noisy"] == [
        "Use a lower --peak-lr for pre-ln to see smaller scars: at LR 0.062 a lasting damage below 0.3 nats cannot be "
        "told from chance."
    ]


def test_a_recovery_beyond_the_end_asks_for_a_longer_run() -> None:
    result = result_of({("pre-ln", "lr-pulse"): [(4, NEVER)] * 3}, variant="pre-ln", shock="lr-pulse")
    assert findings(result)["beyond-the-end"][0].startswith(
        "Use --train-steps 400 or more to see whether pre-ln lr-pulse"
    )
    assert any(each.endswith("--train-steps 400") for each in commands(result))


def test_a_run_that_broke_is_not_waited_for() -> None:
    assert "beyond-the-end" not in findings(result_of(BREAKS, variant="pre-ln", shock="lr-pulse"))


def test_a_tolerance_that_is_not_monotone_is_said() -> None:
    result = with_records(result_of({("pre-ln", "lr-pulse"): [(16, 32)] * 3}), monotone=False)
    assert findings(result)["not-monotone"][0].startswith(
        "Stay below the tolerance: a larger dose did less harm in 3 runs"
    )


def test_a_variant_without_a_boundary_asks_for_a_learning_rate() -> None:
    metrics = {"max_stable_lr": Bracket(low=None, high=1e-4)}
    bare = Cell(key="a", variant="post-ln", depth=4, seed=0, status="done", metrics=metrics)
    said = findings(of_cells(spec_of(peak_lr=None), [bare]))["no-boundary"]
    assert said[0].startswith("Give --peak-lr for post-ln: no held LR from")


def test_a_result_without_any_row_has_no_answer() -> None:
    assert answer(of_cells(spec_of(), [])).verdicts == ()


def test_sizes_of_a_path_are_named_and_told_apart() -> None:
    result = along_widths({32: [(32, 64)] * 3, 64: [(8, 16)] * 3, 128: [(8, 16)] * 3})
    assert list(verdicts(result)) == ["pre-ln width 32", "pre-ln width 64", "pre-ln width 128"]
    assert verdicts(result)["pre-ln width 64"].startswith("survives lr-pulse up to 4x = LR 0.25; breaks")
    said = findings(result)["apart"][0]
    assert "pre-ln width 32 takes 4x as much as pre-ln width 64 without a scar" in said
    assert "the seeds cannot tell the others apart." in said
    assert answer(result).sure.endswith("lr-pulse tells sizes apart")
