"""A result in Python: how it prints, its curves as arrays, its tables as frames, its charts."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from stresstest.errors import ConfigError
from stresstest.gate.claims import Asked, judge_claims
from stresstest.gate.claims_report import Chapter, Claims
from stresstest.results.records import Result, read_result
from stresstest.scenario.claims import parse_claim

STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))
every_kind = pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)


def stored(name: str = "lr-range") -> Result:
    return read_result(Path(__file__).parent / "stored" / f"{name}.json")


def kept(folder: Path) -> Result:
    """A run directory with the curves of its first cell: a ramp of four steps and two held LRs."""
    result = stored()
    cell = result.cells[0].model_copy(update={"hold": [{"lr": 0.1, "steps": 3}, {"lr": 0.2, "steps": 2}]})
    (folder / "curves").mkdir()
    (folder / "result.json").write_text(result.model_copy(update={"cells": [cell]}).to_json())
    np.savez_compressed(
        folder / "curves" / f"{cell.key}.npz",
        ramp_lr=np.array([0.1, 0.2, 0.4, 0.8]),
        ramp_loss=np.array([4.0, 3.0, 3.5, np.inf]),
        ramp_grad_norm=np.array([1.0, 2.0, 3.0, np.nan]),
        hold_lr=np.array([0.1, 0.2]),
        hold_loss=np.array([[4.0, 3.0, 2.0], [4.0, 9.0, np.nan]]),
    )
    return read_result(folder / "result.json")


@every_kind
def test_a_result_prints_as_a_few_lines(path: Path) -> None:
    result = read_result(path)
    lines = str(result).splitlines()
    assert repr(result) == str(result)
    assert 3 <= len(lines) <= 20
    assert len(str(result)) < 2500
    assert all(row.variant in str(result) for row in result.summary[:3])


@every_kind
def test_a_record_of_a_result_prints_as_one_line_without_what_is_empty(path: Path) -> None:
    result = read_result(path)
    for record in [*result.cells, *result.summary, *result.trends, *result.searches]:
        assert len(repr(record)) < 1100
        assert "\n" not in repr(record)
        assert "={}" not in repr(record)
        assert repr(record).startswith(f"{type(record).__name__}(")
        assert f"variant={record.variant!r}" in repr(record)


def test_a_metric_prints_as_its_median_and_interval_within_a_row() -> None:
    row = stored().summary[0]
    assert row.metrics["max_stable_lr"].inside() == "0.125..0.25 (0.125..0.25)"
    assert row.metrics["explosion_lr"].inside() == "> 10 (> 10)"
    assert "metrics={'explosion_lr': > 10 (> 10), 'steps_survived': > 40" in repr(row)


def test_where_a_result_came_from_is_neither_stored_nor_compared(tmp_path: Path) -> None:
    result = stored()
    moved = result.of_run(tmp_path)
    assert (moved.run_dir, moved) == (tmp_path, result)
    assert moved.to_json() == result.to_json()


class Tags(HTMLParser):
    """The names of a fragment's elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)


@every_kind
def test_a_notebook_shows_verdicts_tables_and_charts_without_a_script(path: Path) -> None:
    text = read_result(path)._repr_html_()
    tags = Tags(text).names
    assert {"h3", "ul", "table"} < set(tags)
    assert not {"script", "iframe", "link", "html", "body"} & set(tags)
    assert len(text.encode()) < 400_000


def test_every_style_of_a_fragment_is_its_own_alone() -> None:
    style = re.findall(r"<style>(.*?)</style>", stored()._repr_html_(), re.S)
    assert len(style) == 1
    outside, depth = [""], 0
    for letter in style[0]:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            outside.append("") if letter == "}" else outside.__setitem__(-1, outside[-1] + letter)
    assert depth == 0
    selectors = [each for part in outside for each in part.split(",") if each.strip()]
    assert selectors
    assert all(each.strip().split()[-1] == ".stresstest-result" for each in selectors)


def test_what_a_user_named_is_text_in_a_notebook() -> None:
    result = stored()
    evil = "a<img src=x onerror=alert(1)></style></script>"
    raw = json.loads(result.to_json().replace("post-ln", evil))
    raw["schema_"] = raw.pop("schema")
    renamed = Result.model_validate(raw)
    for text in (renamed._repr_html_(), renamed.plot()._repr_html_()):
        assert "<img" not in text
        assert text.count("</style>") == 1
    assert "</script>" not in renamed._repr_html_()


def test_a_chart_is_a_specification_that_an_independent_reader_draws(tmp_path: Path) -> None:
    figure = stored().plot()
    spec = figure.to_dict()
    assert dict(figure) == spec
    assert spec["$schema"].endswith("vega-lite/v6.json")
    assert spec["background"] != figure.to_dict(dark=True)["background"]
    saved = {suffix: figure.save(tmp_path / f"x.{suffix}") for suffix in ("svg", "png", "pdf", "html", "json")}
    assert json.loads(saved["json"].read_text()) == spec
    assert "pre-ln" in saved["svg"].read_text()
    assert saved["png"].read_bytes().startswith(b"\x89PNG")
    assert saved["pdf"].read_bytes().startswith(b"%PDF")
    assert saved["html"].read_text().startswith("<!doctype html>")


