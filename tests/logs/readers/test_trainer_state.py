"""`trainer_state.json` of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.trainer_state import TrainerState

# As written by a run with NaN from step 13, five steps a row, and the default filter of NaN.
FILTERED = """{"best_metric": null, "epoch": 2.0, "global_step": 20, "log_history": [
 {"epoch": 0.5, "grad_norm": 2.5, "learning_rate": 4.6e-05, "loss": 1.4, "step": 5},
 {"epoch": 1.0, "grad_norm": 1.0, "learning_rate": 4.2e-05, "loss": 0.8211, "step": 10},
 {"epoch": 1.0, "eval_loss": 0.9, "eval_runtime": 1.2, "step": 10},
 {"epoch": 1.5, "grad_norm": NaN, "learning_rate": 3.7e-05, "loss": 1.0386, "step": 15},
 {"epoch": 2.0, "grad_norm": NaN, "learning_rate": 3.3e-05, "loss": 0.0, "step": 20},
 {"epoch": 2.0, "step": 20, "total_flos": 1.0, "train_loss": 0.54, "train_runtime": 3.0}
], "logging_steps": 5, "max_steps": 60, "num_train_epochs": 6}"""


def run(folder: Path, text: str, name: str = "trainer_state.json") -> RawLog:
    path = folder / name
    path.write_text(text)
    file = LogFile(path, name)
    assert TrainerState().fits(file)
    (only,) = TrainerState().read(file)
    return only


def test_evaluations_and_the_summary_are_no_rows_of_the_loss(tmp_path: Path) -> None:
    log = run(tmp_path, FILTERED)
    assert log.curves["loss"].step.tolist() == [5, 10, 15, 20]
    assert log.curves["loss"].value.tolist() == [1.4, 0.8211, 1.0386, 0.0]
    assert log.curves["eval_loss"].step.tolist() == [10]


def test_bare_nan_is_logged_and_not_missing(tmp_path: Path) -> None:
    np.testing.assert_array_equal(run(tmp_path, FILTERED).curves["grad_norm"].value, [2.5, 1.0, np.nan, np.nan])


def test_what_the_trainer_fixes_is_said(tmp_path: Path) -> None:
    facts = run(tmp_path, FILTERED).facts
    assert (facts.row_kind, facts.zero_for_nan, facts.planned_steps, facts.step_base) == ("mean", True, 60, 1)
    assert facts.loss_decimals == 4
    assert facts.roles == {
        "step": "step",
        "epoch": "epoch",
        "loss": "loss",
        "lr": "learning_rate",
        "grad_norm": "grad_norm",
        "validation": "eval_loss",
    }


def test_a_loss_that_was_not_rounded_is_known(tmp_path: Path) -> None:
    assert run(tmp_path, FILTERED.replace("0.8211", "0.821123456")).facts.loss_decimals is None


def test_it_is_known_by_its_history_under_any_name(tmp_path: Path) -> None:
    assert run(tmp_path, FILTERED, "training_logs.json").format == "Hugging Face trainer_state.json"


def test_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    text = '{"log_history": [{"loss": "3.412", "grad_norm": "nan", "step": 1}, {"loss": "2.5", "step": 2}]}'
    assert run(tmp_path, text).curves["loss"].value.tolist() == [3.412, 2.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"balance": 100, "trades": []}', "it has no `log_history`: transformers' Trainer did not write it"),
        ('{"log_history": []}', "its `log_history` is empty: nothing was logged yet"),
        ('{"log_history": [{"loss": 1.0, "step": 1},', "no whole JSON: .* in line 1"),
        ('{"log_history": ' + "[" * 200_000, "its JSON is nested too deeply"),
        ('{"log_history": [{"loss": 1' + "0" * 5000 + "}]}", "a number in it has too many digits"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer_state\.json: {said}"):
        run(tmp_path, text)


def test_of_a_file_cut_short_the_rows_before_the_cut_are_read(tmp_path: Path) -> None:
    log = run(tmp_path, FILTERED[: FILTERED.index('"step": 20')])
    assert log.curves["loss"].step.tolist() == [5, 10, 15]
    assert log.notes == ("the JSON is cut short; the 4 rows before that were read",)


def test_a_file_that_windows_wrote_in_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_bytes(FILTERED.encode("utf-16"))
    (log,) = TrainerState().read(LogFile(path, "trainer_state.json"))
    assert len(log.curves["loss"]) == 4
