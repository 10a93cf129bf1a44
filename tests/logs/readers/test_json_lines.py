"""Objects of JSON, a line each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.json_lines import JsonLines


def run(folder: Path, text: str, name: str = "log.jsonl") -> RawLog:
    path = folder / name
    path.write_text(text)
    file = LogFile(path, name)
    assert JsonLines().fits(file)
    (only,) = JsonLines().read(file)
    return only


def pairs(log: RawLog, key: str) -> list[tuple[float, float]]:
    curve = log.curves[key]
    return list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows_are_read_and_lists_and_text_left_out(tmp_path: Path) -> None:
    log = run(tmp_path, lines({"step": 1, "loss": 3, "note": "x", "hist": [1, 2]}, {"step": 2, "loss": "2.5"}))
    assert pairs(log, "loss") == [(1, 3), (2, 2.5)]
    assert set(log.curves) == {"step", "loss"}


def test_bare_nan_and_infinity_and_their_names_as_text_are_values_and_null_is_none(tmp_path: Path) -> None:
    text = '{"step":1,"loss":NaN}\n{"step":2,"loss":"Infinity"}\n{"step":3,"loss":null}\n{"step":4,"loss":-Infinity}\n'
    log = run(tmp_path, text)
    assert log.curves["loss"].step.tolist() == [1, 2, 4]
    np.testing.assert_array_equal(log.curves["loss"].value, [np.nan, np.inf, -np.inf])


def test_objects_within_are_opened(tmp_path: Path) -> None:
    log = run(tmp_path, lines({"step": 1, "train": {"loss": 3}}, {"step": 2, "train": {"loss": 2}}))
    assert pairs(log, "train/loss") == [(1, 3), (2, 2)]


def test_a_line_cut_at_the_end_and_one_broken_in_the_middle_are_dropped_and_said(tmp_path: Path) -> None:
    text = lines({"step": 1, "loss": 3}) + '{"step": 2, "lo\n' + lines({"step": 3, "loss": 1}) + '{"step": 4,'
    log = run(tmp_path, text)
    assert pairs(log, "loss") == [(1, 3), (3, 1)]
    assert log.notes == (
        "the last line is cut short and was dropped",
        "1 line could not be read and was dropped (first: line 2)",
    )


def test_what_stands_before_an_object_is_passed_over(tmp_path: Path) -> None:
    text = '2026-01-01 INFO {"step": 1, "loss": 3}\n2026-01-01 INFO {"step": 2, "loss": 2}\n'
    assert pairs(run(tmp_path, text, "out.log"), "loss") == [(1, 3), (2, 2)]


def test_a_text_with_a_few_objects_in_it_is_not_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.log"
    path.write_text('{"lr": 0.1}\nstep 1 loss 3\nstep 2 loss 2\nstep 3 loss 1\n')
    assert not JsonLines().fits(LogFile(path, "out.log"))


def test_a_file_that_turns_into_something_else_is_refused(tmp_path: Path) -> None:
    text = lines(*[{"step": step, "loss": 1} for step in range(60)]) + "no object\n" * 100
    with pytest.raises(ConfigError, match="100 of 160 lines hold no JSON object"):
        run(tmp_path, text)


def test_marks_of_a_merge_conflict_are_dropped(tmp_path: Path) -> None:
    row = '{"step": 1, "loss": 3}\n'
    log = run(tmp_path, f'<<<<<<< HEAD\n{row}=======\n{row}{{"step": 2, "loss": 2}}\n>>>>>>> b\n')
    assert pairs(log, "loss") == [(1, 3), (2, 2)]


def test_rows_of_validation_do_not_mix_with_train_rows(tmp_path: Path) -> None:
    log = run(tmp_path, lines({"split": "train", "step": 1, "loss": 3}, {"split": "val", "step": 1, "loss": 4}))
    assert (pairs(log, "loss"), pairs(log, "val/loss")) == ([(1, 3)], [(1, 4)])


def test_an_array_with_an_object_a_line_is_read_though_it_was_cut(tmp_path: Path) -> None:
    log = run(tmp_path, '[\n{"step": 1, "loss": 3},\n{"step": 2, "loss": 2},\n{"step": 3', "log.json")
    assert pairs(log, "loss") == [(1, 3), (2, 2)]


def test_one_number_a_line_goes_under_the_name_beside_it(tmp_path: Path) -> None:
    log = run(tmp_path, lines({"key": "loss", "value": 3, "step": 0}, {"key": "lr", "value": 0.1, "step": 0}))
    assert (pairs(log, "loss"), pairs(log, "lr")) == ([(0, 3)], [(0, 0.1)])


def test_detectron2_writes_json_lines_under_json_and_rows_without_a_loss(tmp_path: Path) -> None:
    rows = [
        {"data_time": 0.1, "iteration": 19, "lr": 0.1, "total_loss": 3.0, "loss_cls": 1.0},
        {"iteration": 19, "bbox/AP": 12.0},
        {"data_time": 0.1, "iteration": 39, "lr": 0.1, "total_loss": 2.0, "loss_cls": 0.5},
    ]
    log = run(tmp_path, lines(*rows), "metrics.json")
    assert log.format == "detectron2 metrics.json"
    assert log.facts.roles["loss"] == "total_loss"
    assert pairs(log, "total_loss") == [(19, 3), (39, 2)]
    assert "median" in log.facts.row_note


def test_rows_of_mmengine_overlap(tmp_path: Path) -> None:
    row = {"lr": 0.1, "data_time": 0.1, "loss": 3.0, "epoch": 1, "iter": 5, "step": 5}
    log = run(tmp_path, lines(row, {**row, "iter": 10, "step": 10, "loss": 2.0}), "scalars.json")
    assert (log.format, log.facts.row_kind) == ("mmengine scalars.json", "window")
    assert pairs(log, "loss") == [(5, 3), (10, 2)]


def test_a_loss_of_mmcv_is_that_of_train_mode(tmp_path: Path) -> None:
    rows = [
        {"env_info": "Linux", "seed": 1},
        {"mode": "train", "epoch": 1, "iter": 50, "lr": 0.1, "loss": 3.0},
        {"mode": "val", "epoch": 1, "iter": 50, "lr": 0.1, "loss": 4.0},
    ]
    log = run(tmp_path, lines(*rows), "20260101.log.json")
    assert log.format == "mmcv log.json"
    assert pairs(log, "loss") == [(50, 3)]
    assert [value for _, value in pairs(log, "val/loss")] == [4]


@pytest.mark.parametrize("lr", ["lr", "learning_rate"])
def test_llama_factory_names_its_step_and_the_whole_runs_steps(tmp_path: Path, lr: str) -> None:
    row = {"current_steps": 5, "total_steps": 100, "loss": 3.0, "eval_loss": None, lr: 0.1, "elapsed_time": "0:00:10"}
    log = run(
        tmp_path, lines(row, {**row, "current_steps": 10, "loss": 0.0}, {"current_steps": 100, "total_steps": 100})
    )
    assert log.format == "LLaMA-Factory trainer_log.jsonl"
    assert pairs(log, "loss") == [(5, 3), (10, 0)]
    facts = log.facts
    assert (facts.roles["lr"], facts.planned_steps, facts.row_kind, facts.zero_for_nan) == (lr, 100, "mean", True)
    assert "validation" not in facts.roles


def test_a_history_of_wandb_counts_by_the_trainers_own_step(tmp_path: Path) -> None:
    row = {"_step": 0, "_timestamp": 1.7e9, "_runtime": 3, "train/global_step": 100, "train/loss": 3.0}
    log = run(tmp_path, lines(row, {**row, "_step": 1, "train/global_step": 200, "train/loss": 2.0}))
    assert log.format == "W&B history"
    assert pairs(log, "train/loss") == [(100, 3), (200, 2)]


def test_rows_of_the_trainer_are_known_by_its_evaluations(tmp_path: Path) -> None:
    rows = [
        {"loss": 3.0, "grad_norm": 1.0, "learning_rate": 0.1, "epoch": 0.5, "step": 5},
        {"eval_loss": 3.1, "eval_runtime": 1.0, "epoch": 0.5, "step": 5},
    ]
    log = run(tmp_path, lines(*rows))
    assert log.facts.zero_for_nan
    assert log.facts.roles["validation"] == "eval_loss"


def test_blocks_join_without_a_seam(tmp_path: Path) -> None:
    log = run(tmp_path, lines(*[{"step": step, "loss": step / 2} for step in range(20_000)]))
    assert log.curves["loss"].step.tolist() == list(range(20_000))
