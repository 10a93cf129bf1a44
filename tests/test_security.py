"""What SECURITY.md promises: files that are only read run nothing, lead nowhere else, and no password is shown."""

from __future__ import annotations

import ast
import io
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stresstest
from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.results.courses import read_courses
from stresstest.results.records import Bracket, Cell, Result, read_result
from stresstest.results.sums import digest
from stresstest.runs.cell_lines import line_of
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.scenario.request import Request
from tests.torture.byte_changes import TINY

MANIFEST: dict[str, Any] = {
    "schema": "stresstest.manifest/1",
    "identity": "one",
    "command": "lr-range",
    "code": "",
    "reproduce": "stresstest lr-range",
    "again": "stresstest lr-range",
    "spec": {"model": "decoder"},
    "environment": {"key": ""},
    "data": {"hash": ""},
    "shard": [1, 1],
}
EVIL = 'x</script><script>alert(1)</script><img src=y onerror="alert(2)">'


class Trap:
    """Something that leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def trapped(mark: Path) -> bytes:
    """An array file whose one array is a pickle."""
    content = io.BytesIO()
    trap = np.empty(1, dtype=object)
    trap[0] = Trap(mark)
    np.savez(content, ramp_loss=trap)
    return content.getvalue()


def stored(folder: Path, cell: Cell, curves: bytes = b"") -> Path:
    """A run directory as a stranger would make it: all checksums fit."""
    cell = cell.model_copy(update={"curves_sum": digest(curves) if curves else ""})
    with open_run(folder, MANIFEST) as store:
        store.write_plan([cell.key], [cell.key])
        about = {name: {} for name in ("rules", "environment", "data")}
        about |= {"command": "lr-range", "reproduce": "", "spec": MANIFEST["spec"], "summary": [], "findings": []}
        result = Result.model_validate({"schema_": "stresstest.result/1", "cells": [cell], **about})
        store.write_result(result.json_parts())
    (folder / "cells.jsonl").write_bytes(line_of(cell))
    if curves:
        (folder / "curves").mkdir()
        (folder / "curves" / f"{cell.key}.npz").write_bytes(curves)
    return folder


def cell(**changes: Any) -> Cell:
    bracket = {"max_stable_lr": Bracket(low=0.5, high=None)}
    given = {"key": "a" * 24, "variant": "pre-ln", "depth": 6, "seed": 0, "status": "done", "metrics": bracket}
    return Cell(**{**given, **changes})


@pytest.mark.parametrize(
    "words",
    [
        ["report"],
        ["report", "--index"],
        ["status"],
        ["compare", "{run}"],
        ["merge", "{run}", "--run-dir", "merged"],
        ["diagnose"],
    ],
    ids=" ".join,
)
def test_commands_that_read_run_no_pickle(
    words: list[str], tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(tmp_path / "run", cell(), trapped(mark))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / ("a" * 24 + ".pt")).write_bytes(pickle.dumps(Trap(mark)))
    name, *more = words
    run([name, str(folder), *(str(folder) if word == "{run}" else word for word in more)])
    assert not mark.exists()


def test_the_trap_works(mark: Path) -> None:
    """Or the tests here could not fail."""
    with np.load(io.BytesIO(trapped(mark)), allow_pickle=True) as arrays:
        list(arrays["ramp_loss"])
    assert mark.exists()


def test_curves_with_a_pickle_are_an_error(tmp_path: Path, mark: Path) -> None:
    folder = stored(tmp_path / "run", cell(), trapped(mark))
    with pytest.raises(ConfigError, match=r"the curves in .* are damaged"):
        read_courses(folder, read_result(folder / "result.json").cells[0])
    assert not mark.exists()


def test_weights_with_a_pickle_are_an_error(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n")
    torch.save({"weight": Trap(mark)}, "weights.pt")
    assert run(["lr-range", "--model", "own.py:build", "--from-weights", "weights.pt", "--run-dir", "run"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not mark.exists()


@pytest.mark.parametrize(
    "where", ["{0}", "experiments:\n  a: {0}", "experiments:\n  a: {{command: lr-range, data: {0}}}"]
)
def test_a_scenario_names_no_python_object(
    where: str, tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(where.format(f'!!python/object/apply:os.mkdir ["{mark}"]'))
    assert run(["validate", str(file)]) == 2
    assert not mark.exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["model", "batch_fn", "loss_fn", "optimizer_fn", "step_fn"])
def test_a_strangers_scenario_is_validated_without_its_code(
    setting: str, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    model = {"model": "other.py:build", setting: "code.py:build"}
    given = ", ".join(f"{name}: '{value}'" for name, value in model.items())
    Path("s.yaml").write_text(f"experiments:\n  a: {{command: lr-range, {given}}}\n")
    assert run(["validate", "s.yaml", "--no-code"]) == 0
    assert "s.yaml: training runs the code of code.py:build (a)" in capsys.readouterr().out
    assert not mark.exists()
    Path("s.yaml").write_text("experiments:\n  a: {command: lr-range, model: 'code.py:build', depth: no}\n")
    assert run(["validate", "s.yaml", "--no-code"]) == 2
    assert "experiments.a.depth" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("key", ["../../out", "/tmp/out", "a/b", "..", ""])
def test_no_key_leads_out_of_a_run_directory(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard from elsewhere is merged: what it names is neither read nor written outside of the run directories."""
    monkeypatch.chdir(tmp_path)
    folder = stored(tmp_path / "deep" / "er" / "run", cell(), b"PK")
    sealed = line_of(cell().model_copy(update={"key": key, "curves_sum": digest(b"PK")}))
    (folder / "cells.jsonl").write_bytes(sealed)
    with open_run(folder, MANIFEST) as store:
        store.write_plan([key], [key])
    (tmp_path / "deep" / "out.npz").write_bytes(b"PK")
    before = {path for path in tmp_path.rglob("*") if "merged" not in path.parts}
    assert run(["merge", str(folder), "--run-dir", str(tmp_path / "x" / "y" / "merged")]) == 2
    after = {path for path in tmp_path.rglob("*") if "merged" not in path.parts}
    assert after - before <= {tmp_path / "x", tmp_path / "x" / "y", tmp_path / "x" / "y" / ".gitignore"}


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "/evil"])
def test_no_experiment_leads_out_of_its_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(f"experiments:\n  '{name}': {{command: lr-range}}\n")
    assert run(["run", str(tmp_path / "s.yaml"), "--run-dir", str(tmp_path / "run")]) == 2
    assert "is not a name" in capsys.readouterr().err


