import math
import tracemalloc

import numpy as np

from stresstest.diagnosis.diagnose import diagnose
from stresstest.logs.columns import Collector, curves_of
from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.segments import assemble
from stresstest.logs.thinning import halved


def test_missing_values_have_no_row_and_nan_was_logged() -> None:
    curves = curves_of([{"step": 1, "loss": "nan"}, {"step": 2, "loss": ""}, {"step": 3, "loss": "inf"}], "step")
    assert curves["loss"].step.tolist() == [1, 3]
    assert curves["loss"].row.tolist() == [0, 2]
    assert math.isnan(curves["loss"].value[0])
    assert curves["loss"].value[1] == math.inf


def test_chunks_of_columns_give_what_rows_give() -> None:
    tokens = {"step": ["1", "2", "3"], "loss": ["1.5", "", "nan"], "lr": ["1e-3", "NA", "1,000"]}
    collector = Collector("step")
    collector.add_columns(tokens)
    collector.add({"step": 4, "loss": 0.5})
    rows = [dict(zip(tokens, row, strict=True)) for row in zip(*tokens.values(), strict=True)]
    expected = curves_of([*rows, {"step": 4, "loss": 0.5}], "step")
    found = collector.curves()
    assert list(found) == list(expected)
    for key, curve in expected.items():
        for name in ("step", "value", "row"):
            np.testing.assert_array_equal(getattr(found[key], name), getattr(curve, name))


def test_a_mask_says_which_numbers_of_a_chunk_are_there() -> None:
    collector = Collector("step")
    collector.add_columns(
        {"step": np.array([1.0, 2.0]), "loss": np.array([0.0, math.nan])}, {"loss": np.array([False, True])}
    )
    loss = collector.curves()["loss"]
    assert loss.step.tolist() == [2]
    assert math.isnan(loss.value[0])


def test_the_largest_finite_number_is_infinity_in_a_chunk_too() -> None:
    collector = Collector(None)
    collector.add_columns({"loss": np.array([1.0, 1.7976931348623157e308])})
    assert collector.curves()["loss"].value.tolist() == [1.0, math.inf]


def test_a_large_log_keeps_what_plays_a_role_its_level_its_peak_and_its_nan() -> None:
    collector = Collector("step", cells=4000)
    rng = np.random.default_rng(0)
    for start in range(0, 40_000, 500):
        steps = np.arange(start, start + 500, dtype=float)
        loss = 2.0 + 0.1 * rng.standard_normal(500)
        loss[7] += 50.0 if start == 20_000 else 0.0
        loss[9] = math.nan if start == 30_000 else loss[9]
        collector.add_columns({"step": steps, "loss": loss, "weights/std": loss})
    notes = collector.notes
    loss_curve = collector.curves()["loss"]
    assert len(loss_curve) <= 4000
    assert abs(np.nanmedian(loss_curve.value) - 2.0) < 0.05
    assert np.nanmax(loss_curve.value) > 45.0
    assert abs(loss_curve.step[np.nanargmax(loss_curve.value)] - 20_007) < 64
    assert np.isnan(loss_curve.value).sum() == 1
    assert np.mean(np.diff(loss_curve.step) == np.median(np.diff(loss_curve.step))) > 0.95
    assert any("merged" in note for note in notes)
    assert any("left out" in note for note in notes)


def test_rows_are_never_merged_across_a_step_that_goes_back() -> None:
    steps = np.array([0.0, 1, 2, 0, 1, 2])
    merged = halved(Curve(steps, np.array([4.0, 4, 4, 9, 9, 9]), np.arange(6)))
    assert merged.step.tolist() == [1, 2, 1, 2]
    assert merged.value.tolist() == [4, 4, 9, 9]
    assert merged.row.tolist() == [1, 2, 4, 5]


def test_memory_stays_bounded_for_a_long_log() -> None:
    chunk = 1 << 14
    tracemalloc.start()
    collector = Collector("step", cells=1 << 17)
    for start in range(0, 1 << 20, chunk):
        steps = np.arange(start, start + chunk, dtype=float)
        collector.add_columns({"step": steps, "loss": steps * 0 + 1, "lr": steps * 0 + 1})
    collector.curves()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20  # all of it would be 48 MiB and more


def test_a_nan_keeps_its_own_step_when_rows_are_merged() -> None:
    steps = np.arange(1.0, 9.0)
    values = np.array([1.0, 1.0, math.nan, 1.0, 1.0, math.inf, 1.0, 1.0])
    merged = halved(Curve(steps, values, np.arange(8)))
    assert merged.step.tolist() == [2, 3, 6, 8]
    assert merged.row.tolist() == [1, 2, 5, 7]
    assert [math.isfinite(value) for value in merged.value] == [True, False, False, True]
    again = halved(merged)
    assert again.step.tolist() == [3, 6]


def test_a_merged_log_is_said_to_be_merged_with_its_spikes_and_the_step_of_its_nan() -> None:
    rng = np.random.default_rng(0)
    steps = np.arange(1.0, 8001.0)
    loss = 2.0 + 8.0 * np.exp(-steps / 500) + 0.02 * rng.standard_normal(8000)
    loss[5000] = 9.0
    loss[7002:] = math.nan
    collector = Collector("step", cells=9000)
    for start in range(0, 8000, 500):
        part = slice(start, start + 500)
        collector.add_columns({"step": steps[part], "loss": loss[part], "lr": np.full(500, 1e-3)})
    notes = collector.notes
    log = assemble(RawLog("table", collector.curves(), notes=notes), "log.csv")
    diagnosis = diagnose(log)
    assert "'loss' by 'step', a row for each of the steps" in diagnosis.notes[0]
    assert "rows each were merged into one to be judged" in " ".join(diagnosis.notes)
    assert "mean of the steps" not in " ".join(diagnosis.notes)
    assert not any("no loss" in note for note in diagnosis.notes)
    assert diagnosis.outcome == "nonfinite"
    assert diagnosis.segments[0].broke_between is not None
    assert diagnosis.segments[0].broke_between[1] == 7003
    (spike,) = diagnosis.segments[0].spikes
    assert spike.peak_loss == 9.0
    assert abs(spike.first_step - 5001) <= diagnosis.segments[0].steps_per_row
