"""Tables as files: what csv, pandas and pyarrow read is what was measured, and no text becomes a formula."""

from __future__ import annotations

import csv
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.commands.show_result import made_of
from stresstest.errors import ConfigError
from stresstest.reports import csv_tables, parquet_tables
from stresstest.reports.output import parse_output, write_outputs
from stresstest.results.records import Result, read_result
from stresstest.results.tables import result_tables

EVIL = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "'quoted", 'a "b", c', "two\nlines", "Δ 学 🙂", ""]
TEXT = st.text(st.characters(codec="utf-8"))


def stored() -> Result:
    return read_result(Path(__file__).parents[1] / "results" / "stored" / "lr-range.json")


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, st.floats(), st.integers()), min_size=1))
def test_texts_and_numbers_come_back_from_csv_as_they_were(rows: list[tuple[str, float, int]]) -> None:
    texts, floats, integers = (list(column) for column in zip(*rows, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        csv_tables.write({"t": {"text": texts, "float": floats, "integer": integers}}, Path(folder))
        _, *lines = read(Path(folder) / "t.csv")
    assert [text.removeprefix("'") for text, _, _ in lines] == texts
    assert [repr(float(each)) for _, each, _ in lines] == list(map(repr, floats))
    assert [int(each) for _, _, each in lines] == integers


def test_no_text_begins_as_a_formula_and_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    csv_tables.write({"t": {"=name": EVIL, "number": [-1.5] * len(EVIL)}}, tmp_path)
    header, *lines = read(tmp_path / "t.csv")
    assert header == ["'=name", "number"]
    assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")) for text, _ in lines)
    assert {number for _, number in lines} == {"-1.5"}
    read_by_pandas = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert list(read_by_pandas["'=name"].str.removeprefix("'")) == EVIL


def test_pandas_reads_the_numbers_of_the_result(tmp_path: Path) -> None:
    result = stored()
    csv_tables.write(result_tables(result), tmp_path)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    found = {(row.cell, row.metric): row.low for row in metrics.itertuples() if not math.isnan(row.low)}
    assert found == {
        (cell.key, name): value.low
        for cell in result.cells
        for name, value in cell.metrics.items()
        if value.low is not None
    }
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert runs.query("phase == 'hold'").learned.dtype == bool


def test_parquet_keeps_numbers_and_types_where_a_column_is_empty_too(tmp_path: Path) -> None:
    tables = result_tables(stored())
    parquet_tables.write(tables, tmp_path)
    for name, table in tables.items():
        assert pq.read_table(tmp_path / f"{name}.parquet").to_pydict() == table
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "runs.parquet")}
    assert types | {"bleu": "double", "onset_step": "int64", "learned": "bool", "variant": "string"} == types
    assert set(tables["runs"]["bleu"]) == {None}


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 2.5], "double"), ([1, "a"], "string"), ([None, None], "string"), ([True, None], "bool")]
)
def test_what_an_experiment_varies_has_the_type_of_its_values(tmp_path: Path, values: list[Any], kind: str) -> None:
    parquet_tables.write({"t": {"knob": values}}, tmp_path)
    assert str(pq.read_schema(tmp_path / "t.parquet").field("knob").type) == kind


def test_a_result_alone_says_which_curves_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_outputs([("csv", tmp_path / "out")], made_of(stored(), tmp_path))
    number = len(stored().cells)
    assert f"{tmp_path}/curves lacks the curves of {number} of {number} cells: of these" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.csv" for name in result_tables(stored())}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("csv:{}/x.csv", r"csv writes a folder of files; name one: csv:.*/x$"),
        ("{}/x.csv", r"csv writes a folder of files; name one: csv:.*/x$"),
        ("csv:{}/no/x", r"/no is not a folder; give another"),
        ("csv:{}/file", r"/file is not a folder; give another"),
        ("csv:", r"output 'csv:' has no path; write csv:FOLDER"),
        ("csw:{}/x", r"unknown format of output .*; did you mean 'csv'\?"),
    ],
)
def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path, asked: str, said: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=said):
        parse_output(asked.format(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_may_not_be_made_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"csv:/proc/tables cannot be written \(.*\); give another folder"):
        parse_output("csv:/proc/tables")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"output parquet: needs pyarrow; .*install"):
        parse_output(f"parquet:{tmp_path}/x")
