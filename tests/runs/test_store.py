"""The run directory: what was appended is there, and nothing is overwritten by mistake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresstest.errors import ConfigError, StorageError
from stresstest.results.progress import Progress
from stresstest.results.records import Bracket, Cell
from stresstest.results.sums import seal, unseal
from stresstest.runs.cell_lines import line_of
from stresstest.runs.directory import choose_directory, holder_of, read_manifest
from stresstest.runs.store import RunStore, open_run

MANIFEST = {"identity": "one", "command": "lr-range", "again": "stresstest lr-range", "spec": {"depth": 1}}


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
            stored = [Cell.model_validate_json(unseal(line.encode())[0]) for line in lines]
            sums = [
                hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() for path in curves_of(lines, tmp_path)
            ]
            assert stored == [
                each.model_copy(update={"curves_sum": one}) for each, one in zip(CELLS[:count], sums, strict=True)
            ]
            assert synced[-1 if count > 1 else -2] == (tmp_path / "run" / "cells.jsonl").stat().st_size
    with np.load(tmp_path / "run" / "curves" / "b.npz") as curves:
        np.testing.assert_array_equal(curves["ramp_loss"], [2.0, np.nan])


def curves_of(lines: list[str], path: Path) -> list[Path]:
    return [path / "run" / "curves" / f"{json.loads(line)['key']}.npz" for line in lines]


def test_a_reopened_run_has_its_cells(filled: Path) -> None:
    with opened(filled) as store:
        assert store.finished() == {each.key: each for each in CELLS}


def test_the_last_line_of_a_cell_counts(filled: Path) -> None:
    again = CELLS[0].model_copy(update={"seconds": 9.0})
    with opened(filled) as store:
        store.append(again, {})
        assert store.finished()["a"] == again


def test_a_last_line_cut_at_any_byte_loses_and_invents_no_cell(filled: Path) -> None:
    path = filled / "cells.jsonl"
    whole = path.read_bytes()
    start = len(b"".join(whole.splitlines(keepends=True)[:2]))
    for length in range(start, len(whole) + 1):
        path.write_bytes(whole[:length])
        with opened(filled) as store:
            kept = CELLS if length >= len(whole) - 1 else CELLS[:2]  # whole but for the end of its line
            assert store.finished() == {each.key: each for each in kept}, length
            for each in CELLS[len(kept) :]:
                store.append(each, {})
        assert path.read_bytes() == whole, length


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
def test_a_damaged_line_is_named_set_aside_and_its_cell_missing(filled: Path, line: bytes, number: int) -> None:
    path = filled / "cells.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    whole, lines[number] = lines.copy(), line
    path.write_bytes(b"".join(lines))
    told: list[str] = []
    with open_run(filled, MANIFEST, tell=told.append) as store:
        assert store.finished() == {each.key: each for i, each in enumerate(CELLS) if i != number}
        assert store.finished().keys() == {each.key for i, each in enumerate(CELLS) if i != number}
        store.append(CELLS[number], {})
    (said,) = told
    assert f"cells.jsonl:{number + 1}: damaged since it was written" in said
    assert (filled / "damaged.jsonl").read_bytes() == line
    assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(whole)


def test_a_line_of_another_version_is_an_error_that_names_it_and_leaves_the_file(filled: Path) -> None:
    """One that is sealed, and one in a file that no version with checksums has written."""
    path, whole = filled / "cells.jsonl", (filled / "cells.jsonl").read_bytes()
    for content, number in ((whole + seal(b'{"key":"d","later":1}'), 4), (b'{"key":"d","earlier":1}\n', 1)):
        path.write_bytes(content)
        with opened(filled) as store, pytest.raises(ConfigError, match=rf"cells\.jsonl:{number} .*--fresh") as caught:
            store.finished()
        assert len(str(caught.value).splitlines()) == 1
        assert path.read_bytes() == content


@pytest.mark.parametrize("key", ["", ".", "..", ".a", "a/b", "/a", "a\0", "a" * 300])
def test_a_cell_whose_key_is_the_name_of_no_file_is_none(filled: Path, key: str) -> None:
    with (filled / "cells.jsonl").open("ab") as file:
        file.write(line_of(cell(key).model_copy(update={"curves_sum": "84bad0fa4ff6b119"})))
    with opened(filled) as store, pytest.raises(ConfigError, match=r"cells\.jsonl:4 .*the name of no file"):
        store.finished()


def test_cells_of_a_version_without_checksums_are_read(filled: Path) -> None:
    path = filled / "cells.jsonl"
    path.write_bytes(b"".join(unseal(line)[0] + b"\n" for line in path.read_bytes().splitlines()))
    with opened(filled) as store:
        assert store.finished() == {each.key: each for each in CELLS}
        store.append(cell("d"), {})
        assert store.finished().keys() == {"a", "b", "c", "d"}


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
    assert read_manifest(filled) == MANIFEST


def test_a_run_of_another_command_under_the_same_path_is_refused(filled: Path) -> None:
    before = {path: path.read_bytes() for path in filled.iterdir() if path.is_file()}
    manifest = MANIFEST | {"command": "depth-sweep"}
    with pytest.raises(ConfigError, match=r"holds a run of lr-range.*--run-dir"), open_run(filled, manifest):
        raise AssertionError("let in")
    assert {path: path.read_bytes() for path in filled.iterdir() if path.is_file()} == before


def test_files_that_are_no_run_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("mine")
    said = "holds files that are not a run of this version; give another --run-dir"
    with pytest.raises(ConfigError, match=said), opened(tmp_path):
        raise AssertionError("let in")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_other_settings_keep_the_cells_and_set_the_result_aside(filled: Path) -> None:
    with opened(filled) as store:
        store.write_result(["of one"])
    with opened(filled, identity="two") as store:
        assert len(store.finished()) == 3
        assert not (filled / "result.json").exists()
    assert [path.read_text() for path in filled.glob("result.*.json")] == ["of one"]


def test_cells_of_other_runs_are_taken_over_if_they_are_done(filled: Path, tmp_path: Path) -> None:
    crashed = cell("d").model_copy(update={"status": "crashed"})
    with opened(filled) as store:
        curved = store.append(cell("e"), {"ramp_loss": np.array([1.0])})
        store.append(crashed, {})
    with (filled / "cells.jsonl").open("a") as lines:
        lines.write('{"key":"f","variant":"pre-ln","depth":6,"seed":0,"status":"done","metrics":7}\n')
    with open_run(tmp_path / "next", MANIFEST, others=[filled]) as store:
        assert set(store.finished({"b", "d", "e", "f", "unknown"})) == {"b", "e"}
        assert store.finished() == {"b": CELLS[1], "e": curved}, "they are this run's now"
    with np.load(tmp_path / "next" / "curves" / "e.npz") as curves:
        np.testing.assert_array_equal(curves["ramp_loss"], [1.0])
    with open_run(tmp_path / "whole", MANIFEST) as store:
        assert store.take_over({"d", "e"}, [filled], {"crashed"}) == 1
        assert store.finished() == {"d": crashed}


def test_whether_a_run_is_held_is_known_without_taking_it(filled: Path) -> None:
    assert holder_of(filled) is None
    with opened(filled):
        assert str(os.getpid()) in (holder_of(filled) or "")
    assert holder_of(filled.with_name("nowhere")) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("curves", [{}, {"ramp_loss": np.zeros(3)}])
def test_a_full_disk_is_a_storage_error_in_one_line(filled: Path, curves: dict[str, Any]) -> None:
    before = (filled / "cells.jsonl").read_bytes()
    with opened(filled) as store:
        full = filled / ("curves/d.npz" if curves else "cells.jsonl")
        full.parent.mkdir(exist_ok=True)
        full.rename(filled / "kept") if full.exists() else None
        full.symlink_to("/dev/full")
        with pytest.raises(StorageError, match=r"cannot be written any more \(No space left.*not affected") as caught:
            store.append(cell("d"), curves)
        assert len(str(caught.value).splitlines()) == 1
        full.unlink()
        (filled / "kept").rename(full) if (filled / "kept").exists() else None
    assert (filled / "cells.jsonl").read_bytes() == before


def test_a_run_directory_removed_during_a_run_is_a_storage_error(filled: Path) -> None:
    with opened(filled) as store:
        shutil.rmtree(filled)
        for write in (lambda: store.append(cell("d"), {}), lambda: store.write_progress(Progress(0, 1, 0.0, None))):
            with pytest.raises(StorageError, match=r"was removed, with its cells"):
                write()
    assert not filled.exists()


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_a_directory_that_cannot_be_written_is_an_error_in_one_line(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot be written \(.+\).*--run-dir") as caught, opened(file / below):
        raise AssertionError("let in")
    assert str(file / below) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert file.read_text() == "mine"


def test_what_is_set_aside_twice_at_the_same_moment_is_kept_twice(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stands(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Stands:
            return cls(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr("stresstest.runs.store.datetime", Stands)
    for key in "de":
        with opened(filled, fresh=True) as store:
            store.append(cell(key), {})
    kept = [file.read_bytes() for file in filled.glob("cells*.jsonl")]
    assert sorted(content.count(b"\n") for content in kept) == [1, 1, 3]


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
            with pytest.raises(StorageError, match="power cut"):
                write("second")
        assert path.read_text() == "first"
        assert write("third").read_text() == "third"
    assert not list(filled.glob("*.part"))


def test_the_same_settings_choose_the_newest_run_that_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = choose_directory(None, ("one",), "lr-range", fresh=False)
    for path in (first, first.with_name("20200101T000000-lr-range")):
        with opened(path):
            pass
    assert choose_directory(None, ("one",), "lr-range", fresh=False) == first
    assert choose_directory(None, ("two",), "lr-range", fresh=False) != first
    assert choose_directory(None, ("one",), "lr-range", fresh=True) != first
    assert choose_directory("here", ("one",), "lr-range", fresh=False) == Path("here")
