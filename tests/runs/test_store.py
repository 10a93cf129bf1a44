"""The run directory: what was appended is there, and nothing is overwritten by mistake."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from stresstest.errors import ConfigError
from stresstest.results import Bracket, Cell
from stresstest.runs.store import RunStore, choose_directory, open_run

MANIFEST = {"identity": "one", "spec": {"depth": 1}}


def cell(key: str, error: str = "") -> Cell:
    bracket = {"max_stable_lr": Bracket(low=0.5, high=None)}
    return Cell(key=key, variant="pre-ln", depth=6, seed=3, status="done", error=error, seconds=0.25, metrics=bracket)


CELLS = [cell("a"), cell("b", error="two\nlines, and \u00fcml\u00e4ut"), cell("c")]


@contextmanager
def opened(path: Path, fresh: bool = False, identity: str = "one") -> Iterator[RunStore]:
    with open_run(path, MANIFEST | {"identity": identity}, fresh) as store:
        yield store


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A run directory with three cells."""
    with opened(tmp_path / "run") as store:
        for each in CELLS:
            store.append(each, {})
    return tmp_path / "run"


def test_an_appended_cell_is_on_the_disk_for_a_reader_before_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    with opened(tmp_path / "run") as store:
        assert store.finished() == {}
        for count, each in enumerate(CELLS, start=1):
            store.append(each, {"ramp_loss": np.array([2.0, np.nan])})
            lines = (tmp_path / "run" / "cells.jsonl").read_text().splitlines()
            assert [Cell.model_validate_json(line) for line in lines] == CELLS[:count]
            assert synced[-1] == (tmp_path / "run" / "cells.jsonl").stat().st_size
    with np.load(tmp_path / "run" / "curves" / "b.npz") as curves:
        np.testing.assert_array_equal(curves["ramp_loss"], [2.0, np.nan])


def test_a_reopened_run_has_its_cells(filled: Path) -> None:
    with opened(filled) as store:
        assert store.finished() == {each.key: each for each in CELLS}


def test_the_last_line_of_a_cell_counts(filled: Path) -> None:
    again = CELLS[0].model_copy(update={"seconds": 9.0})
    with opened(filled) as store:
        store.append(again, {})
        assert store.finished()["a"] == again


@pytest.mark.parametrize("cut", [1, 2, 40, "all but one byte"])
def test_a_last_line_cut_short_costs_no_other_cell_now_or_later(filled: Path, cut: int | str) -> None:
    path = filled / "cells.jsonl"
    last = len(path.read_bytes().splitlines(keepends=True)[-1])
    os.truncate(path, path.stat().st_size - (cut if isinstance(cut, int) else last - 1))
    with opened(filled) as store:
        found = store.finished()
        assert {key: found[key] for key in ("a", "b")} == {each.key: each for each in CELLS[:2]}
        store.append(cell("d"), {})
    with opened(filled) as store:
        assert store.finished() == {**found, "d": cell("d")}
    assert path.read_bytes().endswith(b"\n")


def test_a_dropped_last_line_is_cut_off_the_file(filled: Path) -> None:
    path = filled / "cells.jsonl"
    whole = b"".join(path.read_bytes().splitlines(keepends=True)[:2])
    os.truncate(path, path.stat().st_size - 10)
    with opened(filled) as store:
        store.finished()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"{}\n", b"\n", b"garbage\n", b'{"key": "b"\n', b"\xff\xfe\n"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_corrupt_line_is_an_error_that_names_it_and_leaves_the_file(filled: Path, line: bytes, number: int) -> None:
    path = filled / "cells.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = line
    path.write_bytes(b"".join(lines))
    with opened(filled) as store, pytest.raises(ConfigError, match=rf"cells\.jsonl:{number + 1} .*--fresh") as caught:
        store.finished()
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == b"".join(lines)


def test_a_second_driver_is_refused_and_hears_who_holds_the_run(filled: Path) -> None:
    with opened(filled):
        with pytest.raises(ConfigError, match=rf"{filled.name} is in use by process {os.getpid()}\b.*--run-dir"):
            RunStore(filled, MANIFEST)
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), opened(filled, fresh=True):
            raise AssertionError("let in")
    with opened(filled) as store:
        assert len(store.finished()) == 3, "the first has let go, and its cells are where they were"


def test_a_refused_driver_leaves_the_manifest_of_the_holder(filled: Path) -> None:
    with opened(filled), pytest.raises(ConfigError):
        RunStore(filled, {"identity": "two"})
    assert json.loads((filled / "manifest.json").read_text()) == MANIFEST


def test_a_run_of_other_settings_under_the_same_path_is_refused(filled: Path) -> None:
    before = {path: path.read_bytes() for path in filled.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=r"other settings.*--run-dir"), opened(filled, identity="two"):
        raise AssertionError("let in")
    assert {path: path.read_bytes() for path in filled.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_a_directory_that_cannot_be_written_is_an_error_in_one_line(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot be written \(.+\).*--run-dir") as caught, opened(file / below):
        raise AssertionError("let in")
    assert str(file / below) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert file.read_text() == "mine"


def test_fresh_sets_the_old_cells_aside(filled: Path) -> None:
    old = (filled / "cells.jsonl").read_bytes()
    with opened(filled, fresh=True, identity="two") as store:
        assert store.finished() == {}
        store.append(cell("new"), {})
    aside = list(filled.glob("cells.*.jsonl"))
    assert [path.read_bytes() for path in aside] == [old]
    with opened(filled, identity="two") as store:
        assert list(store.finished()) == ["new"]


@pytest.mark.parametrize("name", ["result", "report"])
def test_a_result_is_replaced_at_once_or_not_at_all(filled: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(filled) as store:
        write = getattr(store, f"write_{name}")
        path = write("first")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("power cut")))
            with pytest.raises(OSError, match="power cut"):
                write("second")
        assert path.read_text() == "first"
        assert write("third").read_text() == "third"
    assert not list(filled.glob("*.part"))


def test_the_same_settings_choose_the_newest_run_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = choose_directory(None, "one", "lr-range", fresh=False)
    for path in (first, first.with_name("20200101T000000-lr-range")):
        with opened(path):
            pass
    assert choose_directory(None, "one", "lr-range", fresh=False) == first
    assert choose_directory(None, "two", "lr-range", fresh=False) != first
    assert choose_directory(None, "one", "lr-range", fresh=True) != first
    assert choose_directory("here", "one", "lr-range", fresh=False) == Path("here")
