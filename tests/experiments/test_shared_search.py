"""Searches that drivers share in a real PostgreSQL server, started here on a loopback port."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from stresstest.cli.main import run
from stresstest.experiments.warmup import search
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Cell
from tests.experiments.postgres import free_port, postgres

SEARCH = (
    "warmup --variant post-ln --depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 4 --train-steps 20 "
    "--warmup-steps 0,10 --start-lr 0.01 --end-lr 1 --no-map --trials 10 --trials-at-once 2 --seeds 2 --device cpu "
    "-j 1 -q --json"
).split()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that holds nothing yet."""
    with postgres() as started:
        if started is None:
            pytest.skip("PostgreSQL is not installed here; on Debian: apt install postgresql")
        yield started.url


def study_of(url: str, name: str) -> optuna.Study:
    driver = url.replace("postgresql", "postgresql+psycopg")
    storage = optuna.storages.RDBStorage(driver, engine_kwargs={"poolclass": NullPool})
    return optuna.load_study(study_name=f"{name}/post-ln", storage=storage)


def complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def driver(url: str, study: str, run_dir: Path, lost_seconds: float | None = None, *more: str) -> subprocess.Popen[str]:
    """A driver in a process of its own; `lost_seconds` after which it takes another one for lost."""
    short = f"search.BEAT_SECONDS, search.LOST_SECONDS = {lost_seconds / 10}, {lost_seconds};" if lost_seconds else ""
    code = f"import sys; from stresstest.experiments.warmup import search; {short}"
    code += "from stresstest.cli.main import run; sys.exit(run(sys.argv[1:]))"
    shared = ["--storage", url, "--study", study, "--run-dir", str(run_dir), *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *SEARCH, *shared], **pipes)


def points(result: dict[str, Any]) -> list[str]:
    return sorted({json.dumps(cell["point"]) for cell in result["cells"]})


def test_two_drivers_share_one_search_and_report_the_same(server: str, tmp_path: Path) -> None:
    drivers = [driver(server, "two", tmp_path / name) for name in ("a", "b")]
    results = []
    for process in drivers:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        results.append(json.loads(out))
    trials = study_of(server, "two").trials
    done = complete(trials)
    assert len(done) == 10
    assert all(trial.state.is_finished() for trial in trials)
    assert len({json.dumps(trial.params, sort_keys=True) for trial in done}) == 10
    by_driver = Counter(trial.user_attrs["driver"] for trial in done)
    assert len(by_driver) == 2, "one of them did everything"
    assert points(results[0]) == points(results[1])
    assert [len(result["cells"]) for result in results] == [20, 20]
    assert results[0]["searches"] == results[1]["searches"]
    own = [(tmp_path / name / "curves").glob("*.npz") for name in ("a", "b")]
    keys = [{path.stem for path in paths} for paths in own]
    assert not keys[0] & keys[1], "a trial was trained twice"
    assert len(keys[0] | keys[1]) == 20


