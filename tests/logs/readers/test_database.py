"""The SQLite stores of MLflow and Trackio, with the columns that they create."""

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.database import Database

_LARGEST = 1.7976931348623157e308
_MLFLOW = """
CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), start_time BIGINT, lifecycle_stage VARCHAR(20));
CREATE TABLE metrics (key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
  run_uuid VARCHAR(32) NOT NULL, step BIGINT NOT NULL, is_nan BOOLEAN NOT NULL,
  PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));
"""
_TRACKIO = """
CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, timestamp TEXT NOT NULL,
  run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL);
"""


def _database(path: Path, script: str, table: str, rows: list[tuple[object, ...]]) -> LogFile:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(script)
        if rows:
            marks = ",".join("?" * len(rows[0]))
            database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        database.commit()
    return LogFile(path, path.name)


def _mlflow(path: Path, metrics: list[tuple[object, ...]], runs: list[tuple[object, ...]]) -> LogFile:
    file = _database(path, _MLFLOW, "metrics", metrics)
    with closing(sqlite3.connect(path)) as database:
        database.executemany("INSERT INTO runs VALUES (?,?,?,?)", runs)
        database.commit()
    return file


def _read(file: LogFile) -> list[RawLog]:
    assert Database().fits(file)
    return list(Database().read(file))


def test_mlflow_gives_a_run_for_each_of_its_runs_by_their_names(tmp_path: Path):
    metrics = [("loss", 2.0, 10, "b", 0, 0), ("loss", 1.0, 20, "b", 1, 0), ("loss", 9.0, 5, "a", 0, 0)]
    runs = [("b", "second", 2, "active"), ("a", "first", 1, "active"), ("c", "gone", 0, "deleted")]
    raws = _read(_mlflow(tmp_path / "mlflow.db", [*metrics, ("loss", 1.0, 1, "c", 0, 0)], runs))
    assert [raw.name for raw in raws] == ["first", "second"]
    assert raws[1].curves["loss"].value.tolist() == [2, 1]


def test_mlflow_writes_nan_as_zero_beside_a_flag_and_infinity_as_the_largest_number(tmp_path: Path):
    metrics = [("loss", 0.5, 1, "a", 0, 0), ("loss", _LARGEST, 2, "a", 1, 0), ("loss", 0.0, 3, "a", 2, 1)]
    (raw,) = _read(_mlflow(tmp_path / "mlflow.db", metrics, [("a", "x", 1, "active")]))
    values = raw.curves["loss"].value.tolist()
    assert values[:2] == [0.5, math.inf]
    assert math.isnan(values[2])


def test_mlflow_keeps_both_halves_of_a_resumed_run_in_the_order_of_their_times(tmp_path: Path):
    steps = [0, 1, 2, 3, 2, 3, 4]
    metrics = [("loss", float(i), 100 + i, "a", step, 0) for i, step in enumerate(steps)]
    (raw,) = _read(_mlflow(tmp_path / "mlflow.db", metrics[::-1], [("a", "x", 1, "active")]))
    assert raw.curves["loss"].step.tolist() == steps
    assert raw.curves["loss"].value.tolist() == list(range(7))


def test_mlflow_without_steps_counts_rows(tmp_path: Path):
    metrics = [("loss", float(i), 100 + i, "a", 0, 0) for i in range(4)]
    (raw,) = _read(_mlflow(tmp_path / "mlflow.db", metrics, [("a", "x", 1, "active")]))
    assert raw.notes == ("every step is 0, so none was given to the writer: rows are counted instead",)


def _trackio_row(number: int, run: str, step: int, metrics: object) -> tuple[object, ...]:
    return (number, f"id-{run}", "2026-01-01", run, step, json.dumps(metrics).encode())


def test_trackio_keeps_json_as_bytes_and_what_is_not_finite_as_words(tmp_path: Path):
    rows = [
        _trackio_row(1, "tiny", 0, {"loss": 1.5, "lr": 0.1}),
        _trackio_row(2, "tiny", 1, {"loss": "Infinity"}),
        _trackio_row(3, "tiny", 2, {"loss": "NaN"}),
    ]
    (raw,) = _read(_database(tmp_path / "project.db", _TRACKIO, "metrics", rows))
    values = raw.curves["loss"].value.tolist()
    assert raw.name == "tiny"
    assert values[:2] == [1.5, math.inf]
    assert math.isnan(values[2])
    assert raw.curves["lr"].step.tolist() == [0]


def test_trackio_rows_are_ordered_by_their_id(tmp_path: Path):
    rows = [_trackio_row(number, "tiny", number, {"loss": float(number)}) for number in (3, 1, 2)]
    (raw,) = _read(_database(tmp_path / "project.db", _TRACKIO, "metrics", rows))
    assert raw.curves["loss"].value.tolist() == [1, 2, 3]


def test_rows_that_are_still_in_the_write_ahead_log_are_read_and_nothing_is_written(tmp_path: Path):
    path = tmp_path / "project.db"
    _database(path, "PRAGMA journal_mode=WAL;" + _TRACKIO, "metrics", [_trackio_row(1, "tiny", 0, {"loss": 2.0})])
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO metrics VALUES (?,?,?,?,?,?)", _trackio_row(2, "tiny", 1, {"loss": 1.0}))
        writer.commit()
        before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
        (raw,) = _read(LogFile(path, "project.db"))
        assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before
    assert raw.curves["loss"].value.tolist() == [2, 1]


def test_rows_that_are_no_json_are_left_out_and_counted(tmp_path: Path):
    rows = [_trackio_row(1, "tiny", 0, {"loss": 2.0}), (2, "id-tiny", "2026-01-01", "tiny", 1, b"\xff{")]
    (raw,) = _read(_database(tmp_path / "project.db", _TRACKIO, "metrics", rows))
    assert raw.curves["loss"].value.tolist() == [2]
    assert raw.notes == ("1 rows that are not JSON were left out",)


def test_a_database_is_left_as_it_was(tmp_path: Path):
    file = _database(tmp_path / "project.db", _TRACKIO, "metrics", [_trackio_row(1, "tiny", 0, {"loss": 2.0})])
    content = file.path.read_bytes()
    file.path.chmod(0o400)
    _read(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["project.db"]
    assert file.path.read_bytes() == content


def test_a_database_of_something_else_is_refused_with_its_tables(tmp_path: Path):
    file = _database(tmp_path / "songs.db", "CREATE TABLE songs (title TEXT);", "songs", [])
    with pytest.raises(ConfigError, match=r"^songs\.db: a SQLite database of neither MLflow nor Trackio; .*: songs$"):
        _read(file)


def test_a_damaged_database_is_one_line(tmp_path: Path):
    file = _database(tmp_path / "project.db", _TRACKIO, "metrics", [_trackio_row(1, "tiny", 0, {"loss": 2.0})])
    content = bytearray(file.path.read_bytes())
    content[100:3000] = b"\xff" * 2900
    file.path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^project\.db: a damaged SQLite database"):
        _read(file)
