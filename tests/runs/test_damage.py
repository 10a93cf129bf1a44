"""Bytes that change on the disk: nothing that was stored rots unseen, and no number comes out changed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.results.courses import read_courses
from stresstest.results.records import Bracket, Cell, Result, read_result
from stresstest.runs.directory import planned_cells, read_manifest, stored_cells, stored_status
from stresstest.runs.store import RunStore, open_run

MANIFEST = {
    "identity": "one",
    "command": "lr-range",
    "again": "stresstest lr-range",
    "spec": {"lr": 0.1},
    "shard": (1, 1),
}
CURVES = {"ramp_loss": np.linspace(3.0, 1.0, 20)}


def cell(number: int) -> Cell:
    bracket = {"max_stable_lr": Bracket(low=0.5 / (number + 1), high=None)}
    return Cell(key=f"{number:024x}", variant="pre-ln", depth=6, seed=number, status="done", metrics=bracket)


def result(cells: list[Cell]) -> Result:
    about = {"command": "lr-range", "reproduce": "", "spec": {"depth": 6}, "summary": [], "findings": []}
    about |= {name: {} for name in ("rules", "environment", "data")}
    return Result.model_validate({"schema_": "stresstest.result/1", "cells": cells, **about})


@contextmanager
def opened(path: Path, told: list[str] | None = None) -> Iterator[RunStore]:
    with open_run(path, MANIFEST, tell=(told if told is not None else []).append) as store:
        yield store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory of three cells with curves, a plan and a result."""
    with opened(tmp_path / "run") as store:
        stored = [store.append(cell(number), CURVES) for number in range(3)]
        store.write_plan([each.key for each in stored], [each.key for each in stored])
        store.write_result(result(stored).json_parts())
    return tmp_path / "run"


def changed(content: bytes, draw: random.Random) -> bytes:
    """One byte of it is another one."""
    at, other = draw.randrange(len(content)), draw.randrange(1, 256)
    return content[:at] + bytes([content[at] ^ other]) + content[at + 1 :]


def test_a_changed_byte_of_the_cells_is_told_and_never_another_number(run: Path) -> None:
    """What is read is what was written; what is not read again is told, or the end of the last line alone was cut."""
    path, draw = run / "cells.jsonl", random.Random(0)
    whole = path.read_bytes()
    with opened(run) as store:
        written = store.finished()
    for _ in range(150):
        path.write_bytes(changed(whole, draw))
        assert stored_cells(run).items() <= written.items()
        assert stored_status(run).items() <= {key: each.status for key, each in written.items()}.items()
        told: list[str] = []
        with opened(run, told) as store:
            found = store.finished()
        assert found.items() <= written.items()
        assert told or len(found) == 3 or list(found) == list(written)[:2], "only a last line may be cut in silence"


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "result.json"])
def test_a_changed_byte_of_a_file_is_an_error_or_no_other_content(run: Path, name: str) -> None:
    """A space for another one says the same."""
    path, draw = run / name, random.Random(1)
    whole = path.read_bytes()
    read = {
        "manifest.json": read_manifest,
        "plan.json": planned_cells,
        "result.json": lambda at: read_result(at / name),
    }
    before = read[name](run)
    errors: list[str] = []
    for _ in range(150):
        path.write_bytes(changed(whole, draw))
        try:
            assert read[name](run) == before
        except ConfigError as error:
            errors.append(str(error))
    assert len(errors) > 100
    assert all(name in error and len(error.splitlines()) == 1 for error in errors)


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "result.json"])
def test_what_is_nested_too_deeply_is_told(run: Path, name: str) -> None:
    (run / name).write_text("[" * 100_000)
    (run / "result.sum").unlink()
    read = {
        "manifest.json": read_manifest,
        "plan.json": planned_cells,
        "result.json": lambda at: read_result(at / name),
    }
    with pytest.raises(ConfigError, match=f"{name}.*read"):
        read[name](run)


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_a_checksum_that_has_lost_its_name_is_told(run: Path, name: str) -> None:
    content = (run / name).read_text()
    (run / name).write_text(content.replace('"sum"', '"_um"'))
    with pytest.raises(ConfigError, match="is damaged"):
        read_manifest(run) if name == "manifest.json" else planned_cells(run)


