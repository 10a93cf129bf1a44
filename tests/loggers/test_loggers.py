"""Trackers: TensorBoard's own reader finds what was stored, no cell is told twice, no failure stops a run."""

from __future__ import annotations

import importlib
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import stresstest
from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.loggers import session
from stresstest.loggers.mlflow_runs import open_tracker as open_mlflow
from stresstest.loggers.scalars import LoggedCell, RunFacts, logged_cell
from stresstest.loggers.session import CellLog
from stresstest.loggers.table import TRACKERS, Target, parse_target
from stresstest.loggers.tensorboard_files import open_tracker
from stresstest.results.courses import Course
from stresstest.results.records import Cell, read_result

TINY = [
    "--depth",
    "1",
    "--width",
    "16",
    "--heads",
    "2",
    "--seq-len",
    "12",
    "--num-lrs",
    "1",
    "--start-lr",
    "0.004",
    "--end-lr",
    "0.004",
    "--train-steps",
    "20",
]
COURSES = [
    Course("ramp", [3.0, 2.0, float("nan")], {"lr": [0.1, 0.2, 0.3], "judged": [3.0, 2.0, 1.0]}),
    Course("hold", [3.0, 2.5], {"lr": [0.0625, 0.0625]}, 0.0625),
]
FACTS = RunFacts("lr-range", {"width": 16, "seeds": [0, 1], "optimizer": "adam", "probes": None}, "/runs/one", "again")


def cell(**changed: Any) -> Cell:
    stored = read_result(Path(__file__).parents[1] / "results" / "stored" / "lr-range.json").cells[0]
    return stored.model_copy(update={"variant": "../=evil <b>", **changed})


def scalars(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def test_tensorboard_reads_what_a_cell_says_from_a_folder_of_its_own(tmp_path: Path) -> None:
    logged = logged_cell(cell(), COURSES, FACTS)
    for _ in range(2):  # as after a crash between the events and the note of them
        open_tracker(str(tmp_path / "tb")).log(logged)
    (folder,) = (tmp_path / "tb").iterdir()
    assert folder.name.startswith("=evil-b-depth-")
    assert folder.name.endswith(logged.key[:8])
    events = scalars(folder)
    assert [(each.step, each.value) for each in events.Scalars("hold_0.0625/loss")] == [(0, 3.0), (1, 2.5)]
    assert [each.value for each in events.Scalars("ramp/loss")][:2] == [3.0, 2.0]
    assert [each.value for each in events.Scalars("ramp/lr")] == pytest.approx([0.1, 0.2, 0.3])
    (stable,) = events.Scalars("metrics/max_stable_lr")
    assert (stable.step, stable.value) == (2, pytest.approx(cell().metrics["max_stable_lr"].low))


def test_a_cell_has_its_own_settings_and_both_sides_of_a_bracket() -> None:
    ended = cell(point={"peak_lr": 0.5, "optimizer": "sgd"}, recipe={"outcome": "stable", "loss": 2.0})
    logged = logged_cell(ended, COURSES, FACTS)
    stable = ended.metrics["max_stable_lr"]
    assert (logged.metrics["max_stable_lr"], logged.metrics["max_stable_lr_high"]) == (stable.low, stable.high)
    assert (logged.metrics["recipe/loss"], logged.outcomes["recipe/outcome"]) == (2.0, "stable")
    assert {"width": 16, "optimizer": "sgd", "peak_lr": 0.5, "cell": ended.key}.items() <= logged.config.items()
    assert logged.config.keys().isdisjoint({"seeds", "probes"})


def test_the_runs_beside_a_shock_have_names_of_their_own_and_begin_at_its_step() -> None:
    null, shock = Course("null", [2.1], {}, start=1), Course("shock", [4.0], {}, start=1, dose=8.0)
    harder = Course("shock", [9.0], {}, start=1, dose=0.0625)
    doses = [{"dose": 8.0, "outcome": "recovered"}, {"dose": 16.0, "outcome": "broke"}]
    ended = cell(shock={"twin_outcome": "stable", "doses": doses})
    logged = logged_cell(ended, [Course("twin", [3.0, 2.0], {}), null, null, shock, harder], FACTS)
    assert logged.rows == [
        {"twin/loss": 3.0},
        {"twin/loss": 2.0, "null_1/loss": 2.1, "null_2/loss": 2.1, "shock_8/loss": 4.0, "shock_0.0625/loss": 9.0},
    ]
    told = {name: each for name, each in logged.outcomes.items() if "ramp" not in name and "hold" not in name}
    assert told == {"twin/outcome": "stable", "shock_8/outcome": "recovered", "shock_16/outcome": "broke"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("tensorbord:x", r"unknown tracker 'tensorbord' in --log tensorbord:x; did you mean 'tensorboard'\?"),
        ("tensorboard", r"--log tensorboard has no place; write tensorboard:DIR"),
        ("mlflow:http://host?password=secret", r"holds a password, and this line is stored"),
        ("mlflow:http://me:secret@host", r"holds a password, and this line is stored; give it in the environment"),
    ],
)
def test_a_tracker_that_cannot_be_is_one_line(asked: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_target(asked)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_missing_is_one_line_before_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, TRACKERS[name].package, None)
    with pytest.raises(ConfigError, match=f"{name} is not installed; pip install {name}, or leave out --log {name}"):
        stresstest.race("decoder", log=f"{name}:x")


