"""MLflow's file store: a file for each metric, `time value step` in each line."""

import math
from pathlib import Path

import numpy as np

from stresstest.logs.files import LogFile
from stresstest.logs.readers.mlflow import MetricFiles


def _file(path: Path, text: str) -> LogFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return LogFile(path, str(path))


def test_the_metrics_of_a_run_are_its_curves(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "meta.yaml").write_text("run_id: 1\nrun_name: 'brave-fox-7'\n")
    loss = _file(tmp_path / "run/metrics/train/loss", "1795882843829 2.5 0\n1795882843832 inf 1\n1795882843838 nan 2\n")
    lr = _file(tmp_path / "run/metrics/lr", "1795882843830 0.1 0\n")
    assert MetricFiles().fits(loss)
    (raw,) = MetricFiles().read(LogFile(loss.path, "x", more=(lr,)))
    values = raw.curves["train/loss"].value.tolist()
    assert raw.name == "brave-fox-7"
    assert values[:2] == [2.5, math.inf]
    assert math.isnan(values[2])
    assert raw.curves["lr"].row.tolist() == [1]  # by its time, after the first loss


def test_lines_without_a_step_are_rows(tmp_path: Path):
    loss = _file(tmp_path / "metrics/loss", "1795882843829 2.5\n1795882843832 1.5\n")
    (raw,) = MetricFiles().read(loss)
    assert np.isnan(raw.curves["loss"].step).all()


def test_a_table_of_numbers_is_no_metric_file(tmp_path: Path):
    assert not MetricFiles().fits(_file(tmp_path / "losses", "1 2.5 0\n2 1.5 1\n"))
    assert not MetricFiles().fits(_file(tmp_path / "log.txt", "1795882843829 2.5 0\n"))
