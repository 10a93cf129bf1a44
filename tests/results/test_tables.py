"""Tidy tables: every number is the one that the stored JSON has, in a row of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.results.records import Result, read_result
from stresstest.results.tables import (
    RESULT_COLUMNS,
    curves_table,
    metrics_table,
    result_tables,
    runs_table,
    summary_table,
)

STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))


def rows(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def stored(name: str) -> tuple[Result, dict[str, Any]]:
    path = Path(__file__).parent / "stored" / f"{name}.json"
    return read_result(path), json.loads(path.read_text())


def with_points(result: Result, **point: Any) -> Result:
    return result.model_copy(update={"cells": [cell.model_copy(update={"point": point}) for cell in result.cells]})


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_every_metric_of_every_cell_and_row_stands_in_a_row_with_its_exact_numbers(path: Path) -> None:
    tables, raw = result_tables(read_result(path)), json.loads(path.read_text())
    by_cell = {(row["cell"], row["metric"]): (row["low"], row["high"]) for row in rows(tables["metrics"])}
    for cell in raw["cells"]:
        for name, value in cell["metrics"].items():
            assert by_cell[cell["key"], name] == (value["low"], value["high"])
    of_rows = [row for kind in ("summary", "trends") for row in raw.get(kind, [])]
    medians = {(row["metric"], row["median_low"], row["median_high"]) for row in rows(tables["summary"])}
    seeds = {(row["metric"], row["seed"], row["low"], row["high"]) for row in rows(tables["seeds"])}
    for name, value in ((name, value) for row in of_rows for name, value in row["metrics"].items()):
        assert (name, value["median"]["low"], value["median"]["high"]) in medians
        assert {(name, int(s), each["low"], each["high"]) for s, each in value["per_seed"].items()} <= seeds


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_columns_are_those_that_the_reference_lists_and_what_the_experiment_varies(path: Path) -> None:
    result = read_result(path)
    points = {name for each in (*result.cells, *result.summary, *result.trends) for name in each.point}
    points |= {name for search in result.searches for name in search.best}
    for name, table in result_tables(result).items():
        assert set(RESULT_COLUMNS[name]) <= set(table) <= set(RESULT_COLUMNS[name]) | points | {"peak_lr"}


def test_every_run_of_a_cell_is_a_row_with_what_became_of_it() -> None:
    result, raw = stored("lr-range")
    of_first = [row for row in rows(runs_table(result)) if row["cell"] == raw["cells"][0]["key"]]
    held = raw["cells"][0]["hold"]
    assert [row["phase"] for row in of_first] == ["ramp"] + ["hold"] * len(held)
    assert [(row["lr"], row["outcome"], row["last_loss"]) for row in of_first[1:]] == [
        (each["lr"], each["outcome"], each["last_loss"]) for each in held
    ]


def test_a_cell_says_what_the_experiment_varied() -> None:
    result, raw = stored("warmup")
    row, cell = rows(metrics_table(result))[0], raw["cells"][0]
    assert {name: row[name] for name in cell["point"]} == cell["point"]
    assert (row["variant"], row["depth"], row["seed"]) == (cell["variant"], cell["depth"], cell["seed"])


def test_a_cell_without_a_result_is_still_there() -> None:
    result = stored("lr-range")[0]
    lost = result.cells[0].model_copy(update={"status": "oom", "metrics": {}})
    row = rows(metrics_table(result.model_copy(update={"cells": [lost]})))
    assert [(each["status"], each["metric"], each["low"]) for each in row] == [("oom", None, None)]


def test_losses_of_a_model_of_ones_own_have_no_unit_that_is_not_theirs() -> None:
    result = stored("lr-range")[0]
    own = result.model_copy(update={"data": {**result.data, "loss_unit": ""}})
    units = {row["metric"]: row["unit"] for row in rows(summary_table(own))}
    assert (units["validation_loss"], units["max_stable_lr"]) == ("", "lr")


def test_a_setting_named_as_a_column_keeps_both() -> None:
    result = with_points(stored("lr-range")[0], lr=0.5, layers=[1, 2])
    row = rows(runs_table(result))[1]
    assert (row["point_lr"], row["layers"]) == (0.5, "[1, 2]")
    assert row["lr"] == result.cells[0].hold[0]["lr"]


def test_curves_have_a_row_a_step_and_held_rates_none_beyond_their_last(tmp_path: Path) -> None:
    result = stored("lr-range")[0]
    cell = result.cells[0].model_copy(update={"hold": [{"steps": 2, "lr": 0.1}, {"steps": 3, "lr": 0.2}]})
    (tmp_path / "curves").mkdir()
    np.savez(
        tmp_path / "curves" / f"{cell.key}.npz",
        ramp_lr=[0.1, 0.2],
        ramp_loss=[3.0, np.inf],
        ramp_grad_norm=[1.0, 2.0],
        hold_lr=[0.1, 0.2],
        hold_loss=[[3.0, np.nan, np.nan], [3.0, 2.0, 1.0]],
        looks=[[1.0]],
    )
    found = rows(curves_table(result.model_copy(update={"cells": [cell]}), tmp_path))
    told = [(row["phase"], row["run"], row["step"], row["lr"], row["loss"], row["grad_norm"]) for row in found]
    assert told[:2] == [("ramp", 0, 0, 0.1, 3.0, 1.0), ("ramp", 0, 1, 0.2, np.inf, 2.0)]
    assert told[2] == ("hold", 1, 0, 0.1, 3.0, None)
    assert told[3][:4] == ("hold", 1, 1, 0.1)
    assert np.isnan(told[3][4])  # a loss that is not a number, and no padding
    assert told[4:] == [("hold", 2, step, 0.2, loss, None) for step, loss in enumerate([3.0, 2.0, 1.0])]


def test_a_result_alone_gives_the_points_of_the_ramp_that_it_holds() -> None:
    result, raw = stored("lr-range")
    found = rows(curves_table(result))
    points = [point for cell in raw["cells"] for point in cell["ramp"]["curve"]]
    assert [(row["lr"], row["loss"], row["step"]) for row in found] == [(lr, loss, None) for lr, loss in points]


def test_damaged_curves_are_one_line_with_the_file(tmp_path: Path) -> None:
    result = stored("lr-range")[0]
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / f"{result.cells[0].key}.npz").write_bytes(b"PK no")
    with pytest.raises(ConfigError, match=r"the curves in .*\.npz are damaged .*; the line that made"):
        curves_table(result, tmp_path)
