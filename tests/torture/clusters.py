"""Jobs of Slurm and nodes of Ray that vanish, are late, or answer twice: every task has one answer, the right one.

    python -m tests.torture.clusters slurm [--count 100] [--seed 0]
    python -m tests.torture.clusters ray [--count 20] [--seed 0]

Slurm: submitit's jobs as processes of this machine. While they empty a queue, at moments that are drawn, one is killed,
stands still for a while, is taken for lost though it goes on, or has its task put back into the queue while it is at
it. Ray: a cluster of two nodes on this machine, one of which is lost and another comes; processes that do a task are
killed or stand still. A task whose processes died three times may say so instead, if so many were killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from stresstest.errors import InterruptedRunError
from stresstest.runs.executor import ATTEMPTS, Done, Executor
from stresstest.runs.ray_cluster import Ray
from stresstest.runs.slurm import Slurm
from tests.torture.meanwhile import meanwhile
from tests.torture.stored import Tally, parser

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # before the import of ray: else 127.0.0.1 is another address

_TASKS = 10  # of one run
_TASK = "(__import__('time').sleep({seconds}), {number})[1]"  # for eval, which every process knows
_ENDS = 120.0  # seconds that what is left may take to end: some of it only begins, and imports torch
_Deed = Callable[[random.Random], str | None]  # what it did, `None` where there was nothing to do it to


def slurm(count: int, seed: int) -> Tally:
    """So many queues, each emptied by two jobs."""
    from submitit import LocalJob

    draw, tally = random.Random(seed), Tally("jobs of Slurm: tasks lost, changed or answered twice")
    done, lost = LocalJob.done, set[str]()
    with mock.patch.object(LocalJob, "done", lambda self: self.job_id in lost or done(self)):
        for _ in range(count):
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                lost.clear()
                deeds = [*_of_processes(partial(_at_work, place)), _taken_for_lost(place, lost), _put_back(place)]
                _one_run(Slurm(place, jobs=2, cluster="local"), deeds, 1.0, draw, tally)
                tally.wrong += [f"try {tally.tries}: job {job} is left" for job in _left(place)]
    return tally


def ray(count: int, seed: int) -> Tally:
    """So many runs on a cluster of two nodes."""
    from ray.cluster_utils import Cluster

    draw, tally = random.Random(seed), Tally("nodes of Ray: tasks lost, changed or answered twice")
    node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(count):
            second = cluster.add_node(**node)
            cluster.wait_for_nodes()
            nodes = [second]

            def lose(draw: random.Random, nodes: list[Any] = nodes) -> str | None:
                if not nodes or draw.random() < 0.5:
                    return None
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                return "nodes lost"

            _one_run(Ray(cluster.address), [lose, *_of_processes(_at_a_task)], 2.0, draw, tally)
            for each in nodes:
                cluster.remove_node(each, allow_graceful=False)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray's
    return tally


def _one_run(place: Executor, deeds: Sequence[_Deed], pause: float, draw: random.Random, tally: Tally) -> None:
    """With a deed every so many seconds, about."""
    numbers = {_TASK.format(seconds=draw.uniform(0.02, 0.5), number=i): i for i in range(_TASKS)}
    tally.tries += 1
    with _mischief(deeds, pause, random.Random(draw.random())) as told:
        try:
            found: list[Done[str, int]] = list(place.run(eval, list(numbers)))
        except InterruptedRunError:  # somebody ends the torture
            raise
        except Exception as error:
            tally.wrong.append(f"try {tally.tries}: {type(error).__name__}: {error}")
            return
    for kind in told:
        tally.note(kind)
    tally.note("answers", len(found))
    deaths = sum(kind not in ("stood still", "answered twice") for kind in told)
    if sorted(each.task for each in found) != sorted(numbers):
        tally.wrong.append(f"try {tally.tries}: {len(found)} answers to {len(numbers)} tasks")
    for each in found:
        died = each.failure == "crashed" and deaths >= ATTEMPTS
        tally.note("tasks told to have died three times", died)
        if not died and (each.error or each.answer != numbers[each.task]):
            tally.wrong.append(f"try {tally.tries}: {each} after {', '.join(told)}")


@contextlib.contextmanager
def _mischief(deeds: Sequence[_Deed], pause: float, draw: random.Random) -> Iterator[list[str]]:
    """Do what is drawn at moments that are drawn; what was done, in words."""
    told = list[str]()

    def do() -> None:
        what = draw.choice(deeds)(draw)
        told.extend([what] if what else [])

    with meanwhile(do, lambda: 2.0 * pause * draw.random()):
        yield told


def _of_processes(alive: Callable[[], list[int]]) -> list[_Deed]:
    """Kill one of them, or let one stand still for a while."""

    def kill(draw: random.Random) -> str | None:
        return "killed" if _sent(signal.SIGKILL, alive(), draw) else None

    def stand_still(draw: random.Random) -> str | None:
        process = _sent(signal.SIGSTOP, alive(), draw)
        time.sleep(draw.uniform(0.2, 2.0) if process else 0.0)
        return "stood still" if process and _sent(signal.SIGCONT, [process], draw) else None

    return [kill, stand_still]


def _sent(number: signal.Signals, alive: Sequence[int], draw: random.Random) -> int | None:
    """The process that got the signal."""
    if not alive:
        return None
    process = draw.choice(alive)
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return None
    return process


def _claims(folder: Path) -> list[Path]:
    """What jobs are at."""
    return [path for path in folder.glob("queue-*/*.by-*") if _runs(_job_of(path))]


def _job_of(claim: Path) -> int:
    return int(claim.suffix.removeprefix(".by-"))


def _at_work(folder: Path) -> list[int]:
    """The processes of jobs that are at a task: submitit's own of each job, and the one that does it."""
    found = list[int]()
    for job in map(_job_of, _claims(folder)):
        with contextlib.suppress(OSError):
            found += [job, *map(int, Path(f"/proc/{job}/task/{job}/children").read_text().split())]
    return found


def _taken_for_lost(folder: Path, lost: set[str]) -> _Deed:
    def deed(draw: random.Random) -> str | None:
        jobs = [job for path in _claims(folder) if (job := str(_job_of(path))) not in lost]
        lost.update([draw.choice(jobs)] if jobs else [])
        return "taken for lost" if jobs else None

    return deed


def _put_back(folder: Path) -> _Deed:
    def deed(draw: random.Random) -> str | None:
        claims = _claims(folder)
        with contextlib.suppress(FileNotFoundError):
            if claims:
                claim = draw.choice(claims)
                shutil.copyfile(claim, claim.with_suffix(".again"))
                claim.with_suffix(".again").rename(claim.with_suffix(".task"))
                return "answered twice"
        return None

    return deed


def _left(folder: Path) -> list[int]:
    """Jobs that still run a while after all has its answer."""
    jobs = {int(path.name.partition("_")[0]) for path in (folder / "logs").glob("*_submitted.pkl")}
    until = time.monotonic() + _ENDS
    while (left := [job for job in sorted(jobs) if _runs(job)]) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def _runs(process: int) -> bool:
    """Whether a process is there, and not only its end, which nobody has asked for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _at_a_task() -> list[int]:
    """The processes of Ray that do a task: it names them so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::_answer"):
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    options = parser(__doc__, 0)
    options.add_argument("kind", choices=["slurm", "ray"])
    given = options.parse_args()
    torture = {"slurm": slurm, "ray": ray}[given.kind]
    sys.exit(torture(given.count or {"slurm": 100, "ray": 20}[given.kind], given.seed).end())
