"""MLflow's runs: the table of a SQLite store, and the metric files of a file store (seen with 3.17)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stresstest.logs.curve import FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers.packed import PackedLog
from stresstest.logs.values import number

COLUMNS = frozenset({"key", "value", "timestamp", "run_uuid", "step", "is_nan"})
_FACTS = FormatFacts(one_value_a_row=True)
_MANY = 1 << 16
_LINE = re.compile(r"\d{10,} \S+( -?\d+)?")  # time in milliseconds, value, step
_NAME = re.compile(r"^run_name: *['\"]?(.*?)['\"]? *$", re.MULTILINE)


def runs_in(database: sqlite3.Connection, has_runs: bool) -> Iterator[RawLog]:
    """The runs of a SQLite store that were not deleted, in the order in which they began."""
    runs = (
        "SELECT run_uuid, name FROM runs WHERE coalesce(lifecycle_stage, 'active') != 'deleted' ORDER BY start_time"
        if has_runs
        else "SELECT run_uuid, run_uuid FROM metrics GROUP BY run_uuid ORDER BY min(timestamp)"
    )
    for run, name in database.execute(runs).fetchall():
        log = _run(database, run)
        if log.curves:
            yield RawLog("MLflow (SQLite)", log.unpacked(), _FACTS, name=str(name or run), notes=tuple(log.notes()))


def _run(database: sqlite3.Connection, run: str) -> PackedLog:
    log, count = PackedLog(), 0
    wanted = "SELECT key, value, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, rowid"
    rows = database.execute(wanted, (run,))
    while many := rows.fetchmany(_MANY):
        keys = np.array([str(key) for key, *_ in many])
        values = np.array([_value(value, is_nan) for _, value, _, is_nan in many])
        steps = np.array([int(step or 0) for _, _, step, _ in many], dtype=np.int64)
        places = np.arange(count, count + len(many), dtype=np.int64)
        for key in dict.fromkeys(keys.tolist()):
            of_key = keys == key
            log.append(key, steps[of_key], values[of_key], places[of_key])
        log.bound()
        count += len(many)
    return log


def _value(value: object, is_nan: object) -> float:
    """NaN stands as 0 beside a flag, infinity as the largest finite number."""
    read = number(value)
    return float("nan") if is_nan or read is None else read


class MetricFiles:
    """The metrics of one run of a file store, each in a file of its own below `metrics/`."""

    name = "MLflow (files)"
    reads = "the metric files of MLflow's file store"

    def fits(self, file: LogFile) -> bool:
        """A time, a value and a step in the first line; below a folder `metrics` where it stands in one."""
        first = file.head_text.partition("\n")[0].strip()
        return file.suffix == "" and _LINE.fullmatch(first) is not None

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """One run."""
        yield read_metrics([file, *file.more])


def read_metrics(files: Sequence[LogFile]) -> RawLog:
    """The run whose metrics these files hold; rows are ordered by their times."""
    names, times, values, steps = [], [], [], []
    for file in files:
        for line in file.lines():
            parts = line.split()
            value = number(parts[1]) if len(parts) in (2, 3) else None
            if value is not None:
                names.append(_key(file.path))
                times.append(int(parts[0]))
                values.append(value)
                steps.append(int(parts[2]) if len(parts) == 3 else 0)
    order = np.argsort(np.array(times, dtype=np.int64), kind="stable")
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    log = PackedLog()
    for name in dict.fromkeys(names):
        own = np.array([each == name for each in names])
        log.append(name, np.array(steps, dtype=np.int64)[own], np.array(values)[own], places[own])
    return RawLog(MetricFiles.name, log.unpacked(), _FACTS, name=_run_name(files[0].path), notes=tuple(log.notes()))


def run_folder(path: Path) -> Path:
    """The folder of the run that a metric file belongs to; its own where it lies in no folder `metrics`."""
    above = next((parent for parent in path.parents if parent.name == "metrics"), None)
    return path.parent if above is None else above.parent


def _key(path: Path) -> str:
    return path.relative_to(run_folder(path)).as_posix().removeprefix("metrics/")


def _run_name(path: Path) -> str:
    meta = run_folder(path) / "meta.yaml"
    found = _NAME.search(meta.read_text(errors="replace")) if meta.is_file() else None
    return found[1] if found else run_folder(path).name
