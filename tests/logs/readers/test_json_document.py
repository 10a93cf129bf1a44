"""Whole documents of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile, NoLossError
from stresstest.logs.readers import json_text
from stresstest.logs.readers.json_document import JsonDocument
from stresstest.logs.readers.table import READERS


def runs(folder: Path, document: object, name: str = "log.json") -> list[RawLog]:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1))
    file = LogFile(path, name)
    reader = next(reader for reader in READERS if reader.fits(file))
    assert isinstance(reader, JsonDocument)
    return list(reader.read(file))


def run(folder: Path, document: object, name: str = "log.json") -> RawLog:
    (only,) = runs(folder, document, name)
    return only


def pairs(log: RawLog, key: str) -> list[tuple[float, float]]:
    curve = log.curves[key]
    return list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))


ROWS = [{"step": 10, "loss": 3.0, "lr": 0.1}, {"step": 20, "loss": 2.0, "lr": 0.1}]


@pytest.mark.parametrize(
    "document",
    [
        ROWS,
        {"args": {"lr": 0.1, "betas": [0.9, 0.99]}, "history": ROWS},
        {"10": {"loss": 3.0}, "20": {"loss": 2.0}},
        {"step": [10, 20], "loss": [3.0, 2.0]},
        {"step": {"0": 10, "1": 20}, "loss": {"0": 3.0, "1": 2.0}},
        {"columns": ["step", "loss"], "index": [0, 1], "data": [[10, 3.0], [20, 2.0]]},
        {"metrics": [{"key": "loss", "value": 3.0, "step": 10}, {"key": "loss", "value": 2.0, "step": 20}]},
        {"run": "a", "metric": "loss", "values": [{"step": 10, "value": 3.0}, {"step": 20, "value": 2.0}]},
        [{"step": 10, "metrics": {"a": 1}, "loss": "3.0"}, {"step": 20, "loss": "2.0"}],
    ],
)
def test_a_curve_is_found_however_the_document_is_built(tmp_path: Path, document: object) -> None:
    assert pairs(run(tmp_path, document), "loss") == [(10, 3), (20, 2)]


@pytest.mark.parametrize("document", [{"loss": [3, 2], "val_loss": [4, 3]}, {"history": {"loss": [3, 2]}, "epochs": 2}])
def test_a_history_of_keras_counts_epochs_from_0(tmp_path: Path, document: object) -> None:
    assert pairs(run(tmp_path, document), "loss") == [(0, 3), (1, 2)]


def test_settings_beside_the_lists_are_no_curves(tmp_path: Path) -> None:
    document = {"history": {"train": {"loss": [3, 2, 1]}, "val": {"loss": [4, 3, 2]}}, "shape": [3, 224]}
    assert set(run(tmp_path, document).curves) == {"train/loss", "val/loss", "index"}


def test_bare_nan_and_infinity_are_values_and_null_is_missing(tmp_path: Path) -> None:
    log = run(tmp_path, '{"loss": [3.0, Infinity, null, NaN]}')
    assert log.curves["loss"].step.tolist() == [0, 1, 3]
    np.testing.assert_array_equal(log.curves["loss"].value, [3.0, np.inf, np.nan])


def test_lists_of_training_and_validation_are_one_run_and_others_are_runs(tmp_path: Path) -> None:
    both = run(tmp_path, {"train": [{"step": 1, "loss": 3}], "val": [{"step": 1, "loss": 4}]})
    assert (pairs(both, "train/loss"), pairs(both, "val/loss")) == ([(1, 3)], [(1, 4)])
    first, second = runs(tmp_path, {"a": [{"step": 1, "loss": 3}], "b": [{"step": 1, "loss": 4}]})
    assert (first.name, second.name, pairs(second, "loss")) == ("a", "b", [(1, 4)])


def test_tensorboards_download_is_a_curve(tmp_path: Path) -> None:
    log = run(tmp_path, [[1.7e9, 10, 3.0], [1.7e9, 20, 2.0]], "run-a-tag-train_loss.json")
    assert pairs(log, "train_loss") == [(10, 3), (20, 2)]


@pytest.mark.parametrize(
    ("document", "loss"),
    [
        ({"train": {"rmse": [3, 2]}, "eval": {"rmse": [4, 3]}}, "train/rmse"),
        (
            {"validation_0": {"auc": [0.5, 0.6], "logloss": [3, 2]}, "validation_1": {"logloss": [4, 3]}},
            "validation_0/logloss",
        ),
        ({"valid_0": {"binary_logloss": [3, 2]}, "training": {"binary_logloss": [3, 2]}}, "training/binary_logloss"),
        ({"learn": {"RMSE": [3, 2]}, "validation": {"RMSE": [4, 3]}}, "learn/RMSE"),
    ],
)
def test_rounds_of_boosting_count_from_0_and_the_train_set_is_named(
    tmp_path: Path, document: object, loss: str
) -> None:
    log = run(tmp_path, document, "evals.json")
    assert log.format == "evaluations of gradient boosting"
    assert log.facts.roles["loss"] == loss
    assert pairs(log, loss) == [(0, 3), (1, 2)]


def test_a_set_that_may_not_be_of_training_is_said(tmp_path: Path) -> None:
    (note,) = run(tmp_path, {"validation_0": {"rmse": [3, 2]}}).notes
    assert "`validation_0/rmse` is judged" in note


def test_scores_that_rise_are_no_loss(tmp_path: Path) -> None:
    assert "loss" not in run(tmp_path, {"train": {"auc": [0.5, 0.6]}}).facts.roles


def test_catboosts_own_json_names_its_metrics_apart(tmp_path: Path) -> None:
    document = {
        "meta": {"learn_metrics": [{"name": "Logloss", "best_value": "Min"}], "test_metrics": [{"name": "Logloss"}]},
        "iterations": [
            {"learn": [0.6], "test": [0.7], "iteration": 0, "passed_time": 0.1},
            {"learn": [0.5], "test": [0.65], "iteration": 1, "passed_time": 0.2},
        ],
    }
    rounds = ",\n".join(json.dumps(each) for each in document["iterations"])
    as_written = f'{{\n"meta":{json.dumps(document["meta"])},\n"iterations":[\n{rounds}\n]}}'
    for text in (document, as_written):
        log = run(tmp_path, text, "catboost_training.json")
        assert pairs(log, log.facts.roles["loss"]) == [(0, 0.6), (1, 0.5)]


def test_what_a_program_says_of_itself_in_objects_is_no_log(tmp_path: Path) -> None:
    text = '{"level": "INFO", "msg": "started"}\n{"level": "INFO", "msg": "done"}\n'
    with pytest.raises(NoLossError):
        runs(tmp_path, text, "debug-internal.log")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "loss": [3, 2', "no whole JSON: .* in line 2"),
        ("[" * 200_000, "its JSON is nested too deeply"),
        ('{"name": "config", "layers": {"width": 3}}', "JSON without rows"),
        ("[]", "JSON without rows"),
    ],
)
def test_what_holds_no_rows_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"log\.json: {said}"):
        runs(tmp_path, text)


def test_a_huge_document_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "MAX_BYTES", 10)
    with pytest.raises(ConfigError, match="write its rows as JSON lines"):
        runs(tmp_path, ROWS)


@pytest.mark.parametrize(
    "text",
    [
        "[1,  2000] loss: 2.173\n[1,  4000] loss: 1.9\n",
        "[2026-01-01 10:00:00] step 1 loss 3\n[2026-01-01 10:00:01] step 2 loss 2\n",
        '{\n  "lr": 0.1,\n  "steps": 3\n}\nstep 1 loss 3\nstep 2 loss 2\n',
        "{'loss': 3.0, 'epoch': 1.0}\n{'loss': 2.0, 'epoch': 2.0}\n",
    ],
)
def test_what_a_program_printed_is_no_document(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.log"
    path.write_text(text)
    assert not JsonDocument().fits(LogFile(path, "out.log"))


def test_an_array_in_one_line_is_no_json_lines(tmp_path: Path) -> None:
    assert pairs(run(tmp_path, json.dumps(ROWS)), "loss") == [(10, 3), (20, 2)]


def test_lists_without_numbers_are_no_runs(tmp_path: Path) -> None:
    log = run(tmp_path, {"schema": {"fields": [{"name": "step"}, {"name": "loss"}]}, "data": ROWS})
    assert (log.name, pairs(log, "loss")) == ("", [(10, 3), (20, 2)])
