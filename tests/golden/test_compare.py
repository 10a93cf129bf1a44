"""What compares the golden runs sees a change of a number, of a curve, of a sentence and of a field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden.compare import compare_runs, load_mapping, main

OLD = "pre-ln holds the highest learning rate: 0.031 trains, 0.062 does not (median of 2 seeds), 4x what post-ln holds."
NEW = OLD.replace("what post-ln holds", "that of post-ln")
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], object]


def _cells(*keys: str) -> list[dict[str, Any]]:
    metrics = {"max_stable_lr": {"low": 0.03125, "high": 0.0625}, "peak_bytes": {"low": 1.0, "high": 1.0}}
    variants = {"a": "pre-ln", "b": "post-ln"}
    return [
        {
            "key": key,
            "variant": variants[key[0]],
            "depth": 2,
            "seed": 0,
            "point": {},
            "seconds": 1.0,
            "metrics": metrics,
        }
        for key in keys
    ]


def _write(folder: Path, text: str, keys: tuple[str, ...], change: Change | None = None) -> Path:
    result = {"cells": _cells(*keys), "findings": [{"kind": "highest", "subject": "pre-ln", "text": text}]}
    curves = {"loss": np.array([2.5, float("nan")]), "lr": np.array([0.1, 0.2])}
    if change:
        change(result, curves)
    (folder / "run" / "curves").mkdir(parents=True)
    for cell in result["cells"]:
        np.savez(folder / "run" / "curves" / f"{cell['key']}.npz", **curves)
    (folder / "run" / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return _write(tmp_path / "before", OLD, ("a1", "b1"))


def _differences(before: Path, after: Path) -> list[str]:
    (comparison,) = compare_runs(before, after, load_mapping())
    return comparison.differences


def test_other_keys_timings_order_and_words_are_no_difference(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def slower(result: dict[str, Any], _: object) -> None:
        for cell in result["cells"]:
            cell["seconds"] = 9.0
            cell["metrics"]["peak_bytes"]["low"] = 2.0

    after = _write(before.parent / "after", NEW, ("b2", "a2"), slower)
    assert main(str(before), str(after)) == 0
    assert "2 cells, 4 arrays, 1 findings, 1 of them reworded: 0 differences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda result, _: result["cells"][0]["metrics"]["max_stable_lr"].update(low=0.03125000000000001), "low"),
        (lambda result, _: result["cells"][0].update(depth=2.0), "no cell"),
        (lambda result, _: result["cells"].pop(), "no cell"),
        (lambda result, _: result.update(trends=[]), ".trends: only after"),
        (lambda result, _: result["findings"][0].update(text=NEW.replace("0.062", "0.063")), ".findings[0].text"),
        (lambda result, _: result["findings"][0].update(text=OLD), ".findings[0].text"),
        (lambda result, _: result["findings"][0].update(kind="boundary"), ".findings[0].kind"),
        (lambda _, curves: curves.update(loss=np.nextafter(curves["loss"], 3.0)), "curves of"),
        (lambda _, curves: curves.update(lr=curves["lr"].astype(np.float32)), "curves of"),
        (lambda _, curves: curves.pop("lr"), "curves of"),
    ],
)
def test_anything_else_is_a_difference(before: Path, change: Change, where: str) -> None:
    found = _differences(before, _write(before.parent / "after", NEW, ("a2", "b2"), change))
    assert any(where in one for one in found), found


def test_a_run_or_curves_that_are_missing_are_a_difference(before: Path) -> None:
    after = before.parent / "after"
    assert _differences(before, after) == ["missing after"]
    _write(after, NEW, ("a2", "b2"))
    for folder in (before, after):
        for path in (folder / "run" / "curves").glob("a*.npz"):
            path.unlink()
    assert ["no curves" in one for one in _differences(before, after)] == [True]
