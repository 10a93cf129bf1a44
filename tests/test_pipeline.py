"""Runs as their user sees them: shards and their merge, status, retries, what other executors refuse."""

from __future__ import annotations

import errno
import fcntl
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from stresstest import pipeline
from stresstest.cli.main import run
from stresstest.measurements import boundary
from stresstest.results.progress import Progress, TimeLeft
from stresstest.results.sums import seal, sealed_json, unseal
from stresstest.runs.directory import read_manifest
from stresstest.runs.store import RunStore

TINY = (
    "lr-range --depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 2 --num-steps 20 --hold-steps 20 --device cpu "
    "-q -j 1 --no-theory --seeds 2 --variant pre-ln,post-ln"
).split()
RELOADS = "location.reload()"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def result(capsys: Capture, *args: str, code: int = 0) -> dict[str, Any]:
    assert run([*args, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    for cell in found["cells"]:
        del cell["seconds"], cell["probe_seconds"]
    return found


def crash(patch: pytest.MonkeyPatch) -> None:
    """Have every cell crash that is trained in this process."""
    patch.setattr(boundary, "ramp_lrs", lambda spec: 1 / 0)


def refused(capsys: Capture, *args: str) -> str:
    capsys.readouterr()
    assert run(list(args)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


def test_merged_shards_are_the_whole_run(capsys: Capture) -> None:
    words = [*TINY, "--theory"]
    whole = result(capsys, *words)
    for index in (1, 2, 3):
        assert run([*words, "--fresh", "--shard", f"{index}/3", "--run-dir", f"s{index}"]) == 0
        assert f"shard {index} of 3 has ended" in capsys.readouterr().err
    counts = [len(Path(f"s{index}/cells.jsonl").read_text().splitlines()) for index in (1, 2, 3)]
    assert counts == [2, 1, 1]
    error = refused(capsys, "merge", "s1", "s2")
    assert "1 of 4 cells are missing from these runs; merge the shards after all have ended" in error
    assert result(capsys, "merge", "s3", "s1", "s2") == whole


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["--num-steps", "21"], "num_steps 20 and 21"),
        (["--data", "pydoc"], "data synthetic and pydoc; data "),
        (["--variant", "rezero"], "variant ['pre-ln', 'post-ln'] and ['pre-ln', 'post-ln', 'rezero']"),
    ],
)
def test_shards_of_other_settings_are_refused_with_what_differs(other: list[str], said: str, capsys: Capture) -> None:
    assert run([*TINY, "--shard", "1/2", "--run-dir", "a"]) == 0
    assert run([*TINY, *other, "--shard", "2/2", "--run-dir", "b"]) == 0
    line = refused(capsys, "merge", "a", "b")
    assert "a and b are not shards of the same run" in line
    assert said in line


def test_shards_from_another_machine_or_code_are_refused(capsys: Capture) -> None:
    for index in ("a", "b"):
        assert run([*TINY, "--run-dir", index]) == 0
    manifest = read_manifest(Path("b"))
    assert manifest is not None
    manifest["environment"]["key"] = "torch9/tpu"
    manifest |= {"identity": "other", "code": "other"}
    RunStore(Path("b"), manifest).close()
    line = refused(capsys, "merge", "a", "b")
    assert "code " in line
    assert "and torch9/tpu" in line


