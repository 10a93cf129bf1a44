"""The runs beside a shock, step by step: in Python and in tidy tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.commands.compare import compare_runs
from stresstest.errors import ConfigError
from stresstest.results.records import Result
from stresstest.results.tables import curves_table, runs_table
from tests.experiments.shock.hand_made import result_of

NAN = float("nan")


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """One cell with 3 steps before the shock and 2 after, two null twins, and two doses, the second of which breaks."""
    made = result_of({("pre-ln", "lr-pulse"): [(16, 16)]})
    (tmp_path / "curves").mkdir()
    np.savez(
        tmp_path / "curves" / f"{made.cells[0].key}.npz",
        twin_lr=[0.1, 0.2, 0.3, 0.4, 0.5],
        twin_loss=[5.0, 4.0, 3.0, 2.0, 1.0],
        null_loss=[[2.1, 1.1], [1.9, 0.9]],
        shock_dose=[8.0, 16.0],
        shock_loss=[[4.0, 1.5], [9.0, NAN]],
    )
    return made.of_run(tmp_path)


def rows(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def test_a_curve_is_chosen_by_its_phase_and_dose_and_begins_at_the_shock(result: Result) -> None:
    cell = result.cells[0]
    twin, null = result.curve(cell, "twin"), result.curve(cell, "null")
    assert (twin.step.tolist(), twin.loss.tolist()) == ([0, 1, 2, 3, 4], [5.0, 4.0, 3.0, 2.0, 1.0])
    assert (null.step.tolist(), null.lr.tolist(), null.loss.tolist()) == ([3, 4], [0.4, 0.5], [2.1, 1.1])
    hard = result.curve(cell, "shock", dose=16)
    assert (hard.step.tolist(), hard.loss.tolist(), hard.dose) == ([3], [9.0], 16.0)
    assert repr(hard) == "Curve(pre-ln depth 4 seed 0, shock of dose 16, 1 steps)"


def test_a_dose_that_was_not_tried_names_those_that_were(result: Result) -> None:
    with pytest.raises(ConfigError, match=r"no shock of dose 3; choose from 'twin', 'null', 'shock' of dose 8\.0"):
        result.curve(result.cells[0], "shock", dose=3)


def test_the_table_of_curves_has_a_row_a_step_of_every_run(result: Result) -> None:
    found = rows(curves_table(result, result.run_dir))
    assert [(each["phase"], each["run"], each["dose"], each["step"], each["loss"]) for each in found] == [
        *(("twin", 0, None, step, 5.0 - step) for step in range(5)),
        *(("null", 1, None, 3, 2.1), ("null", 1, None, 4, 1.1), ("null", 2, None, 3, 1.9), ("null", 2, None, 4, 0.9)),
        *(("shock", 3, 8.0, 3, 4.0), ("shock", 3, 8.0, 4, 1.5), ("shock", 4, 16.0, 3, 9.0)),
    ]


def test_a_result_alone_has_the_thinned_curves_of_its_record(result: Result) -> None:
    found, record = rows(curves_table(result)), result.cells[0].shock
    of = {phase: [(row["step"], row["loss"]) for row in found if row["phase"] == phase] for phase in ("twin", "shock")}
    assert of == {"twin": record["twin_curve"], "shock": record["curve"]}
    assert {row["dose"] for row in found if row["phase"] == "shock"} == {8.0}


def test_the_table_of_runs_has_the_twin_and_every_dose_with_what_it_cost(result: Result) -> None:
    found = [row for row in rows(runs_table(result)) if row["phase"] in ("twin", "shock")]
    assert found[0]["outcome"] == "stable"
    tried = [(each["dose"], each["outcome"], each["lasting_damage"]) for each in result.cells[0].shock["doses"]]
    assert [(row["dose"], row["outcome"], row["lasting_damage"]) for row in found[1:]] == tried


def test_two_runs_are_compared_by_their_tolerances_where_one_has_guards_beside(tmp_path: Path) -> None:
    bare = result_of({("pre-ln", "lr-pulse"): [(32, 64)] * 8}, seeds="8")
    runs = {("pre-ln", "lr-pulse"): [(8, 64)] * 8, ("pre-ln", "lr-pulse", "clip-norm"): [(8, 64)] * 8}
    guarded = result_of(runs, seeds="8", guard="clip-norm")
    found = compare_runs({"s": (bare, tmp_path)}, {"s": (guarded, tmp_path)}, "a", "b")
    told = {(line.metric, line.place.point.get("guard", "")): (line.verdict, line.median) for line in found.lines}
    assert found.warnings == []
    assert told["shock_tolerance", ""] == ("regressed", (-2.0, -2.0))
    assert told["break_tolerance", ""] == ("no-change", (0.0, 0.0))
    assert told["shock_tolerance", "clip-norm"][0] == "no-baseline"
