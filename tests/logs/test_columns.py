import math
import tracemalloc

import numpy as np

from stresstest.logs.columns import Collector, curves_of
from stresstest.logs.curve import Curve
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
