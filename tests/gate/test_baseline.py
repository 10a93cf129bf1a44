"""The committed baseline: what it keeps, and what is said of one that somebody changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stresstest.errors import ConfigError
from stresstest.gate.baseline import Baseline, baseline_file, baseline_results, load_baseline, make_baseline
from stresstest.gate.judge import Results
from stresstest.results.records import RESULT_SCHEMA, Bracket, Result, SummaryRow, TrendRow, summarise

VALUES = {0: Bracket(low=0.1, high=0.12), 1: Bracket(low=None, high=0.01), 7: Bracket(low=10.0, high=None)}


def results(**other: Any) -> Results:
    row = SummaryRow(
        variant="pre-ln",
        depth=4,
        optimizer="adam",
        metrics={name: summarise(name, VALUES) for name in ("max_stable_lr", "onset_lr")},
        outcomes={"stable": 3},
    )
    depth = {"max_trainable_depth": summarise("max_trainable_depth", VALUES)}
    trend = TrendRow(variant="pre-ln", optimizer="adam", metrics=depth)
    facts: dict[str, Any] = {
        "command": "depth-sweep",
        "spec": {"width": 64, "seeds": [0, 1, 7], "variant": ["pre-ln"], "device": "auto"},
        "rules": {"patience": 3},
        "environment": {"key": "torch2.13/cpu/A CPU/x86_64/float32/Linux"},
        "data": {"hash": "abc"},
    }
    return {
        "e": Result(
            schema_=RESULT_SCHEMA, reproduce="", cells=[], summary=[row], trends=[trend], findings=[], **facts | other
        )
    }


def made(**other: Any) -> Baseline:
    gated = {"e": {"max_stable_lr", "max_trainable_depth"}}
    return make_baseline("gate", results(**other), gated, "0" * 40, "2026-11-27", "first")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(made().to_json())
    return path


def test_it_comes_back_as_it_was_with_open_brackets_open(stored: Path) -> None:
    theirs = baseline_results(load_baseline(stored), results())
    ours = results()
    assert theirs["e"].summary[0].metrics["max_stable_lr"] == ours["e"].summary[0].metrics["max_stable_lr"]
    assert theirs["e"].trends[0].metrics == ours["e"].trends[0].metrics


def test_it_is_small_and_sorted_and_holds_what_is_gated_alone(stored: Path) -> None:
    text = stored.read_text()
    assert "onset_lr" not in text
    assert text == made().to_json()
    keys = list(json.loads(text))
    assert keys == sorted(keys)
    assert '"1": [null, 0.01]' in text


def test_its_place_is_named_by_scenario_and_environment() -> None:
    found = baseline_file("gate", "torch2.13/cpu/Intel(R) Xeon(R)/x86_64/float32/Linux")
    assert found == Path("stresstest-baselines/gate/torch2.13-cpu-Intel-R-Xeon-R-x86-64-float32-Linux.json")


KEY = "torch2.13/cpu/A CPU/x86_64/float32/Linux"


@pytest.mark.parametrize(
    ("other", "key", "said"),
    [
        ({}, KEY, ""),
        ({}, "torch2.14/cpu", "the baseline was made on"),
        ({"data": {"hash": "abd"}}, KEY, "the data of e"),
        ({"spec": {"width": 65}}, KEY, "the settings of e"),
        ({"rules": {"patience": 4}}, KEY, "the settings of e"),
        ({"spec": {"width": 64, "seeds": [0], "variant": ["x"], "device": "cpu"}}, KEY, ""),
        ({"spec": {"width": 64, "kernel": "torch"}}, KEY, ""),
        (
            {"spec": {"width": 64, "kernel": "native"}},
            KEY,
            "train e with kernel torch, as its baseline was, or write a new one: this is kernel native",
        ),
    ],
)
def test_other_settings_data_or_machines_are_incomparable(other: dict[str, Any], key: str, said: str) -> None:
    found = made().differs(results(**other), key)
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_a_baseline_names_its_kernel_and_one_of_before_the_choice_is_torchs(stored: Path) -> None:
    """Such a file has no such key, and its digest is still its own."""
    assert '"kernel"' not in stored.read_text()
    assert load_baseline(stored).kernel_of("e") == "torch"
    native = made(spec={"width": 64, "kernel": "native"})
    stored.write_text(native.to_json())
    assert load_baseline(stored).kernel_of("e") == "native"
    assert native.differs(results(spec={"width": 64}), KEY) == (
        "train e with kernel native, as its baseline was (stresstest doctor tells whether it is here), or write a new "
        "one: this is kernel torch"
    )


def _without_a_seed(stored: dict[str, Any]) -> None:
    del stored["experiments"]["e"]["rows"][0]["metrics"]["max_stable_lr"]["7"]


def _with_another_value(stored: dict[str, Any]) -> None:
    stored["experiments"]["e"]["rows"][0]["metrics"]["max_stable_lr"]["0"] = [0.05, 0.06]


def _of_another_type(stored: dict[str, Any]) -> None:
    stored["experiments"]["e"]["rows"][0]["metrics"]["max_stable_lr"]["0"] = "0.1"


def _of_another_schema(stored: dict[str, Any]) -> None:
    stored["schema"] = "stresstest.baseline/2"


def _with_an_unknown_metric(stored: dict[str, Any]) -> None:
    stored["experiments"]["e"]["rows"][0]["metrics"]["speed"] = {"0": [1.0, 1.0]}


def _with_another_key(stored: dict[str, Any]) -> None:
    stored["more"] = 1


def _without_a_reason(stored: dict[str, Any]) -> None:
    del stored["reason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_a_seed, "was edited by hand"),
        (_with_another_value, "was edited by hand"),
        (_of_another_type, "experiments.e.rows.0.metrics.max_stable_lr.0"),
        (_of_another_schema, "has schema 'stresstest.baseline/2'"),
        (_with_an_unknown_metric, "unknown metric 'speed'"),
        (_with_another_key, "more: Extra inputs are not permitted"),
        (_without_a_reason, "reason: Field required"),
    ],
)
def test_a_file_that_was_edited_is_one_line_and_stays(
    stored: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    content = json.loads(stored.read_text())
    change(content)
    stored.write_text(before := json.dumps(content))
    with pytest.raises(ConfigError) as raised:
        load_baseline(stored)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert stored.read_text() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a readable baseline"),
        (b"\xff\xfe", "is not a readable baseline"),
        (b"[]", "has schema None"),
        (b"[" * 100_000, "is not a readable baseline"),
        (b" " * (5 << 20), "is too large for a baseline"),
    ],
)
def test_what_is_no_baseline_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_baseline(path)