def test_merging_again_takes_what_was_trained_again(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in (1, 2):
        with monkeypatch.context() as patch:
            crash(patch)
            assert run([*TINY, "--shard", f"{index}/2", "--run-dir", f"s{index}"]) == 4
    assert run([*TINY, "--retry-errors", "--shard", "1/2", "--run-dir", "s1"]) == 0
    capsys.readouterr()
    statuses = [cell["status"] for cell in result(capsys, "merge", "s1", "s2", "--run-dir", "m", code=4)["cells"]]
    assert sorted(statuses) == ["crashed", "crashed", "done", "done"]
    assert run([*TINY, "--retry-errors", "--shard", "2/2", "--run-dir", "s2"]) == 0
    with Path("m/cells.jsonl").open("r+b") as lines:  # the merge was killed as it wrote the last one
        lines.truncate(Path("m/cells.jsonl").stat().st_size - 50)
    capsys.readouterr()
    assert {cell["status"] for cell in result(capsys, "merge", "s1", "s2", "--run-dir", "m")["cells"]} == {"done"}


def test_shards_with_damaged_curves_are_merged_once_they_were_trained_again(capsys: Capture) -> None:
    whole = result(capsys, *TINY)
    for index in (1, 2):
        assert run([*TINY, "--fresh", "--shard", f"{index}/2", "--run-dir", f"s{index}"]) == 0
    curves = next(Path("s2/curves").iterdir())
    curves.write_bytes(curves.read_bytes()[:-9])
    capsys.readouterr()
    assert f"1 of 4 cells are damaged in these runs, e.g. {curves.stem}" in refused(capsys, "merge", "s1", "s2")
    assert run([*TINY, "--shard", "2/2", "--run-dir", "s2"]) == 0
    capsys.readouterr()
    assert result(capsys, "merge", "s1", "s2") == whole


def test_the_status_of_a_shard_is_of_its_own_cells(capsys: Capture) -> None:
    assert run([*TINY, "--shard", "1/2", "--run-dir", "s1", "--max-cells", "1"]) == 0
    capsys.readouterr()
    assert run(["status", "s1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "s1: lr-range, 2 cells of shard 1 of 2: 1 done, 1 waiting"
    assert lines[1].endswith("--shard 1/2 --run-dir s1")
    assert lines[1].partition("stresstest ")[2] in refused(capsys, "report", "s1", "--json")
    assert run(["report", "s1"]) == 0
    assert "1 of 2 cells of shard 1 of 2; not final: 1 to come" in capsys.readouterr().out
    assert run([*TINY, "--shard", "1/2", "--run-dir", "s1"]) == 0
    capsys.readouterr()
    assert run(["report", "s1"]) == 0
    assert "stresstest merge s1 ..." in capsys.readouterr().out
    assert run(["status", "s1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["s1: lr-range, 2 cells of shard 1 of 2: 2 done"]


def test_one_number_in_the_project_is_a_list_of_one(capsys: Capture) -> None:
    Path("pyproject.toml").write_text("[tool.stresstest]\nseeds = [3]\n")
    assert run([*TINY[:-4], "--dry-run"]) == 0
    assert ["seeds", "3", "pyproject.toml"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    Path("pyproject.toml").write_text("tool = 3\n")
    assert run(["list", "models"]) == 0


def test_a_file_system_without_locks_is_refused(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "cannot be locked (No locks available)" in refused(capsys, *TINY)


def test_bisection_has_no_shards(capsys: Capture) -> None:
    assert "leave out --shard" in refused(capsys, "depth-sweep", "--measure", "outcome", "--bisect", "--shard", "1/2")


def test_a_changed_command_trains_only_what_no_run_has(capsys: Capture) -> None:
    result(capsys, *TINY)
    assert run([*TINY, "--variant", "rezero", "--dry-run"]) == 0
    capsys.readouterr()
    loud = [word for word in TINY if word != "-q"]
    assert run([*loud, "--variant", "rezero"]) == 0
    err = capsys.readouterr().err
    assert "4 of 6 cells were already finished; training the rest" in err
    assert run([*loud, "--variant", "rezero", "--num-steps", "21"]) == 0
    assert "already finished" not in capsys.readouterr().err


def test_the_status_of_a_run_that_was_stopped_and_of_one_that_failed(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*TINY, "--max-cells", "1"]) == 0
    assert "--max-cells reached" in capsys.readouterr().err
    assert run(["report"]) == 0
    [run_dir] = Path(".stresstest/runs").iterdir()
    again = (read_manifest(run_dir) or {})["again"]
    out, page = capsys.readouterr().out, (run_dir / "report.html").read_text()
    for text in ("1 of 4 cells; not final: 3 to come", again):
        assert text in out
        assert text in page
    assert RELOADS not in page
    assert run(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("lr-range, 4 cells: 1 done, 3 waiting")
    assert lines[1].startswith("  stopped; to go on: stresstest lr-range --width 8")
    with monkeypatch.context() as patch:
        crash(patch)
        assert run([*TINY, "--fail-fast"]) == 4
        assert "a cell failed (--fail-fast)" in capsys.readouterr().err
        assert run([*TINY]) == 4
        capsys.readouterr()
    assert run(["status", "--json"]) == 0
    [status] = json.loads(capsys.readouterr().out)
    assert status["statuses"] == {"done": 1, "crashed": 3}
    assert run([*TINY]) == 4, "not again unless asked"
    capsys.readouterr()
    assert {cell["status"] for cell in result(capsys, *TINY, "--retry-errors")["cells"]} == {"done"}


def test_the_page_of_a_run_is_there_while_it_trains_and_final_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    write = RunStore.write_report
    monkeypatch.setattr(pipeline, "_REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(RunStore, "write_report", lambda store, text: (pages.append(text), write(store, text))[1])
    assert run([*TINY[:-1], "pre-ln", "--seeds", "1", "--run-dir", "here"]) == 0
    assert "0 of 1 cells at " in pages[0]
    assert RELOADS in pages[0]
    assert Path("here/report.html").read_text() == pages[-1]
    assert "not final" not in pages[-1]
    assert RELOADS not in pages[-1]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("manifest.json", "stresstest.manifest/1", "stresstest.manifest/0", "here has schema 'stresstest.manifest/0'"),
        ("manifest.json", "lr-range", "lr-rage", "unknown experiment 'lr-rage'"),
        ("manifest.json", '"hold_steps": 20', '"hold_steps": -1', "here has settings of another version (hold_steps"),
        ("cells.jsonl", '"depth":1', '"depth":"deep"', "here holds cells of another version"),
    ],
)
def test_a_run_of_another_version_without_a_result_is_refused(
    name: str, old: str, new: str, said: str, stopped: Path, capsys: Capture
) -> None:
    shutil.copytree(stopped, "here")
    text = Path("here", name).read_text()
    assert old in text
    changed = text.replace(old, new)
    if name == "manifest.json":
        manifest = {key: value for key, value in json.loads(changed).items() if key != "sum"}
        Path("here", name).write_text(json.dumps(sealed_json(manifest)))
    else:
        lines = [re.sub(r',"sum":"\w+"\}$', "}", line) for line in changed.splitlines()]
        Path("here", name).write_bytes(b"".join(seal(line.encode()) for line in lines))
    assert said in refused(capsys, "report", "here")


def test_what_was_changed_since_it_was_written_is_named(stopped: Path, capsys: Capture) -> None:
    """By who reads it, and by who goes on, which trains it again."""
    shutil.copytree(stopped, "here")
    path = Path("here/cells.jsonl")
    path.write_text(path.read_text().replace('"depth":1', '"depth":2'))
    assert run(["report", "here"]) == 0
    assert "line 1 of here/cells.jsonl is damaged" in " ".join(capsys.readouterr().out.split())
    assert run(["status", "here"]) == 0
    assert "line 1 of here/cells.jsonl is damaged (the checksum does not fit)" in capsys.readouterr().out
    assert run([*TINY, "--run-dir", "here", "-q"]) == 0
    assert "here/cells.jsonl:1: damaged since it was written" in capsys.readouterr().err
    path = Path("here/manifest.json")
    path.write_text(path.read_text().replace("pre-ln", "pre-lm"))
    assert "here/manifest.json is damaged (its checksum does not fit)" in refused(capsys, "status", "here")
    assert run([*TINY, "--run-dir", "here", "-q"]) == 0, "the line that made the run writes it anew"
    assert "here/manifest.json is damaged" in capsys.readouterr().err
    assert run(["status", "here"]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_a_run_of_a_version_without_checksums_is_read_and_said_to_be(stopped: Path, capsys: Capture) -> None:
    shutil.copytree(stopped, "here")
    (line,) = Path("here/cells.jsonl").read_bytes().splitlines()
    Path("here/cells.jsonl").write_bytes(unseal(line)[0] + b"\n")
    assert run(["status", "here"]) == 0
    said = capsys.readouterr().out
    assert "4 cells: 1 done, 3 waiting" in said
    assert "1 of them without a checksum, of an earlier version" in said


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one cell of four."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    assert run([*TINY, "--max-cells", "1", "--run-dir", str(path)]) == 0
    return path


def test_the_status_of_a_run_that_goes_on(capsys: Capture) -> None:
    assert run([*TINY, "--max-cells", "1", "--run-dir", "here"]) == 0
    manifest = read_manifest(Path("here"))
    assert manifest is not None
    store = RunStore(Path("here"), manifest)
    running = "pre-ln depth 1 seed 1, ramp at 0.1, step 8 of 20, loss 5.31"
    store.write_progress(Progress(1, 4, 0.31, TimeLeft(100.0, 70.0, 150.0), (running,)))
    assert run(["report", "here", "-o", "live.html"]) == 0
    assert f"not final: it trains: {running}; about " in " ".join(capsys.readouterr().out.split())
    assert RELOADS in Path("live.html").read_text()
    assert run(["status", "here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("here: lr-range, 4 cells: 1 done, 1 running, 2 waiting; 31%, about ")
    assert lines[0].endswith("(70 s to 2 min) left") or lines[0].endswith("(69 s to 2 min) left")
    assert lines[1:] == [f"  running: {running}", f"  held by {store_holder(Path('here'))}"]
    store.close()
    assert run(["status", "here"]) == 0
    assert "running" not in capsys.readouterr().out


def store_holder(path: Path) -> str:
    return (path / "lock").read_text()


def test_a_cell_that_takes_too_long_is_recorded_and_the_others_are_there(capsys: Capture) -> None:
    long = ["--num-steps", "1000000", "--cell-timeout", "0.5", "--seeds", "1", "--variant", "pre-ln"]
    found = result(capsys, *[word for word in TINY if word not in ("pre-ln,post-ln", "--variant")], *long, code=4)
    assert [cell["status"] for cell in found["cells"]] == ["timeout"]
    assert "took longer than 0.5 s" in found["cells"][0]["error"]


@pytest.mark.parametrize(
    ("args", "module", "said"),
    [
        (["--executor", "ray"], "ray", "pip install ray"),
        (["--executor", "slurm"], "submitit", "pip install submitit"),
        (["--executor", "ray", "--ray-address", "127.0.0.1:1"], "", "no Ray cluster at 127.0.0.1:1 ("),
        (["--executor", "slurm"], "", "Slurm cannot be used here: Could not detect"),
    ],
)
def test_an_executor_that_is_not_there_is_refused_in_one_line(
    args: list[str], module: str, said: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module:
        monkeypatch.setitem(sys.modules, module, None)
    else:
        pytest.importorskip("ray" if "ray" in args else "submitit", reason="needs the extra")
    assert said in refused(capsys, *TINY, *args)


def test_cells_of_another_version_of_the_code_are_said_to_be_trained_again(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [*(word for word in TINY if word != "-q"), "--run-dir", "run"]
    assert run(line) == 0
    capsys.readouterr()
    assert run(line) == 0
    assert "another version" not in capsys.readouterr().err, "nothing has changed"
    monkeypatch.setattr("stresstest.experiments.plan.code_fingerprint", lambda: "other code")
    assert run(line) == 0
    assert "4 saved cells in run are of another version of the training code" in capsys.readouterr().err
