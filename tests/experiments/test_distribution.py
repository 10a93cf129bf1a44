"""Cells spread over processes, nodes and jobs that are killed: each there once, equal to an undisturbed run's.

The seed of the kills is printed where a test fails.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stresstest.experiments.cells import Listener, run
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import Plan
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Cell
from stresstest.runs.executor import Executor
from stresstest.runs.ray_cluster import Ray
from stresstest.runs.settings import RunSettings
from stresstest.runs.slurm import Slurm
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec
from tests.torture.meanwhile import meanwhile

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before the import of ray: else 127.0.0.1 is another address

SETTINGS: dict[str, Any] = {
    "depth": 2,
    "width": 16,
    "heads": 2,
    "seq_len": 16,
    "num_steps": 60,
    "hold_steps": 30,
    "variant": "post-ln,pre-ln,rezero,normformer",
    "seeds": "3",
    "device": "cpu",
}
KILLS = 8

TOLD_TO_END_ONCE = """
import os, pathlib, signal, time
from stresstest.runs.stopping import stop_if_requested
if not pathlib.Path(path).exists():
    pathlib.Path(path).touch()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    stop_if_requested()
"""


def planned() -> Plan:
    return plan(make_spec(LrRangeSpec, "quick", SETTINGS))


def train(path: Path, listener: Listener = Listener(), **settings: Any) -> list[Cell]:
    sweep = planned()
    with open_run(path, {"identity": sweep.identity, "command": "", "again": ""}) as store:
        return run(sweep, store, RunSettings(**settings), listener)[0]


def records(cells: Sequence[Cell]) -> list[str]:
    """All of the cells but how long they took."""
    return [cell.model_copy(update={"seconds": 0.0, "probe_seconds": 0.0}).model_dump_json() for cell in cells]


def done_lines(path: Path) -> Counter[str]:
    """How many lines of a finished cell there are, by key."""
    lines = map(json.loads, (path / "cells.jsonl").read_text().splitlines())
    return Counter(line["key"] for line in lines if line["status"] == "done")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return records(train(tmp_path_factory.mktemp("undisturbed"), jobs=1))


@contextlib.contextmanager
def killer(seed: int, kills: int) -> Iterator[list[int]]:
    """Kill worker processes one after the other, each at a random time after the last."""
    rng, killed = random.Random(seed), list[int]()

    def strike() -> None:
        alive = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        if alive and len(killed) < kills:
            with contextlib.suppress(ProcessLookupError):
                killed.append(rng.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)

    with meanwhile(strike, lambda: rng.uniform(0.05, 2.0)):
        yield killed


def test_cells_whose_workers_are_killed_at_random_are_there_once_and_the_same(
    undisturbed: list[str], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    cells, kills, rounds = list[Cell](), 0, 0
    while kills < KILLS or any(cell.status != "done" for cell in cells):
        rounds += 1
        if all(cell.status == "done" for cell in cells):  # too few kills: a sweep of its own
            path = tmp_path / f"run {rounds}"
        with killer(seed + rounds, KILLS - kills) as killed:
            cells = train(path, jobs=2, retry_errors=True)
        kills += len(killed)
        for cell in cells:
            assert cell.status == "done" or "its worker died 3 times" in cell.error
    print(f"{kills} kills in {rounds} rounds")
    assert records(cells) == undisturbed
    assert done_lines(path) == {cell.key: 1 for cell in planned().cells}


def test_a_run_whose_driver_is_killed_at_random_goes_on_to_the_same_cells(
    undisturbed: list[str], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    line = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "stresstest", "lr-range", *line, "-j", "2", "--run-dir", str(tmp_path / "run")]
    for _ in range(3):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(rng.uniform(1.0, 8.0))
        driver.kill()
        driver.wait()
    last = subprocess.run([*command, "--json"], capture_output=True, check=True)
    cells = [Cell.model_validate(cell) for cell in json.loads(last.stdout)["cells"]]
    assert records(cells) == undisturbed
    assert done_lines(tmp_path / "run") == {cell.key: 1 for cell in planned().cells}


LEFT_OPEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::FutureWarning"
)  # by libraries, of the processes that they start


@LEFT_OPEN
def test_jobs_of_slurm_that_are_killed_cost_no_cell(undisturbed: list[str], tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    killed: list[int] = []

    def kill_its_job(cell: CellPlan) -> None:
        for claim in (tmp_path / "slurm").glob("queue-*/*.by-*"):
            job = int(claim.suffix.removeprefix(".by-"))
            if len(killed) < 3 and job not in killed:
                os.kill(job, signal.SIGKILL)
                killed.append(job)

    settings = {"executor": "slurm", "slurm": (("cluster", "local"),), "jobs": 2}
    cells = train(tmp_path, Listener(started=kill_its_job), **settings)
    assert len(killed) == 3
    assert records(cells) == undisturbed
    assert done_lines(tmp_path) == {cell.key: 1 for cell in planned().cells}


@LEFT_OPEN
@pytest.mark.parametrize("executor", ["slurm", "ray"])
def test_a_task_whose_worker_is_told_to_end_by_others_is_done_by_another(executor: str, tmp_path: Path) -> None:
    pytest.importorskip("submitit" if executor == "slurm" else "ray", reason=f"needs the extra {executor}")
    place: Executor = Slurm(tmp_path, cluster="local") if executor == "slurm" else Ray(at_once=1)
    tasks = [{"path": str(tmp_path / name)} for name in ("one", "two")]
    done = list(place.run(partial(exec, TOLD_TO_END_ONCE), tasks))
    assert sorted(Path(each.task["path"]).name for each in done) == ["one", "two"]
    assert [each.error for each in done] == ["", ""]


@LEFT_OPEN
def test_a_new_driver_is_not_answered_by_the_jobs_of_one_that_is_no_more(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    first = Slurm(tmp_path, jobs=2, cluster="local").run(eval, ["'quick'", "(__import__('time').sleep(3), 'old')[1]"])
    assert next(first).answer == "quick"
    found = list(Slurm(tmp_path, jobs=2, cluster="local").run(eval, ["'new'", "'newer'"]))
    assert sorted((each.task, each.answer) for each in found) == [("'new'", "new"), ("'newer'", "newer")]
    first.close()


@contextlib.contextmanager
def cluster_of_two() -> Iterator[tuple[str, Callable[[], None]]]:
    """A Ray cluster of two nodes of one core, bound to this machine: its address, and how to lose a node."""
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


@LEFT_OPEN
def test_a_ray_cluster_that_loses_a_node_trains_the_same_cells(undisturbed: list[str], tmp_path: Path) -> None:
    ended: list[str] = []
    with cluster_of_two() as (address, lose):

        def lose_half_way(cell: Cell) -> None:
            ended.append(cell.key)
            if len(ended) == 4:
                lose()

        cells = train(tmp_path, Listener(ended=lose_half_way), executor="ray", ray_address=address)
    assert records(cells) == undisturbed
    assert done_lines(tmp_path) == {cell.key: 1 for cell in planned().cells}
