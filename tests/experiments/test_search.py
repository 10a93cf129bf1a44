"""The search: batches asked, trained and told, whatever is killed in between."""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from stresstest.experiments.cells import run
from stresstest.experiments.plan import Plan
from stresstest.experiments.warmup.measure import plan
from stresstest.experiments.warmup.rows import reduce
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.results.records import Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec

TINY: dict[str, Any] = {
    "variant": "post-ln",
    "depth": 1,
    "width": 8,
    "heads": 2,
    "seq_len": 8,
    "batch_size": 4,
    "train_steps": 20,
    "warmup_steps": "0,10",
    "start_lr": 0.01,
    "end_lr": 1.0,
    "num_lrs": 2,
    "map": False,
    "trials": 8,
    "trials_at_once": 3,
    "seeds": "2",
    "device": "cpu",
}


def planned(**settings: Any) -> Plan:
    return plan(make_spec(WarmupSpec, "quick", TINY | settings))


def searched(path: Path, sweep: Plan, **settings: Any) -> list[Cell]:
    with open_run(path, {"identity": sweep.identity, "command": "", "again": ""}) as store:
        return run(sweep, store, RunSettings(jobs=1, **settings))[0]


def trials_of(path: Path, variant: str = "post-ln") -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(path / "study.journal")))
    return optuna.load_study(study_name=variant, storage=storage).trials


def complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_search_tells_every_trial_the_mean_clipped_loss_and_who_did_not_train(tmp_path: Path, sampler: str) -> None:
    sweep = planned(sampler=sampler, warmup="linear,cosine", optimizer="adam,sgd") if sampler == "tpe" else planned()
    cells = searched(tmp_path, sweep)
    trials = trials_of(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    by_point: dict[tuple[int, float], list[Cell]] = {}
    for cell in cells:
        by_point.setdefault((max(1, cell.point["warmup_steps"]), cell.point["peak_lr"]), []).append(cell)
    assert len(by_point) == 8
    for trial in trials:
        own = by_point[trial.params["warmup_steps"], trial.params["peak_lr"]]
        assert trial.value == pytest.approx(statistics.fmean(cell.recipe["loss"] for cell in own))
        untrained = sum(cell.recipe["outcome"] not in ("stable", "spiked") for cell in own) / 2
        assert trial.constraints == {"seeds that do not train": untrained}


def test_a_search_is_the_same_twice_and_another_with_another_seed(tmp_path: Path) -> None:
    first, again, other = (
        {cell.key for cell in searched(tmp_path / name, planned(search_seed=seed, sampler="tpe"))}
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert not first & other


def test_trials_are_a_total_over_resumes_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    few = searched(tmp_path, planned(trials=4))
    lines = (tmp_path / "cells.jsonl").read_text().splitlines()
    more = searched(tmp_path, planned(trials=9))
    assert [len(few), len(more), len(lines)] == [8, 18, 8]
    assert {cell.key for cell in few} < {cell.key for cell in more}
    assert (tmp_path / "cells.jsonl").read_text().splitlines()[:8] == lines
    assert len(complete(trials_of(tmp_path))) == 9
    assert len(searched(tmp_path, planned(trials=9))) == 18


def test_the_map_teaches_the_search_once_and_counts_as_no_trial(tmp_path: Path) -> None:
    for _ in range(2):
        cells = searched(tmp_path, planned(map=True, trials=3))
    trials = trials_of(tmp_path)
    assert len(cells) == (4 + 3) * 2
    assert [("map" in trial.user_attrs) for trial in trials] == [True] * 4 + [False] * 3
    row = reduce(planned(map=True, trials=3).spec, cells).searches[0]  # type: ignore[arg-type]  # of a search
    assert (row.settings, row.trials) == (7, 3)


def test_another_search_in_the_same_run_directory_starts_a_study_of_its_own(tmp_path: Path) -> None:
    searched(tmp_path, planned(trials=2))
    searched(tmp_path, planned(trials=2, end_lr=2.0))
    assert len(trials_of(tmp_path)) == 2
    assert len(list(tmp_path.glob("study.*.journal"))) == 1


def test_a_trial_whose_cell_crashes_is_failed_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stresstest.engine.population import Population

    step, broken = Population.step, []

    def failing(self: Population, *args: Any) -> Any:
        if len(broken) < 2:  # as the cells of a group train together, and as the first of them trains by itself
            broken.append(True)
            raise RuntimeError("boom")
        return step(self, *args)

    monkeypatch.setattr(Population, "step", failing)
    cells = searched(tmp_path, planned(trials=4))
    assert Counter(cell.status for cell in cells) == {"done": 7, "crashed": 1}
    assert Counter(trial.state.name for trial in trials_of(tmp_path)) == {"COMPLETE": 3, "FAIL": 1}


def test_an_interrupted_batch_is_asked_for_again_and_no_trial_stays_running(tmp_path: Path) -> None:
    searched(tmp_path, planned(), max_cells=3)
    assert [trial.state.name for trial in trials_of(tmp_path)] == ["RUNNING"] * 3
    cells = searched(tmp_path, planned())
    states = Counter(trial.state.name for trial in trials_of(tmp_path))
    assert states == {"COMPLETE": 8, "FAIL": 3}
    assert len({cell.key for cell in cells}) == 16
    failed, retried = ([t.params for t in trials_of(tmp_path)[part]] for part in (slice(3), slice(3, 6)))
    assert failed == retried


@pytest.mark.parametrize("damage", [1, 10, 60, 200, 400, "garbage"])
def test_a_journal_that_was_cut_or_spoilt_costs_no_cell_and_the_total_is_right(
    tmp_path: Path, damage: int | str
) -> None:
    cells = searched(tmp_path, planned(trials=4))
    journal, lines = tmp_path / "study.journal", (tmp_path / "cells.jsonl").read_text()
    journal.write_bytes(damage.encode() if isinstance(damage, str) else journal.read_bytes()[:-damage])
    again = searched(tmp_path, planned(trials=4))
    assert {cell.key for cell in again} == {cell.key for cell in cells}
    assert (tmp_path / "cells.jsonl").read_text() == lines
    assert len(complete(trials_of(tmp_path))) == 4


COMMAND = (
    "import sys; from stresstest.cli.main import run; sys.exit(run(sys.argv[1:]))",
    *"warmup --variant post-ln --depth 1 --width 8 --heads 2 --seq-len 8 --batch-size 4 --train-steps 20".split(),
    *"--warmup-steps 0,10 --start-lr 0.01 --end-lr 1 --no-map --trials 8 --trials-at-once 3 --seeds 2".split(),
    *"--device cpu -j 1 -q --json --sampler tpe".split(),
)


def test_a_search_killed_at_random_points_goes_on_to_the_right_total(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    rng, killed, journal = random.Random(seed), 0, tmp_path / "run" / "study.journal"
    print(f"seed {seed}")
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", *COMMAND, "--run-dir", str(tmp_path / "run")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        size = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and (not journal.exists() or journal.stat().st_size == size):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    ended = subprocess.run(
        [sys.executable, "-c", *COMMAND, "--run-dir", str(tmp_path / "run")], capture_output=True, check=True
    )
    result = json.loads(ended.stdout)
    trials = trials_of(tmp_path / "run")
    assert len(complete(trials)) == 8
    assert not [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert len({json.dumps(trial.params) for trial in complete(trials)}) == 8
    assert Counter(cell["status"] for cell in result["cells"]) == {"done": 16}
    assert result["searches"][0]["trials"] == 8