def test_a_page_runs_nothing_that_a_result_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = stresstest.lr_range("decoder", seeds=1, device="cpu", quiet=True, **TINY)
    failed = cell(key="b" * 24, variant="pre-ln", depth=1, seed=1, status="crashed", error=EVIL, metrics={})
    spec = {**result.spec, "model": f"own.py:{EVIL}"}
    changed = result.model_copy(update={"cells": [*result.cells, failed], "reproduce": EVIL, "spec": spec})
    Path("own.json").write_text(changed.to_json())
    assert run(["report", "own.json", "-o", "html:page.html"]) in (0, 1, 3)
    page = Path("page.html").read_text()
    assert "alert(1)" in page, "it is shown, as text"
    assert not re.search(r"<script>alert|<img src=y", page)


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:secret@host:5432/db",
        "postgresql://me:se@secret@host/db",
        "postgresql://host/db?user=me&password=secret",
        "postgres:me:secret@host/db",
        "mysql:secret@host",
    ],
)
def test_no_password_of_a_storage_is_shown(storage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "secret" not in RunSettings(storage=storage).shown_storage
    options = ["--trials", "2", "--no-map", "--study", "s", "--storage", storage]
    assert run(["warmup", *options, "--seeds", "1", "--run-dir", "run", "--dry-run"]) == 2
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err


@pytest.mark.parametrize("storage", ["postgresql://me:secret@host/db", "postgresql://host/db?password=secret"])
def test_a_line_to_go_on_with_names_the_environment_in_place_of_a_password(storage: str) -> None:
    line = Request.of("warmup", {}, {"storage": storage, "study": "s"}).line
    assert "secret" not in line
    assert '--storage "$STRESSTEST_STORAGE"' in line
    plain = "postgresql://me@host/db?sslmode=require"
    assert plain in Request.of("warmup", {}, {"storage": plain, "study": "s"}).line


def test_temporary_files_are_made_as_private_ones() -> None:
    """By functions whose files and folders only their owner can open, and never by a name that others can guess."""
    private = {"mkdtemp", "mkstemp", "TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile", "gettempdir"}
    used: set[str] = set()
    for path in Path(stresstest.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        used |= {node.attr for node in attributes if ast.unparse(node.value) == "tempfile"}
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not [text for text in texts if text.startswith("/tmp")], path
    assert used <= private
    assert used & {"mkdtemp", "TemporaryDirectory"}