def test_what_cannot_be_opened_is_one_line_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["race", *TINY, "--run-dir", str(tmp_path / "run"), "--log", f"tensorboard:{tmp_path}/file/tb"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("/file/tb cannot be written (Not a directory); give another DIR")


def test_a_run_that_goes_on_tells_each_cell_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, logs = tmp_path / "run", tmp_path / "tb"
    line = ["race", *TINY, "--variant", "pre-ln,post-ln", "--seeds", "1", "-j", "1", "--run-dir", str(folder)]
    asked = ["--log", f"tensorboard:{logs}"]
    assert run([*line, "--max-cells", "1"]) == 0  # a cell that ended before anybody asked
    assert run([*line, *asked]) == 0
    before = {path: path.stat().st_mtime_ns for path in logs.glob("*/*")}
    assert run([*line, *asked]) == 0
    assert {path: path.stat().st_mtime_ns for path in logs.glob("*/*")} == before
    cells = json.loads((folder / "result.json").read_text())["cells"]
    assert len(list(logs.iterdir())) == len(cells) == 2
    for each in cells:
        (mine,) = logs.glob(f"*{each['key'][:8]}")
        stored = np.load(folder / "curves" / f"{each['key']}.npz")
        told = scalars(mine)
        assert [e.value for e in told.Scalars("recipe/loss")] == stored["loss"].astype(np.float32).tolist()
        assert [e.value for e in told.Scalars("recipe/lr")] == stored["lr"].astype(np.float32).tolist()
    assert f"--log tensorboard:{logs}" in json.loads((folder / "manifest.json").read_text())["again"]


class Fake:
    def __init__(self, log: Callable[[LoggedCell], None]) -> None:
        self.log = log


def test_a_tracker_that_fails_is_one_note_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    broken = True

    def open_target(target: Target) -> Fake:
        def log(logged: LoggedCell) -> None:
            if target.kind == "wandb" and broken:
                raise RuntimeError("the server is gone\nTraceback")
            told.append((target.kind, logged.key))

        return Fake(log)

    monkeypatch.setattr(session, "open_target", open_target)
    notes: list[str] = []
    targets = [Target("wandb", "p"), Target("tensorboard", "d")]
    cells = [cell(key="a1"), cell(key="b2"), cell(key="c3", status="oom")]
    log = CellLog(targets, tmp_path, FACTS, notes.append)
    for each in cells:
        log.tell(each)
    assert told == [("tensorboard", "a1"), ("tensorboard", "b2")]
    (note,) = notes
    assert note.startswith("--log wandb:p failed (the server is gone) and gets no more of this run; training goes on.")
    broken = False
    log = CellLog(targets, tmp_path, FACTS, notes.append)
    for each in cells:
        log.tell(each)
    assert told[2:] == [("wandb", "a1"), ("wandb", "b2")]


def test_a_server_that_is_not_there_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match=rf"http://127.0.0.1:{port} does not answer \(Connection refused\)"):
        open_mlflow(f"http://127.0.0.1:{port}")


class Recorder(ModuleType):
    """A package whose functions write down what they are called with and give the package itself."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("summary", "info", "settings"):
            return self

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return self

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_project_gets_a_run_with_a_row_a_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Recorder(name)
    monkeypatch.setitem(sys.modules, name, package)
    logged = logged_cell(cell(), COURSES, FACTS)
    importlib.import_module(TRACKERS[name].module).open_tracker("lab").log(logged)
    ((_, given),) = package.of("init")
    assert (given["project"], given["group"], given["config"]["width"]) == ("lab", "one", 16)
    rows = [(kwargs["step"], args[0]["ramp/loss"]) for args, kwargs in package.of("log")]
    assert [step for step, _ in rows] == [0, 1, 2]
    assert [loss for _, loss in rows[:2]] == [3.0, 2.0]
    assert len(package.of("finish")) == 1


def test_mlflow_gets_no_more_in_a_request_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    package, entities = Recorder("mlflow"), Recorder("mlflow.entities")
    for kind in ("Metric", "Param", "RunTag"):
        setattr(entities, kind, lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    logged = logged_cell(cell(), [Course("ramp", [1.0] * 1500, {})], FACTS)
    open_mlflow("sqlite:///x.db").log(logged)
    batches = [kwargs["metrics"] for _, kwargs in package.of("log_batch") if "metrics" in kwargs]
    assert max(map(len, batches)) <= 1000
    sent = [(metric[0], metric[1], metric[3]) for batch in batches for metric in batch]
    assert sent == [("ramp/loss", 1.0, step) for step in range(1500)] + [
        (name, value, 1499) for name, value in logged.metrics.items()
    ]