def test_a_notebook_gets_the_specification_and_a_chart_for_those_that_do_not_know_it() -> None:
    bundle = stored().plot()._repr_mimebundle_()
    assert list(bundle) == ["application/vnd.vegalite.v6+json", "text/html", "text/plain"]
    static, script = bundle["text/html"].split("<script>", 1)
    assert "<svg" in static
    assert 'frame.setAttribute("sandbox", "allow-scripts allow-downloads")' in script


def test_what_cannot_be_drawn_or_saved_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = stored()
    names = list(result.plots)
    with pytest.raises(ConfigError, match=f"no chart is named '{names[0][:-1]}'; did you mean '{names[0]}'"):
        result.plot(names[0][:-1])
    with pytest.raises(ConfigError, match=r"x\.jpg cannot hold a chart; end it in \.svg, \.png"):
        result.plot().save(tmp_path / "x.jpg")
    with pytest.raises(ConfigError, match="cannot be written"):
        result.plot().save(tmp_path / "none" / "x.json")
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError, match="needs vl_convert; "):
        result.plot().save(tmp_path / "x.svg")


def test_curves_are_arrays_a_number_a_step(tmp_path: Path) -> None:
    result = kept(tmp_path)
    cell = result.cells[0]
    ramp, low, high = result.curves
    assert [(each.phase, each.held_lr, len(each)) for each in (ramp, low, high)] == [
        ("ramp", None, 4),
        ("hold", 0.1, 3),
        ("hold", 0.2, 2),
    ]
    np.testing.assert_array_equal(ramp.step, [0, 1, 2, 3])
    np.testing.assert_array_equal(ramp.lr, [0.1, 0.2, 0.4, 0.8])
    np.testing.assert_array_equal(ramp.loss, [4.0, 3.0, 3.5, np.inf])
    np.testing.assert_array_equal(ramp.grad_norm, [1.0, 2.0, 3.0, np.nan])
    assert np.isnan(ramp.judged_loss).all()
    np.testing.assert_array_equal(result.curve(cell, "hold", 0.2).loss, [4.0, 9.0])
    assert result.curve(cell.key).phase == "ramp"
    assert repr(low) == f"Curve({cell.variant} depth {cell.depth} seed {cell.seed}, hold at 0.1, 3 steps)"


def test_a_curve_that_is_not_there_is_one_line_that_says_what_is(tmp_path: Path) -> None:
    result = kept(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no hold at lr 0\.4; choose from 'ramp', 'hold' at lr 0\.1, 'hold' at lr 0\.2"
    ):
        result.curve(result.cells[0], "hold", 0.4)
    with pytest.raises(ConfigError, match="no such cell in this result"):
        result.curve("no key")
    for missing in (lambda: stored().curves, lambda: stored().to_pandas("curves")):
        with pytest.raises(ConfigError, match="has none of its curves"):
            missing()
    with pytest.raises(ConfigError, match="was not read from a run directory"):
        _ = Result(**dict(stored())).curves


def test_frames_have_the_numbers_of_the_result_and_a_type_a_column(tmp_path: Path) -> None:
    result = kept(tmp_path)
    one, other = result.to_pandas(), result.to_polars()
    exact = {(c.key, name): (b.low, b.high) for c in result.cells for name, b in c.metrics.items()}
    for rows in (one.replace({np.nan: None}).to_dict("records"), other.to_dicts()):
        found = {(row["cell"], row["metric"]): (row["low"], row["high"]) for row in rows}
        assert found.items() >= exact.items()
    assert (one["low"].dtype, one["seed"].dtype) == (np.float64, np.int64)
    assert (other.schema["low"], other.schema["seed"], other.schema["variant"]) == (pl.Float64, pl.Int64, pl.String)
    runs = result.to_pandas("runs")
    assert (runs["onset_step"].dtype, runs["learned"].dtype) == (pd.Int64Dtype(), pd.BooleanDtype())
    assert result.to_pandas("curves").query("phase == 'hold' and run == 2")["loss"].tolist() == [4.0, 9.0]
    assert result.to_polars("curves").filter(pl.col("run") == 2)["loss"].to_list() == [4.0, 9.0]


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_a_frame_of_what_is_not_installed_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"a frame of {name} needs it; install it: pip install {name}"):
        getattr(stored(), f"to_{name}")()
    with pytest.raises(ConfigError, match="unknown table 'metric'; did you mean 'metrics'"):
        stored().to_pandas("metric")  # type: ignore[arg-type]


def test_claims_print_a_line_each() -> None:
    text = "one.max_stable_lr{variant=pre-ln} > 0"
    ((judged,),) = judge_claims([Asked("Nobody 2020", [parse_claim("It trains.", text)], [{"one": stored()}])])
    found = Claims([Chapter("tiny", "Nobody 2020", [judged], 1.0)])
    assert found == {"tiny": [judged]}
    assert repr(judged) == f"{judged.verdict}: It trains. {judged.figure}"
    assert "Claims" in str(found)
    assert len(str(found)) < 300


def test_a_result_of_an_experiment_that_is_not_registered_prints_too() -> None:
    other: Any = stored().model_copy(update={"command": "gone"})
    assert str(other).startswith("Result of gone, an experiment that is not registered: ")