def test_drivers_that_are_killed_at_random_leave_the_total_right_and_no_zombie(server: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    rng, killed = random.Random(seed), 0
    print(f"seed {seed}")
    for number in range(3):
        process = driver(server, "killed", tmp_path / f"run{number % 2}")
        before = 0
        with contextlib.suppress(KeyError):
            before = len(study_of(server, "killed").trials)
        while process.poll() is None:
            with contextlib.suppress(KeyError):
                if len(study_of(server, "killed").trials) > before:
                    break
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 2
    # A third one, elsewhere, finds the others lost; it neither waits for ever nor does a trial too many.
    last = driver(server, "killed", tmp_path / "other", 3.0)
    out, err = last.communicate(timeout=200)
    assert last.returncode == 0, err
    trials = study_of(server, "killed").trials
    assert len(complete(trials)) == 10
    assert all(trial.state.is_finished() for trial in trials), "a zombie"
    assert len({json.dumps(trial.params, sort_keys=True) for trial in complete(trials)}) == 10
    assert len(json.loads(out)["cells"]) == 20


def test_a_driver_that_goes_on_takes_its_own_lost_trials_up_at_once(server: str, tmp_path: Path) -> None:
    first = driver(server, "own", tmp_path / "run", None, "--max-cells", "3")
    first.communicate(timeout=100)
    assert first.returncode == 0
    running = [trial for trial in study_of(server, "own").trials if trial.state == TrialState.RUNNING]
    assert len(running) == 2
    again = driver(server, "own", tmp_path / "run")
    _, err = again.communicate(timeout=100)
    assert again.returncode == 0, err
    states = Counter(trial.state.name for trial in study_of(server, "own").trials)
    assert states == {"COMPLETE": 10, "FAIL": 2}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_a_study_of_another_search_or_a_server_that_is_not_there_is_one_line(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [*SEARCH, "--trials", "2", "--storage", server, "--study", "mine", "--run-dir"]
    assert run([*few, "first"]) == 0
    capsys.readouterr()
    assert run([*few, "second", "--train-steps", "30", "--end-lr", "2"]) == 2
    err = capsys.readouterr().err
    assert "secret" not in err
    assert err.startswith(
        f"stresstest: storage postgresql://{server.rpartition('@')[2]} already has a different search named mine/"
    )
    assert "end_lr 1.0 there, 2.0 here" in err
    assert "train_steps 20 there, 30 here" in err
    assert err.endswith("give another --study\n")
    away = f"postgresql://tester:secret@127.0.0.1:{free_port()}/postgres"
    assert run([*SEARCH, "--storage", away]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "secret" not in err
    assert "cannot be used: " in err
    assert not (tmp_path / ".stresstest").exists()
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("--storage sqlite:///here.db", "several drivers cannot share a sqlite file"),
        ("--storage here.db", "storage 'here.db' is not a URL; give postgresql://"),
        ("--storage oracle7://host/db", "cannot be used"),
        ("--storage postgresql://host/db --map", "add --no-map"),
        ("--storage postgresql://host/db --fresh", "--fresh cannot clear"),
        ("--storage postgresql://host/db --map --trials 0", "this run has none"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_a_storage_that_cannot_serve_is_one_line(
    change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*SEARCH, *change.split()]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert says in err
    assert not (tmp_path / ".stresstest").exists()


@pytest.mark.usefixtures("elsewhere")
def test_a_server_that_goes_away_during_a_search_costs_nothing_that_was_finished(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = search._OneStudy.cells

    def cells(self: search._OneStudy) -> list[CellPlan]:
        if self.ended:
            raise OperationalError("SELECT", {}, Exception("server closed the connection unexpectedly\nmore"))
        return asked(self)

    monkeypatch.setattr(search._OneStudy, "cells", cells)
    folder = Path.cwd() / "here"
    line = [*SEARCH, "--storage", server, "--study", "gone", "--run-dir", str(folder)]
    assert run(line) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "failed during the search (server closed the connection unexpectedly); completed cells are saved" in err
    assert "to go on once it can: stresstest warmup" in err
    assert '--storage "$STRESSTEST_STORAGE" --study gone' in err
    assert "secret" not in err + (folder / "manifest.json").read_text()
    monkeypatch.undo()
    assert run(line) == 0
    assert len(complete(study_of(server, "gone").trials)) == 10


def one_study(variant: str, study: optuna.Study, of: search.Search) -> search._OneStudy:
    """A study of a variant by itself, without a run."""
    one = object.__new__(search._OneStudy)
    one.search, one.study, one.variant, one.shared, one.live, one.seen = of, study, variant, True, {}, set()
    return one


def test_a_driver_is_lost_once_its_beat_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])
    of = search.Search()
    one, other = (one_study(variant, optuna.create_study(), of) for variant in ("post-ln", "pre-ln"))
    one.study.set_user_attr("beat them", 1)
    other.study.set_user_attr("beat them", 0)  # it died between the two
    assert not one._is_lost("them")
    now[0] += search.LOST_SECONDS
    one.study.set_user_attr("beat them", 2)
    assert not one._is_lost("them"), "it lives"
    assert not other._is_lost("them")
    now[0] += search.LOST_SECONDS
    assert not one._is_lost("them")
    assert not other._is_lost("them")
    now[0] += 1.0
    assert one._is_lost("them")
    assert other._is_lost("them")


def test_a_trial_that_another_driver_ends_after_we_looked_is_waited_for() -> None:
    study = optuna.create_study()
    one = one_study("post-ln", study, search.Search())
    one.spec, one.seen = SimpleNamespace(trials=1), set()
    theirs = study.ask()
    assert one.waits, "it is under way"
    study.tell(theirs, 1.0)
    assert one.waits, "it has ended, and we have not seen it"
    one.seen = {theirs.number}
    assert not one.waits
    one.spec = SimpleNamespace(trials=2)
    assert one.waits, "somebody has yet to ask for the second"


def test_what_a_driver_hands_in_that_was_taken_for_lost_is_let_go() -> None:
    one = one_study("post-ln", optuna.create_study(), search.Search())
    trial = one.study.ask({"peak_lr": optuna.distributions.FloatDistribution(0.01, 1.0, log=True)})
    one.study.tell(trial.number, state=TrialState.FAIL)  # by another driver, meanwhile
    cell = Cell(key="k", variant="post-ln", depth=1, seed=0, status="done", recipe={"outcome": "stable", "loss": 2.0})
    one.live, one.ended = {trial.number: trial}, {"k": cell}
    one._cells = lambda params: [CellPlan("k", "post-ln", 1, 0)]  # type: ignore[method-assign]  # of this one trial
    one._tell()
    assert one.live == {}
    assert one.study.trials[0].state == TrialState.FAIL
    one.spec = SimpleNamespace(trials=0)
    assert not one.waits


@pytest.mark.usefixtures("elsewhere")
def test_optunas_dashboard_opens_a_finished_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SEARCH, "--trials", "3", "--map", "--num-lrs", "2", "--run-dir", "here"]) == 0
    capsys.readouterr()
    port = free_port()
    command = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", "here/study.journal"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def fetched(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        assert "<title>Optuna Dashboard" in fetched("/dashboard/")
        [summary] = json.loads(fetched("/api/studies"))["study_summaries"]
        assert summary["study_name"] == "post-ln"
        detail = json.loads(fetched(f"/api/studies/{summary['study_id']}"))
        states = Counter(trial["state"] for trial in detail["trials"])
        assert states == {"Complete": 4 + 3}
        assert {param["name"] for param in detail["trials"][-1]["params"]} == {"warmup_steps", "peak_lr"}
    finally:
        process.terminate()
        process.wait(30)