def test_a_changed_byte_of_the_curves_is_told_and_the_cell_missing(run: Path) -> None:
    path, draw = run / "curves" / f"{cell(1).key}.npz", random.Random(2)
    whole, lines = path.read_bytes(), (run / "cells.jsonl").read_bytes()
    with opened(run) as store:
        written = store.finished()
    for _ in range(60):
        path.write_bytes(changed(whole, draw))
        (run / "cells.jsonl").write_bytes(lines)
        with pytest.raises(ConfigError, match="are damaged"):
            read_courses(run, written[cell(1).key])
        told: list[str] = []
        with opened(run, told) as store:
            assert store.finished().keys() == written.keys() - {cell(1).key}
        assert "cells.jsonl:2: damaged" in told[0]


def test_a_run_takes_over_no_damaged_cell(run: Path, tmp_path: Path) -> None:
    (run / "curves" / f"{cell(0).key}.npz").write_bytes(b"PK")
    lines = (run / "cells.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"low":0.25', b'"low":0.75')
    (run / "cells.jsonl").write_bytes(b"".join(lines))
    with open_run(tmp_path / "next", MANIFEST, others=[run]) as store:
        assert store.finished({cell(number).key for number in range(3)}).keys() == {cell(2).key}


def test_a_damaged_manifest_is_written_anew_and_its_cells_stay(run: Path) -> None:
    path = run / "manifest.json"
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 0.7'))
    with pytest.raises(ConfigError, match=r"manifest\.json is damaged .*writes it anew"):
        read_manifest(run)
    told: list[str] = []
    with opened(run, told) as store:
        assert len(store.finished()) == 3
    assert "manifest.json is damaged" in told[0]
    assert read_manifest(run) == json.loads(json.dumps(MANIFEST))
    assert not (run / "result.json").exists(), "nobody knows of which settings it is"


def test_a_result_that_was_changed_is_named_with_its_remedy(run: Path) -> None:
    path = run / "result.json"
    path.write_text(path.read_text().replace('"low":0.25', '"low":0.75'))
    with pytest.raises(ConfigError, match=r"result\.json is damaged .*run its command again: it keeps what is trained"):
        read_result(path)
    with opened(run) as store:
        store.write_result(result([cell(0)]).json_parts())
    assert read_result(path).cells == [cell(0)]


@pytest.mark.parametrize("keys", [5, [["a"]], "ab", {"a": 1}])
def test_a_plan_without_a_checksum_that_lists_no_keys_is_told(run: Path, keys: object) -> None:
    (run / "plan.json").write_text(json.dumps({"cells": keys, "mine": []}))
    with pytest.raises(ConfigError, match=r"plan\.json is damaged \(its cells are not keys\)"):
        planned_cells(run)
    assert planned_cells(run, "mine") == []


def test_a_result_of_other_settings_is_set_aside_with_its_checksum(run: Path) -> None:
    with open_run(run, {**MANIFEST, "identity": "other"}):
        pass
    (aside,) = run.glob("result.*.json")
    assert len(read_result(aside).cells) == 3
    aside.write_text(aside.read_text().replace('"low":0.25', '"low":0.75'))
    with pytest.raises(ConfigError, match=r"its checksum in result\..+\.sum does not fit"):
        read_result(aside)


def test_files_without_a_checksum_are_read(run: Path) -> None:
    """As earlier versions wrote them."""
    (run / "result.sum").unlink()
    for name in ("manifest.json", "plan.json"):
        stored = json.loads((run / name).read_text())
        del stored["sum"]
        (run / name).write_text(json.dumps(stored))
    assert read_manifest(run) == json.loads(json.dumps(MANIFEST))
    assert planned_cells(run) == [cell(number).key for number in range(3)]
    assert len(read_result(run / "result.json").cells) == 3
